"""Click-outs among the hotels that trivago showed: MRR with and without the ranking loss, of the shown order and untrained, three seeds."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.seeds import compared, over_seeds
from tfebr import pipeline
from tfebr.data.batches import evaluation_batches
from tfebr.data.log import split_time
from tfebr.data.readers import prepare
from tfebr.evaluation.stage_order import ShownItems, shown_order
from tfebr.models.run_folder import RunFolder

# Queries are a city, a country's site and filters, titles are cities; trigrams of their names tell no more.
CHANGES: dict[str, Any] = {"features": {"grains": ["words"], "query_lengths": [24], "title_lengths": [12]}}
SYSTEMS: dict[str, dict[str, Any]] = {"without_ranking_loss": {"ranking_weight": 0.0}, "with_ranking_loss": {}}
BASELINES = ("shown_order", "untrained")
PAIRS = (
    ("with_ranking_loss", "without_ranking_loss"),
    ("with_ranking_loss", "untrained"),
    ("with_ranking_loss", "shown_order"),
    ("without_ranking_loss", "shown_order"),
)
METRIC = "shown_mrr"
TEST_SHARE = 0.1


def run(quick: bool, data: Path) -> dict[str, Any]:
    """Trains the same model twice for each seed, and sorts the shown lists of the last tenth of the click-outs by its scores.

    Args:
        data: holds the folder `trivago_sessions` with the set as `tfebr prepare trivago` takes it.
    """
    source = data / "trivago_sessions"
    if not source.is_dir():
        print(f"skipped: {source} is missing. Give the folder that holds `trivago_sessions` with --data.", flush=True)
        return {"skipped": "the folder `trivago_sessions` with sessions was not there"}
    seeds = (0,) if quick else (0, 1, 2)
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*SYSTEMS, *BASELINES)}
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        folder = prepare("trivago", source, Path(scratch, "data"), quiet=True)
        evaluation = pipeline.Evaluation.of(folder, split_time(folder.log(), TEST_SHARE))

        def note(name: str, values: np.ndarray) -> None:
            found[name].append(values)
            print(f"seed {seed}, {name}: {METRIC} {np.nanmean(values):.4f}", flush=True)

        for seed in seeds:
            for name, changes in SYSTEMS.items():
                config = CHANGES | changes | {"training": {"seed": seed, **({"epochs": 1} if quick else {})}}
                trained = pipeline.train(folder.path, Path(scratch, f"{name}-{seed}"), "mmse", config, quiet=True, test_share=TEST_SHARE)
                note(name, pipeline.measure_model(trained, evaluation)[1].values(METRIC))
                # Keras keeps every model's graph.
                tf.keras.backend.clear_session()
            note("untrained", pipeline.measure_model(trained, evaluation, trained.new_model())[1].values(METRIC))
            note("shown_order", _shown_order(trained, evaluation.request_ids))
    return {
        "config": {"model": "mmse", "changes": CHANGES, "systems": SYSTEMS, "training_seeds": seeds, "items": len(evaluation.catalogue)},
        "requests": len(evaluation.request_ids),
        "means": {name: over_seeds([{METRIC: float(np.nanmean(values))} for values in of]) for name, of in found.items()},
        "paired_tests_on_mean_over_seeds": {f"{a} - {b}": compared(found[a], found[b], METRIC) for a, b in PAIRS},
    }


def _shown_order(run: RunFolder, request_ids: list[str]) -> np.ndarray:
    """float [requests]: the metric of the list as it was shown."""

    def shown() -> Iterator[ShownItems]:
        for batch in evaluation_batches(run.shards("test"), run.featurizer):
            ids = [request_id.decode() for request_id in batch["request_id"].numpy()]
            items, stages, positions = (batch[name].numpy() for name in ("items", "stages", "positions"))
            yield ShownItems(ids, np.zeros((len(ids), 1, 1)), items, stages, positions)

    report = shown_order(shown())
    values = dict(zip(report.ids, report.values(METRIC), strict=True))
    return np.array([values[request_id] for request_id in request_ids])
