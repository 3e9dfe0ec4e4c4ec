"""Soft attention over heads: its limits, and NumPy in between."""

import numpy as np
import pytest
import tensorflow as tf

from tfebr.tasks.scoring import soft_attention_scores

RNG = np.random.default_rng(0)
QUERY = RNG.normal(size=(3, 4, 6)).astype(np.float32)
ITEMS = RNG.normal(size=(5, 6)).astype(np.float32)
PER_HEAD = np.einsum("bhd,cd->bhc", QUERY, ITEMS)


def scores(beta: float, query: np.ndarray = QUERY, **more) -> np.ndarray:
    return soft_attention_scores(tf.constant(query), tf.constant(ITEMS), beta, **more).numpy()


def test_beta_to_zero_is_the_best_head():
    np.testing.assert_allclose(scores(1e-4), PER_HEAD.max(axis=1), rtol=1e-4)


def test_beta_to_infinity_is_the_mean_of_the_heads():
    np.testing.assert_allclose(scores(1e6), PER_HEAD.mean(axis=1), rtol=1e-3, atol=1e-4)


def test_one_head_is_the_inner_product():
    for beta in (1e-3, 0.1, 10.0):
        np.testing.assert_allclose(scores(beta, QUERY[:, :1]), QUERY[:, 0] @ ITEMS.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta", [0.05, 0.5, 5.0])
def test_between_equals_plain_python(beta):
    found = scores(beta)
    for row in range(3):
        for item in range(5):
            z = [float(np.dot(QUERY[row, head], ITEMS[item])) for head in range(4)]
            weights = [np.exp((v - max(z)) / beta) for v in z]
            assert found[row, item] == pytest.approx(sum(w * v for w, v in zip(weights, z, strict=True)) / sum(weights), rel=1e-4, abs=1e-5)


def test_equal_heads_change_nothing():
    np.testing.assert_allclose(scores(0.1, np.repeat(QUERY[:, :1], 4, axis=1)), scores(0.1, QUERY[:, :1]), rtol=1e-5, atol=1e-6)


def test_stopped_weights_leave_the_gradient_of_a_fixed_mixture():
    query, beta = tf.constant(QUERY), 0.5
    gradients = []
    for stop in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(query)
            total = tf.reduce_sum(soft_attention_scores(query, tf.constant(ITEMS), beta, stop))
        gradients.append(tape.gradient(total, query).numpy())
    weights = np.exp(PER_HEAD / beta)
    weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradients[0], np.einsum("bhc,cd->bhd", weights, ITEMS), rtol=1e-4, atol=1e-5)
    assert not np.allclose(gradients[0], gradients[1])
    np.testing.assert_allclose(scores(beta, stop_weights=True), scores(beta), rtol=1e-6)


def test_extreme_scores_stay_finite():
    assert np.isfinite(scores(1e-3, QUERY * 100)).all()
