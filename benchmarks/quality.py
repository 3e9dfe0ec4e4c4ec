"""MGDSPR, DPSR with and without user and history, the plain two-tower and BM25 in three simulated shops, compared pairwise."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import about_shop, shop
from tfebr import pipeline
from tfebr.data import text
from tfebr.evaluation.report import BANDS, Report
from tfebr.evaluation.requests import HeldOut
from tfebr.evaluation.significance import paired_test

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mgdspr": ("mgdspr", {}),
    "dpsr": ("dpsr", {}),
    "dpsr_without_user_and_history": ("dpsr", {"use_user": False, "use_history": False}),
    "two_tower": ("two_tower", {}),
}
PAIRS = (
    ("mgdspr", "dpsr"),
    ("mgdspr", "bm25"),
    ("dpsr", "dpsr_without_user_and_history"),
    ("dpsr", "two_tower"),
    ("dpsr_without_user_and_history", "two_tower"),
    ("dpsr", "bm25"),
    ("dpsr_without_user_and_history", "bm25"),
    ("two_tower", "bm25"),
)
METRIC, GOOD = "ordered_recall@100", "p_good@100"


def run(quick: bool) -> dict[str, Any]:
    """Trains every model in every shop; means per seed, and pooled over the shops' requests with intervals and paired tests."""
    seeds = (0,) if quick else (0, 1, 2)
    reports: dict[str, list[Report]] = {name: [] for name in (*MODELS, "bm25")}
    overlap: list[dict[str, np.ndarray]] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
            data = shop(Path(scratch, "shop"), seed, quick)
            for name, (model, config) in MODELS.items():
                trained = pipeline.train(data.path, Path(scratch, name), model, config, quiet=True)
                evaluation = pipeline.Evaluation.of(data, trained.split_time)
                reports[name].append(evaluation.report(pipeline.rank_model(trained, evaluation)))
                _say(seed, name, reports[name][-1])
            reports["bm25"].append(evaluation.report(pipeline.rank_bm25(evaluation)))
            _say(seed, "bm25", reports["bm25"][-1])
            overlap.append(_overlap(evaluation))
    pooled = {name: {metric: _pooled(found, metric) for metric in _metrics(found[0])} for name, found in reports.items()}
    tests: dict[str, dict[str, Any]] = {}
    for a, b in PAIRS:
        for metric in [METRIC, *(f"{METRIC}/{band}" for band in BANDS), GOOD]:
            pair = paired_test(pooled[a][metric], pooled[b][metric])
            tests.setdefault(f"{a} - {b}", {})[metric] = {
                "difference": round(pair.difference, 4),
                "interval_95": [round(pair.low, 4), round(pair.high, 4)],
                "p": round(pair.p_value, 5),
                "requests": pair.n,
            }
    return {
        "config": {"shop": about_shop(quick), "simulator_seeds": seeds, "training_seed": 0, "models": MODELS},
        "means_by_seed": {name: [_rounded(r.means()) for r in found] for name, found in reports.items()},
        "pooled": {name: {metric: _interval(values) for metric, values in metrics.items()} for name, metrics in pooled.items()},
        "paired_tests": tests,
        "query_words_in_ordered_item": _overlap_by_band(reports, overlap),
    }


def _metrics(report: Report) -> list[str]:
    return [
        METRIC,
        *(f"{METRIC}/{band}" for band in BANDS),
        "clicked_recall@100",
        "ordered_recall@10",
        "p_good@10",
        GOOD,
    ]


def _pooled(reports: list[Report], metric: str) -> np.ndarray:
    return np.concatenate([report.values(metric) for report in reports])


def _interval(values: np.ndarray) -> dict[str, Any]:
    """Mean with a bootstrap interval, which the paired test gives against a system that always scores 0."""
    found = paired_test(values, np.zeros_like(values))
    return {"mean": round(found.difference, 4), "interval_95": [round(found.low, 4), round(found.high, 4)], "requests": found.n}


def _rounded(means: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else round(value, 4) for name, value in means.items()}


def _say(seed: int, name: str, report: Report) -> None:
    means = report.means()
    print(f"shop {seed} {name}: {METRIC} {means[METRIC]:.4f}, tail {means[METRIC + '/tail']:.4f}", flush=True)


def _overlap(evaluation: pipeline.Evaluation) -> dict[str, np.ndarray]:
    """[requests] share of the query's words in the ordered items' title, and in all fields that BM25 reads; NaN without an order."""
    assert isinstance(evaluation.requests, HeldOut)
    catalogue = evaluation.catalogue.table
    roles = evaluation.data.roles(evaluation.catalogue)
    fields = {"title": catalogue["title"].to_pylist()}
    columns = (catalogue[name].to_pylist() for name in (*roles.text, *roles.category))
    fields["all_fields"] = [" ".join(row) for row in zip(*columns, strict=True)]
    queries = _words(evaluation.queries)
    shares = {}
    for name, texts in fields.items():
        items = _words(texts)
        shares[name] = np.array(
            [
                np.mean([len(query & items[row]) / len(query) for row in rows]) if len(rows) and query else np.nan
                for query, rows in zip(queries, evaluation.requests.ordered, strict=True)
            ]
        )
    return shares


def _words(texts: list[str]) -> list[set[bytes]]:
    return [set(words) for words in text.words(text.normalize(tf.constant(texts))).to_list()]


def _overlap_by_band(reports: dict[str, list[Report]], overlap: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Beside each band's overlap, how systems do on the requests whose ordered items have all of the query's words, some, or none."""
    bands = np.concatenate([report.bands for report in reports["bm25"]])
    title = np.concatenate([shares["title"] for shares in overlap])
    everything = np.concatenate([shares["all_fields"] for shares in overlap])
    known = ~np.isnan(everything)
    found: dict[str, Any] = {}
    for band in BANDS:
        of_band = known & (bands == band)
        groups = {"all": everything >= 1, "some": (everything > 0) & (everything < 1), "none": everything == 0}
        found[band] = {
            "requests": int(of_band.sum()),
            "mean_share_in_title": round(float(title[of_band].mean()), 4),
            "mean_share_in_all_fields": round(float(everything[of_band].mean()), 4),
            "requests_by_words_found": {
                group: {
                    "share": round(float(inside[of_band].mean()), 4),
                    **{name: _mean(_pooled(r, METRIC)[of_band & inside]) for name, r in reports.items()},
                }
                for group, inside in groups.items()
            },
        }
    return found


def _mean(values: np.ndarray) -> float | None:
    return round(float(np.nanmean(values)), 4) if len(values) else None


def draw(results: dict[str, Any], path: Path) -> None:
    """Ordered recall@100 by band of query frequency and system, with 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = {
        "mgdspr": "MGDSPR",
        "dpsr": "DPSR",
        "dpsr_without_user_and_history": "DPSR without user and history",
        "two_tower": "two-tower (TFRS tutorial)",
        "bm25": "BM25",
    }
    colours = ("#7a3b8f", "#1b6ca8", "#7fb4d8", "#e08e45", "#8a8a8a")
    groups = ["", *(f"/{band}" for band in BANDS)]
    figure, axes = plt.subplots(figsize=(9, 4), dpi=150)
    for at, (name, label) in enumerate(labels.items()):
        bars = [results["pooled"][name][METRIC + group] for group in groups]
        means = np.array([bar["mean"] for bar in bars])
        low, high = np.array([bar["interval_95"] for bar in bars]).T
        places = np.arange(len(groups)) + 0.17 * (at - 2)
        axes.bar(places, means, 0.16, yerr=[means - low, high - means], label=label, color=colours[at], ecolor="#333333", capsize=2)
        for place, mean, top in zip(places, means, high, strict=True):
            axes.text(place, top + 0.01, f"{mean:.2f}", ha="center", fontsize=6)
    bars = [results["pooled"]["bm25"][METRIC + group] for group in groups]
    names = ("all queries", *(f"{band} queries" for band in BANDS))
    axes.set_xticks(range(len(groups)), [f"{name}\n{bar['requests']:,} requests" for name, bar in zip(names, bars, strict=True)])
    axes.set_ylabel("recall@100 of ordered items")
    axes.set_ylim(0, 1.05)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=5, fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    seeds = len(results["config"]["simulator_seeds"])
    axes.set_title(
        f"Simulated shop ({results['config']['shop']['items']:,} items), {seeds} seed{'s' if seeds > 1 else ''} pooled, 95 % intervals",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
