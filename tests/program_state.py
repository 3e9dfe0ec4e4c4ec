"""What a whole program shares, and a check that a library leaves it alone."""

import contextlib
import logging
import os
import random
import warnings
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context


def state() -> dict:
    """Generators, logging, warnings, environment, and the settings of NumPy, TensorFlow and Keras."""
    loggers = [logging.root, *(logging.getLogger(name) for name in sorted(logging.root.manager.loggerDict))]
    return {
        "random": random.getstate(),
        "numpy.random": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "tf.random's seed": context.global_seed(),
        "tf.random's operations": None if context.global_seed() is None else context.context()._rng.getstate(),
        "tf.random's generator": tf.random.get_global_generator().state.numpy().tolist(),
        "logging": {logger.name: (logger.level, logger.disabled, logger.propagate, list(logger.handlers)) for logger in loggers},
        "logging.disable": logging.root.manager.disable,
        "warnings": list(warnings.filters),
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "working directory": os.getcwd(),
        "floating-point errors": np.geterr(),
        "policy": tf.keras.mixed_precision.global_policy().name,
        "Keras": (tf.keras.backend.floatx(), tf.keras.backend.epsilon(), tf.keras.backend.image_data_format()),
        "functions": (tf.config.functions_run_eagerly(), tf.config.optimizer.get_jit(), tf.config.get_soft_device_placement()),
    }


@contextlib.contextmanager
def unchanged(seed: int | None) -> Iterator[None]:
    """A program with TensorFlow's seed, or without one, whose state is the same afterwards; loggers that came with an import aside."""
    levels = {name: logging.getLogger(name).level for name in ("bm25s", "tensorflow")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.INFO)
    tf.random.set_seed(seed)
    try:
        before = state()
        yield
        after = state()
    finally:
        tf.random.set_seed(None)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    after["logging"] = {name: after["logging"][name] for name in before["logging"]}
    for name, expected in before.items():
        assert after[name] == expected, f"{name} has changed"
