"""Clipping acts on the gradient as it is, and only where it is longer than allowed."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfebr.models.clipping import summed
from tfebr.models.training_config import OPTIMIZERS, TrainingConfig
from tfebr.models.zoo import MODELS

ROWS, DIM = 5, 3
RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "gradient_norms.json"


@given(st.lists(st.integers(0, ROWS - 1), max_size=12), st.integers(0, 2**31))
def test_rows_are_summed_and_the_gradient_stays_the_same(rows, seed):
    values = np.random.default_rng(seed).normal(size=(len(rows), DIM)).astype(np.float32)
    found = summed(tf.IndexedSlices(tf.constant(values), tf.constant(rows, tf.int64), tf.constant([ROWS, DIM], tf.int64)))
    expected = np.zeros((ROWS, DIM), np.float32)
    np.add.at(expected, rows, values)
    assert sorted(found.indices.numpy()) == sorted(set(rows))
    np.testing.assert_allclose(tf.convert_to_tensor(found), expected, atol=1e-5)
    np.testing.assert_allclose(tf.linalg.global_norm([found]), np.linalg.norm(expected), atol=1e-5)


def step(config: TrainingConfig, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Change of a table and of a vector by one step of plain gradient descent; five rows agree, two cancel."""
    table, vector = tf.Variable(tf.zeros([ROWS, DIM])), tf.Variable(tf.zeros([2]))
    optimizer = config.new_optimizer()
    optimizer.build([table, vector])
    with tf.GradientTape() as tape:
        read = tf.gather(table, [0, 0, 0, 0, 0, 1, 1])
        loss = scale * (tf.reduce_sum(read[:5]) + 9 * tf.reduce_sum(read[5] - read[6]) + 2 * tf.reduce_sum(vector))
    optimizer.apply_gradients(zip(tape.gradient(loss, [table, vector]), [table, vector], strict=True))
    return table.numpy(), vector.numpy()


@pytest.mark.parametrize("clip_norm", [None, 0.5, 2.0, 9.0, 10.0])
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_the_norm_is_that_of_the_true_gradient(clip_norm, scale):
    true = np.concatenate([np.full(DIM, 5.0), np.full(2, 2.0)]) * scale
    norm = np.linalg.norm(true)
    shrunk = 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
    table, vector = step(TrainingConfig(optimizer="sgd", learning_rate=1.0, clip_norm=clip_norm), scale)
    expected = np.zeros((ROWS, DIM))
    expected[0] = -5.0 * scale * shrunk
    np.testing.assert_allclose(table, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vector, -2.0 * scale * shrunk, rtol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_bound_that_is_never_reached_changes_nothing(optimizer):
    for clipped, plain in zip(*(step(TrainingConfig(optimizer=optimizer, clip_norm=norm)) for norm in (1e6, None)), strict=True):
        np.testing.assert_allclose(clipped, plain, rtol=1e-5)


def test_defaults_clip_where_bursts_were_measured():
    """The benchmark's norms: what clips has steps on both sides of its bound, and what does not clip has no burst."""
    found = json.loads(RESULT.read_text())["global_norms"]
    assert found.keys() == MODELS.keys()
    for name, kind in MODELS.items():
        bound, norms = kind.Config().training.clip_norm, found[name]
        assert norms["clip_norm"] == bound, name
        if bound is None:
            assert norms["largest"] < 5 * norms["median"], name
        else:
            assert norms["least"] < bound < norms["largest"], name
            assert 0 < norms["share_clipped"] < 1, name
