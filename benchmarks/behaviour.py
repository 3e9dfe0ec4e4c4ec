"""Purchases on EComm's last day: MMSE's objectives with all stages against the same model on clicks alone, three seeds."""

import collections
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.seeds import compared, over_seeds
from tfebr import pipeline
from tfebr.data.dataset import DataFolder
from tfebr.data.log import shown_items
from tfebr.data.readers import prepare
from tfebr.data.stage import Stage
from tfebr.evaluation.ranking import Ranking
from tfebr.evaluation.report import Report
from tfebr.evaluation.requests import HeldOut

# Queries and titles are ids: of the leaf category, and of category and brand.
CHANGES: dict[str, Any] = {"features": {"grains": ["words"], "query_lengths": [2], "title_lengths": [4]}}
CLICK_ONLY = "click_only"
# The set has no unclicked items, so that the ranking loss is between clicked, carted and bought ones.
SYSTEMS: dict[str, dict[str, Any]] = {
    CLICK_ONLY: {"click_only": True, "ordered": 0, "clicked": 4, "ranking_weight": 0.0},
    "all_stages_without_ranking_loss": {"ranking_weight": 0.0},
    "all_stages": {},
    "graded_infonce": {"objective": "graded"},
}
# What the stages say without a model: a category's items in the order of how often they were clicked, or bought, before the last day.
COUNTED = {"most_clicked": Stage.CLICKED, "most_bought": Stage.ORDERED}
METRIC = "ordered_recall@100"
METRICS = (METRIC, "ordered_recall@10", "clicked_recall@100", "order_over_click", "popularity@100")


def run(quick: bool, data: Path) -> dict[str, Any]:
    """Trains each system on all days but the last, and ranks all items for what each user looked for in a category on the last day.

    Args:
        data: holds the folder `ecomm_behaviour` with the set as `tfebr prepare behaviour` takes it.
    """
    source = data / "ecomm_behaviour"
    if not source.is_dir():
        print(f"skipped: {source} is missing. Give the folder that holds `ecomm_behaviour` with --data.", flush=True)
        return {"skipped": "the folder `ecomm_behaviour` with events and items was not there"}
    seeds = (0,) if quick else (0, 1, 2)
    reports: dict[str, list[Report]] = {name: [] for name in SYSTEMS}
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        folder = prepare("behaviour", source, Path(scratch, "data"), quiet=True)
        last_day = _last_time(folder)
        evaluation = pipeline.Evaluation.of(folder, last_day)
        counted = {name: evaluation.report(_most_counted(evaluation, stage)) for name, stage in COUNTED.items()}
        for seed in seeds:
            for name, changes in SYSTEMS.items():
                config = CHANGES | changes | {"training": {"seed": seed, **({"epochs": 1} if quick else {})}}
                trained = pipeline.train(folder.path, Path(scratch, f"{name}-{seed}"), "mmse", config, quiet=True, test_from=last_day)
                _, report = pipeline.measure_model(trained, evaluation)
                reports[name].append(report)
                means = report.means()
                print(f"seed {seed}, {name}: " + ", ".join(f"{metric} {means[metric]:.4f}" for metric in METRICS), flush=True)
                # Keras keeps every model's graph.
                tf.keras.backend.clear_session()
    defined = reports[CLICK_ONLY][0].to_json()["defined"]
    return {
        "config": {"model": "mmse", "changes": CHANGES, "systems": SYSTEMS, "training_seeds": seeds, "test_from": last_day},
        "requests": {metric: defined[metric] for metric in METRICS} | {"held_out": len(reports[CLICK_ONLY][0])},
        "most_counted_in_the_category": {
            **{name: {metric: round(report.means()[metric], 4) for metric in METRICS[:3]} for name, report in counted.items()},
            "most_bought - most_clicked": [
                compared([counted["most_bought"].values(m)], [counted["most_clicked"].values(m)], m) for m in METRICS[:2]
            ],
        },
        "means": {name: over_seeds([{m: r.means()[m] for m in METRICS} for r in found]) for name, found in reports.items()},
        "paired_tests_on_mean_over_seeds": {
            f"{name} - {CLICK_ONLY}": [
                compared([r.values(metric) for r in found], [r.values(metric) for r in reports[CLICK_ONLY]], metric) for metric in METRICS
            ]
            for name, found in reports.items()
            if name != CLICK_ONLY
        },
    }


def _most_counted(evaluation: pipeline.Evaluation, stage: Stage) -> Ranking:
    """Of each request's category, the items that came to the stage most often before the held-out part; equal counts by clicks."""
    assert isinstance(evaluation.requests, HeldOut)
    counts: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for batch in evaluation.data.log().batches():
        request, item_ids, stages, _ = shown_items(batch)
        before = (batch["time"].to_numpy() < evaluation.requests.times[0])[request]
        rows, queries = evaluation.catalogue.rows_of(item_ids), batch["query"].to_pylist()
        for at in np.flatnonzero(before & (rows >= 0) & (stages >= Stage.CLICKED)):
            # A click weighs next to nothing beside what is counted.
            counts[queries[request[at]]][int(rows[at])] += 1_000 * int(stages[at] >= stage) + 1
    k = max(evaluation.k)
    found, scores = np.full((len(evaluation.queries), k), -1), np.zeros((len(evaluation.queries), k))
    for number, query in enumerate(evaluation.queries):
        best = sorted(counts[query].items(), key=lambda item: (-item[1], item[0]))[:k]
        found[number, : len(best)], scores[number, : len(best)] = [row for row, _ in best], [count for _, count in best]
    return Ranking(found, scores)


def _last_time(folder: DataFolder) -> int:
    """The time of the last requests: all of a day are at its midnight."""
    return max(batch["time"][-1].as_py() for batch in folder.log().batches() if batch.num_rows)
