"""Home Depot's judged searches: two-tower, a text-only DPSR and BM25 on the dev and the test split, three training seeds."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tfebr import pipeline
from tfebr.data.dataset import DataFolder
from tfebr.data.readers import prepare
from tfebr.evaluation.significance import paired_test

# Widths, epochs and rates were chosen on the dev split.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpsr": ("dpsr", {"heads": 1, "dim": 256, "margin": 0.2, "training": {"epochs": 15}}),
    "two_tower": ("two_tower", {"dim": 256, "training": {"epochs": 15, "learning_rate": 0.3}}),
}
SPLITS, METRIC = ("dev", "test"), "recall@100"


def run(quick: bool, data: Path) -> dict[str, Any]:
    """Trains on the train split with one fixed config for each model and ranks all titles for the queries of the other two.

    Args:
        data: holds the folder `homedepot` with the set as `tfebr prepare homedepot` takes it.
    """
    if not (data / "homedepot").is_dir():
        print(f"skipped: {data / 'homedepot'} is missing. Give the folder that holds `homedepot` with --data.", flush=True)
        return {"skipped": "the folder `homedepot` with products, queries and qrels was not there"}
    seeds = (0,) if quick else (0, 1, 2)
    values: dict[str, dict[str, list[np.ndarray]]] = {name: {split: [] for split in SPLITS} for name in (*MODELS, "bm25")}
    means: dict[str, dict[str, list[dict[str, float]]]] = {name: {split: [] for split in SPLITS} for name in values}
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        folder = prepare("homedepot", data / "homedepot", Path(scratch, "data"), quiet=True)
        evaluations = {split: pipeline.Evaluation.of(folder, None, split) for split in SPLITS}

        def note(name: str, split: str, ranking: Any) -> None:
            report = evaluations[split].report(ranking)
            values[name][split].append(report.values(METRIC))
            means[name][split].append({metric: round(value, 4) for metric, value in report.means().items()})
            print(f"{name} {split}: {METRIC} {report.means()[METRIC]:.4f}", flush=True)

        for split in SPLITS:
            note("bm25", split, pipeline.rank_bm25(evaluations[split]))
        for seed in seeds:
            for name, (model, config) in MODELS.items():
                training = {**config.get("training", {}), "seed": seed, **({"epochs": 1} if quick else {})}
                trained = pipeline.train(folder.path, Path(scratch, f"{name}-{seed}"), model, config | {"training": training}, quiet=True)
                fitted = trained.trained_model()
                for split in SPLITS:
                    note(name, split, pipeline.rank_model(trained, evaluations[split], fitted))
        about = _about(folder)
    return {
        "config": {"models": MODELS, "training_seeds": seeds, **about},
        "target": "text-only DPSR at least 0.74 recall@100 on the test split",
        "means": {name: {split: _over_seeds(found) for split, found in of.items()} for name, of in means.items()},
        "paired_tests_on_mean_over_seeds": {
            f"{a} - {b}": {split: _compared(values[a][split], values[b][split]) for split in SPLITS}
            for a, b in (("dpsr", "bm25"), ("dpsr", "two_tower"), ("two_tower", "bm25"))
        },
    }


def _about(folder: DataFolder) -> dict[str, int]:
    counts = {f"{split}_queries": folder.judgments().split(split).queries.num_rows for split in ("train", *SPLITS)}
    return {"items": len(folder.catalogue()), **counts}


def _over_seeds(found: list[dict[str, float]]) -> dict[str, Any]:
    return {m: {"mean": round(float(np.mean([f[m] for f in found])), 4), "by_seed": [f[m] for f in found]} for m in found[0]}


def _compared(a: list[np.ndarray], b: list[np.ndarray]) -> dict[str, Any]:
    pair = paired_test(np.mean(a, axis=0), np.mean(b, axis=0))
    interval = [round(pair.low, 4), round(pair.high, 4)]
    return {
        "metric": METRIC,
        "difference": round(pair.difference, 4),
        "interval_95": interval,
        "p": round(pair.p_value, 5),
        "queries": pair.n,
    }
