"""Training time per example: this project's two-tower against the public TFRS tutorial's, and DPSR against the two-tower."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import about_shop, shop, spread
from benchmarks.tutorial import tutorial_contestant
from tfebr.data.batches import training_batches
from tfebr.data.log import split_time
from tfebr.models.config import from_dict
from tfebr.models.run_folder import RunFolder, prepare_run
from tfebr.models.zoo import model_class

BATCH = 256
EPOCHS = 3
KINDS = ("whole_run", "after_first_step", "cpu")
WORDS = {"grains": ["words"], "query_lengths": [12], "title_lengths": [24]}
TEXT_ONLY = {"user_columns": [], "history_items": 0, "history_queries": 0}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    # One looked-up embedding beside the title, as the tutorial's item id is.
    "two_tower_words": ("two_tower", {"features": WORDS | TEXT_ONLY | {"item_columns": ["leaf_category"]}}),
    "two_tower": ("two_tower", {"features": TEXT_ONLY}),
    # The history's items, but not the texts of past queries: as many tokens as the two-tower reads.
    "dpsr_equal_tokens": ("dpsr", {"heads": 4, "alpha": 0.5, "features": {"history_queries": 0}}),
    "dpsr": ("dpsr", {"heads": 4, "alpha": 0.5}),
}


def run(quick: bool) -> dict[str, Any]:
    """Trains all contestants in one process, a run of three epochs of each in turn, and compares medians of the time per example.

    A run counts whole: building the data set, filling shuffle buffers, reading, featurizing, steps. Beside it stand the time after a
    run's first step, which is what a longer log comes to, and CPU time, which other load on the machine disturbs less.
    The tutorial's recipe and `two_tower_words` read the same words of the same examples; `two_tower` and `dpsr` read words and letter
    trigrams, DPSR also the user and the history, at equal tokens or with the texts of past queries.
    """
    rounds = 2 if quick else 5
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        data = shop(Path(scratch, "shop"), seed=1, quick=quick)
        start = split_time(data.log())
        runs = {}
        for name, (model, config) in CONFIGS.items():
            settings: Any = from_dict(model_class(model).Config, config | {"training": {"batch_size": BATCH}})
            runs[name] = prepare_run(Path(scratch, name), model, settings, data, start, quiet=True)
        contestants = {"tutorial": tutorial_contestant(data, start, BATCH)}
        contestants |= {name: _contestant(run) for name, run in runs.items()}
        times: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in contestants} for kind in KINDS}
        for number in range(rounds + 1):
            for name, epochs in contestants.items():
                found = _timed(epochs(1 if quick else EPOCHS))
                # The first run traces graphs and fills caches of files.
                for kind in KINDS if number else ():
                    times[kind][name].append(found[kind])
                print(f"round {number}/{rounds} {name}, us an example: " + ", ".join(f"{k} {v:.1f}" for k, v in found.items()), flush=True)
        profile = {name: _profile(run, 8 if quick else 40) for name, run in runs.items()}
    return {
        "config": {
            "shop": about_shop(quick),
            "seed": 1,
            "batch": BATCH,
            "dim": 64,
            "epochs_of_a_run": 1 if quick else EPOCHS,
            "runs_timed": rounds,
            "configs": CONFIGS,
        },
        "microseconds_per_example": {kind: {name: spread(v, 1) for name, v in of.items()} for kind, of in times.items()},
        "speed_of_two_tower_relative_to_tutorial": {
            "target": ">= 1.0",
            **{kind: _ratio(times[kind]["tutorial"], times[kind]["two_tower_words"]) for kind in KINDS},
        },
        "time_of_dpsr_relative_to_two_tower": {
            "target": "<= 2.5 at equal tokens",
            "equal_tokens": {kind: _ratio(times[kind]["dpsr_equal_tokens"], times[kind]["two_tower"]) for kind in KINDS},
            "with_texts_of_past_queries": {kind: _ratio(times[kind]["dpsr"], times[kind]["two_tower"]) for kind in KINDS},
        },
        "profile_microseconds_per_example": profile,
    }


def _ratio(a: list[float], b: list[float]) -> dict[str, Any]:
    """Of the medians, and the spread of the ratios of neighbouring runs."""
    return {
        "ratio_of_medians": round(float(np.median(a) / np.median(b)), 3),
        "by_round": spread([x / y for x, y in zip(a, b, strict=True)]),
    }


def _timed(steps: Iterator[int]) -> dict[str, float]:
    """Microseconds an example of each of `KINDS`."""
    start, start_cpu = time.perf_counter(), time.process_time()
    first = next(steps)
    begun = time.perf_counter()
    others = sum(steps)
    end, end_cpu = time.perf_counter(), time.process_time()
    values = ((end - start) / (first + others), (end - begun) / others, (end_cpu - start_cpu) / (first + others))
    return {kind: 1e6 * value for kind, value in zip(KINDS, values, strict=True)}


def _contestant(run: RunFolder) -> Callable[[int], Iterator[int]]:
    """Epochs of the run's model as `tfebr.models.training.fit` does them; yields the examples of each step."""
    model, shards = run.new_model(), run.shards("train")
    train_step = tf.function(model.train_step, reduce_retracing=True)

    def train(epochs: int) -> Iterator[int]:
        for batch in training_batches(shards, run.featurizer, BATCH, seed=0, epochs=epochs):
            batch.pop("request_id")
            train_step(batch)
            yield BATCH

    return train


def _profile(run: RunFolder, steps: int) -> dict[str, float]:
    """Microseconds per example of the input pipeline alone, and of the parts of a step on batches that are in memory."""
    model, shards = run.new_model(), run.shards("train")
    pipeline = training_batches(shards, run.featurizer, BATCH, seed=0, epochs=1)
    batches = list(pipeline.take(steps))
    for batch in batches:
        batch.pop("request_id")
    parts = {
        "query_tower": lambda batch: model.embed_queries(batch, training=True),
        "forward": lambda batch: model.compute_loss(batch, training=True),
        "forward_and_backward": lambda batch: _gradients(model, batch),
        "step": model.train_step,
    }
    found = {"input_pipeline_alone": _timed(BATCH for _ in pipeline)["whole_run"]}
    for name, part in parts.items():
        found[name] = 1e6 * _median_seconds(tf.function(part, reduce_retracing=True), batches) / BATCH
    found["backward"] = found.pop("forward_and_backward") - found["forward"]
    found["optimizer"] = found["step"] - found["forward"] - found["backward"]
    return {name: round(value, 1) for name, value in found.items()}


def _gradients(model: Any, batch: dict[str, tf.Tensor]) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    gradients = tape.gradient(loss, model.trainable_variables)
    return [tf.convert_to_tensor(g.values if isinstance(g, tf.IndexedSlices) else g) for g in gradients]


def _median_seconds(function: Any, batches: list[dict[str, tf.Tensor]]) -> float:
    function(batches[0])
    times = []
    for batch in batches:
        start = time.perf_counter()
        # The last output's value is asked for, because TensorFlow may return before it is computed.
        tf.nest.flatten(function(batch))[-1].numpy()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
