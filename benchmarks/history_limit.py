"""What a user's history can add to recall in the simulated shop: the oracle's relevance and popularity, alone and bent by tastes."""

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import about_shop, shop
from tfebr import pipeline
from tfebr.data.dataset import DataFolder
from tfebr.data.log import clicked_items, split_time
from tfebr.data.simulator import Oracle
from tfebr.evaluation.requests import HeldOut
from tfebr.evaluation.significance import paired_test

DEPTHS = (10, 100)
BASE = "relevance x popularity"


def run(quick: bool) -> dict[str, Any]:
    """Ranks the held-out requests with an order by the oracle's relevance times popularity, then with what is known of the user.

    No model is in it: this is what a perfect reader of queries could gain from a history. "true utility" also knows the tastes that the
    simulator drew, which no log shows.
    """
    seeds = (0,) if quick else (0, 1, 2)
    found: dict[str, list[list[float]]] = defaultdict(list)
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
            for name, recalls in _recalls(shop(Path(scratch, "shop"), seed, quick)).items():
                found[name] += recalls
        print(f"seed {seed}: {len(found[BASE]):,} requests with an order so far", flush=True)
    results: dict[str, Any] = {"config": {"shop": about_shop(quick), "seeds": list(seeds)}, "requests": len(found[BASE])}
    for at, depth in enumerate(DEPTHS):
        base = np.array(found[BASE])[:, at]
        rows: dict[str, dict[str, Any]] = {}
        for name, recalls in found.items():
            values = np.array(recalls)[:, at]
            rows[name] = {"recall": round(float(values.mean()), 4)}
            if name != BASE:
                pair = paired_test(values, base)
                rows[name] |= {
                    "gain": round(pair.difference, 4),
                    "interval_95": [round(pair.low, 4), round(pair.high, 4)],
                    "p": pair.p_value,
                }
            print(f"ordered recall@{depth:<4} {name:<44} {rows[name]}", flush=True)
        results[f"ordered_recall@{depth}"] = rows
    return results


def _recalls(data: DataFolder) -> dict[str, list[list[float]]]:
    oracle = Oracle.read(data.path / "oracle")
    evaluation = pipeline.Evaluation.of(data, split_time(data.log(), pipeline.TEST_SHARE))
    held_out, catalogue = evaluation.requests, evaluation.catalogue
    assert isinstance(held_out, HeldOut)
    assert evaluation.popularity is not None
    brands = catalogue.table["brand"].combine_chunks().dictionary_encode().indices.to_numpy()
    clicks = _clicks(data)
    rows, appeal = np.arange(len(catalogue))[None], 1 + np.log1p(evaluation.popularity)
    found: dict[str, list[list[float]]] = defaultdict(list)
    for i, ordered in enumerate(held_out.ordered):
        if not len(ordered):
            continue
        history = [row for time, row in clicks[held_out.user_ids[i]] if time < held_out.times[i]][-50:]
        share = np.bincount(brands[history], minlength=brands.max() + 1)[brands] / max(len(history), 1)
        seen = np.isin(rows[0], history)
        base = oracle.relevance([held_out.queries[i]], rows)[0] * appeal
        scores = {
            BASE: base,
            "and share of the brand in the last 50 clicks": base * (1 + share),
            "and whether the item was clicked before": base * (1 + seen),
            "true utility x popularity": oracle.utility([held_out.user_ids[i]], [held_out.queries[i]], rows)[0] * appeal,
        }
        for name, values in scores.items():
            best = np.argsort(-values, kind="stable")
            found[name].append([float(np.isin(ordered, best[:depth]).mean()) for depth in DEPTHS])
    return found


def _clicks(data: DataFolder) -> dict[str, list[tuple[int, int]]]:
    """(time, catalogue row) of every click, by user, oldest first."""
    catalogue = data.catalogue()
    clicks = defaultdict(list)
    for batch in data.log().batches():
        times, users = batch["time"].to_numpy(), batch["user_id"].to_pylist()
        request, item_ids = clicked_items(batch)
        for at, row in zip(request, catalogue.rows_of(item_ids), strict=True):
            clicks[users[at]].append((int(times[at]), int(row)))
    return clicks
