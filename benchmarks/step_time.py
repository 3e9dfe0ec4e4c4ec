"""One optimiser step of MGDSPR against DPSR's at batch 256 and width 128, and where MGDSPR's goes."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import about_shop, shop, spread
from tfebr.data.batches import Batch, training_batches
from tfebr.data.log import split_time
from tfebr.layers.windows import cut_windows
from tfebr.models.config import from_dict
from tfebr.models.mgdspr import MGDSPR, MGDSPRConfig
from tfebr.models.retrieval_model import join_history
from tfebr.models.run_folder import RunFolder, prepare_run
from tfebr.models.zoo import model_class

BATCH = 256
_SAME = {name: getattr(MGDSPRConfig().features, name) for name in ("grains", "query_lengths", "title_lengths")}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpsr": ("dpsr", {"heads": 4, "dim": 128}),
    # What MGDSPR reads of the same examples: the paper's history lengths and three grains.
    "dpsr_same_inputs": ("dpsr", {"heads": 4, "dim": 128, "features": _SAME | {"history_items": 200, "history_queries": 10}}),
    "mgdspr": ("mgdspr", {"dim": 128}),
}


def run(quick: bool) -> dict[str, Any]:
    """Steps on batches that are in memory, one of each model in turn; medians. Histories are as long as the shop's users made them."""
    steps, rounds = (5, 2) if quick else (30, 6)
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        data = shop(Path(scratch, "shop"), seed=1, quick=quick)
        start, runs = split_time(data.log()), {}
        for name, (model, config) in CONFIGS.items():
            settings: Any = from_dict(model_class(model).Config, config)
            runs[name] = prepare_run(Path(scratch, name), model, settings, data, start, quiet=True)
        models = {name: run.new_model() for name, run in runs.items()}
        batches = {name: _batches(run, steps) for name, run in runs.items()}
        mgdspr = models["mgdspr"]
        assert isinstance(mgdspr, MGDSPR)
        contestants = {name: (model.train_step, batches[name]) for name, model in models.items()}
        parts = {f"mgdspr: {name}": (part, batches["mgdspr"]) for name, part in _parts(mgdspr).items()}
        times = _interleaved(contestants | parts, rounds)
        windows = _window_lengths(mgdspr, batches["mgdspr"])
    for name, values in times.items():
        print(f"{name:<44} {np.median(values):7.1f} ms", flush=True)
    return {
        "config": {"shop": about_shop(quick), "seed": 1, "batch": BATCH, "configs": CONFIGS, "steps": steps, "rounds": rounds},
        "milliseconds_per_step": {name: spread(times[name], 1) | {"values": None} for name in CONFIGS},
        "mgdspr_relative_to": {
            "target": "<= 4",
            **{name: round(float(np.median(times["mgdspr"]) / np.median(times[name])), 2) for name in CONFIGS if name != "mgdspr"},
        },
        "forward_and_backward_milliseconds_of_parts": {name: round(float(np.median(times[name])), 1) for name in parts},
        "events_in_windows": windows,
    }


def _batches(run: RunFolder, steps: int) -> list[Batch]:
    found = list(training_batches(run.shards("train"), run.featurizer, BATCH, seed=0, epochs=1).take(steps))
    for batch in found:
        batch.pop("request_id")
    return found


def _parts(model: MGDSPR) -> dict[str, Callable[[Batch], list[tf.Tensor]]]:
    tower, dim = model.query_tower, model.config.dim
    rows = tf.zeros([BATCH, 6, dim]) + tower.fusion.cls

    def behaviour(batch: Batch) -> tf.Tensor:
        return tf.concat(tower._behaviour(join_history(batch, model.history_columns()), rows, True), axis=1)

    def items(batch: Batch) -> tf.Tensor:
        pool = tf.concat([batch["positive"], tf.range(1, model.config.random_negatives + 1)], axis=0)
        return model.embed_items(tf.unique(pool)[0], training=True)

    return {
        "loss": _both(lambda batch: model.compute_loss(batch, training=True), model.trainable_variables),
        "query tower": _both(lambda batch: model.embed_queries(batch, training=True), tower.trainable_variables),
        "query unit": _both(tower._query_rows, tower.trainable_variables),
        "three windows": _both(behaviour, tower.trainable_variables),
        "item tower": _both(items, model.item_tower.trainable_variables),
    }


def _both(forward: Callable[[Batch], tf.Tensor], variables: list[tf.Variable]) -> Callable[[Batch], list[tf.Tensor]]:
    """Forward and backward."""

    def compute(batch: Batch) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(forward(batch))
        found = [g for g in tape.gradient(total, variables) if g is not None]
        return [tf.convert_to_tensor(g.values if isinstance(g, tf.IndexedSlices) else g) for g in found]

    return compute


def _interleaved(contestants: dict[str, tuple[Callable, list[Batch]]], rounds: int) -> dict[str, list[float]]:
    functions = {name: tf.function(function, reduce_retracing=True) for name, (function, _) in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for at in range(len(next(iter(contestants.values()))[1])):
            for name, (_, batches) in contestants.items():
                start = time.perf_counter()
                # The last output's value is asked for, because TensorFlow may return before it is computed.
                tf.nest.flatten(functions[name](batches[at]))[-1].numpy()
                # The first round traces graphs.
                if number:
                    times[name].append(1e3 * (time.perf_counter() - start))
    return times


def _window_lengths(model: MGDSPR, batches: list[Batch]) -> dict[str, Any]:
    config, found = model.config, {"real_time": [], "short_term": [], "long_term_clicks": []}
    for batch in batches:
        cut = cut_windows(batch["history_items"] > 0, batch["history_stages"], batch["history_ages"], config.seconds, config.lengths)
        for name, mask in zip(found, (cut.real_time, cut.short_term, cut.long_term[:, 0]), strict=True):
            found[name].append(mask.numpy().sum(axis=1))
    joined = {name: np.concatenate(values) for name, values in found.items()}
    return {name: {"mean": round(float(v.mean()), 1), "p99": int(np.quantile(v, 0.99)), "max": int(v.max())} for name, v in joined.items()}
