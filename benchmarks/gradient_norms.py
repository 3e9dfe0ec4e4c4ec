"""How long the gradients are: the global norm of the first steps of every model at its defaults, for which `clip_norm` is set."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import about_shop, shop
from tfebr.data.log import split_time
from tfebr.models.clipping import summed
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.run_folder import prepare_run
from tfebr.models.zoo import MODELS

_QUANTILES = {"least": 0.0, "median": 0.5, "nine_tenths": 0.9, "largest": 1.0}


def run(quick: bool) -> dict[str, Any]:
    """Norms as they are before clipping, of steps that are clipped as the defaults say."""
    steps, found = 10 if quick else 60, {}
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        data = shop(Path(scratch, "shop"), seed=1, quick=quick)
        for name, kind in MODELS.items():
            config: Any = kind.Config()
            prepared = prepare_run(Path(scratch, name), name, config, data, split_time(data.log()), quiet=True)
            norms = _norms(prepared.new_model(), prepared.training_batches(1).take(steps))
            bound = config.training.clip_norm
            found[name] = {what: round(float(np.quantile(norms, at)), 3) for what, at in _QUANTILES.items()}
            found[name] |= {"clip_norm": bound, "share_clipped": round(float(np.mean(norms > (bound or np.inf))), 3)}
            print(f"{name:<12} {found[name]}", flush=True)
    return {"config": {"shop": about_shop(quick), "seed": 1, "steps": steps}, "global_norms": found}


def _norms(model: RetrievalModel, batches: tf.data.Dataset) -> np.ndarray:
    """[steps]; rows of a table that a step reads several times are summed."""
    weights = model.trainable_variables

    @tf.function(reduce_retracing=True)
    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(batch, training=True)
        pairs = [(g, w) for g, w in zip(tape.gradient(loss, weights), weights, strict=True) if g is not None]
        model.optimizer.apply_gradients(pairs)
        return tf.linalg.global_norm([summed(gradient) for gradient, _ in pairs])

    model.optimizer.build(weights)
    return np.array([float(step(batch)) for batch in batches])
