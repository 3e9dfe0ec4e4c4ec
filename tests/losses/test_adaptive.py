"""Adaptive margins and temperatures: their values, no gradient through them, the softmax against plain loops, and the item as anchor."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf
from harness import run_loss_test
from hypothesis import given
from hypothesis.extra import numpy as hnp
from loss_checks import SCORES, check_against_finite_differences, check_finite, value_and_gradients

from tfebr.errors import ConfigError
from tfebr.losses.adaptive import adaptive_margin, adaptive_softmax, adaptive_temperature, item_anchored
from tfebr.losses.pairwise_hinge import pairwise_hinge
from tfebr.losses.sampled_softmax import sampled_softmax

RNG = np.random.default_rng(0)
ITEMS = RNG.normal(size=(6, 3)).astype(np.float32)
ITEMS /= np.linalg.norm(ITEMS, axis=1, keepdims=True)
SIMILARITY = ITEMS[:4] @ ITEMS.T
SCORED = RNG.normal(size=(4, 6)).astype(np.float32)
MASK = ~np.eye(4, 6, dtype=bool)
MASK[0, 2] = False


def temperatures_of(scores):
    """Some number above 0 of each score, wherever the candidate stands."""
    return 0.5 + tf.abs(tf.clip_by_value(scores, -9.0, 9.0))


def test_contract():
    def oracle(scores, positives, mask):
        rows = []
        for row, own, kept in zip(scores, positives, mask, strict=True):
            rows.append(math.log(1 + sum(math.exp((s - own) / (0.5 + abs(s))) for s, k in zip(row, kept, strict=True) if k)))
        return sum(rows) / len(rows)

    run_loss_test(lambda s, p, m: adaptive_softmax(s, p, m, tf.stop_gradient(temperatures_of(s))), oracle)


def test_a_harder_negative_has_a_smaller_margin_and_temperature():
    similarity = tf.constant([1.0, 0.5, 0.0, -1.0])
    np.testing.assert_allclose(adaptive_margin(similarity), [0.01, 0.26, 0.51, 1.01], rtol=1e-6)
    np.testing.assert_allclose(adaptive_margin(similarity, 0.1, 0.2), [0.1, 0.2, 0.3, 0.5], rtol=1e-6)
    np.testing.assert_allclose(adaptive_temperature(similarity), np.array([1, 1.25, 1.5, 2]) / 30, rtol=1e-6)
    np.testing.assert_allclose(adaptive_temperature(similarity, 0.1, 2.0), [0.1, 0.2, 0.3, 0.5], rtol=1e-6)
    assert float(adaptive_temperature(tf.constant(1e6))) > 0


def test_no_gradient_flows_through_the_similarity():
    def softmax(items, scores):
        similarity = tf.matmul(items[:4], items, transpose_b=True)
        return adaptive_softmax(scores, tf.linalg.diag_part(scores[:, :4]), MASK, adaptive_temperature(similarity))

    def hinge(items, scores):
        similarity = tf.matmul(items[:4], items, transpose_b=True)
        return pairwise_hinge(scores, tf.linalg.diag_part(scores[:, :4]), tf.constant(MASK), adaptive_margin(similarity))

    for loss in (softmax, hinge):
        _, (by_item, by_score) = value_and_gradients(loss, ITEMS, SCORED)
        assert not by_item.any()
        assert by_score.any()


def test_a_hinge_takes_the_margins():
    expected = [
        sum(max(0.0, 0.01 + 0.5 * (1 - SIMILARITY[i, j]) - SCORED[i, i] + SCORED[i, j]) for j in range(6) if MASK[i, j]) for i in range(4)
    ]
    found = pairwise_hinge(tf.constant(SCORED), tf.constant(np.diag(SCORED)), tf.constant(MASK), adaptive_margin(tf.constant(SIMILARITY)))
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-5)


def test_alpha_0_is_the_plain_softmax_in_value_and_gradient():
    similarity = tf.constant(SIMILARITY)
    own = lambda s: tf.linalg.diag_part(s[:, :4])  # noqa: E731
    adaptive = value_and_gradients(lambda s: adaptive_softmax(s, own(s), MASK, adaptive_temperature(similarity, 0.2, 0.0)), SCORED)
    plain = value_and_gradients(lambda s: sampled_softmax(s, own(s), tf.constant(MASK), 0.2), SCORED)
    np.testing.assert_allclose(adaptive[0], plain[0], rtol=1e-5)
    np.testing.assert_allclose(adaptive[1][0], plain[1][0], rtol=1e-4, atol=1e-6)


def test_gradients_are_slopes():
    temperatures = adaptive_temperature(tf.constant(SIMILARITY, tf.float64), 0.3)
    check_against_finite_differences(lambda s, p: adaptive_softmax(s, p, MASK, temperatures), SCORED, np.diag(SCORED))
    loss = lambda s: item_anchored(functools.partial(sampled_softmax, temperature=0.3), s, tf.constant(MASK), 1.0)  # noqa: E731
    check_against_finite_differences(loss, SCORED)


@given(hnp.arrays(np.float32, (2, 4), elements=SCORES), hnp.arrays(bool, (2, 4)))
def test_finite_for_every_mask_in_float32_and_bfloat16(scores, mask):
    own = lambda s: tf.linalg.diag_part(s[:, :2])  # noqa: E731
    check_finite(lambda s: adaptive_softmax(s, own(s), mask, adaptive_temperature(tf.zeros([2, 4]), 0.5)), scores)
    # What is masked may have no direction, and so no similarity.
    similarity = tf.constant(np.where(mask, 0.5, np.nan), tf.float32)
    check_finite(lambda s: adaptive_softmax(s, own(s), mask, adaptive_temperature(similarity, 0.5)), scores)


def test_weights_multiply_rows():
    loss = functools.partial(adaptive_softmax, temperatures=adaptive_temperature(tf.constant(SIMILARITY)))
    arguments = SCORED, np.diag(SCORED), MASK
    weights = np.float32([0, 1, 2.5, 0.5])
    rows = [4 * float(loss(*arguments, weights=row)) for row in np.eye(4, dtype=np.float32)]
    np.testing.assert_allclose(loss(*arguments, weights=weights), np.mean(weights * rows), rtol=1e-5)


def test_the_item_as_anchor_is_the_loss_of_the_transposed_scores():
    loss = functools.partial(sampled_softmax, temperature=0.5)
    value, (gradient,) = value_and_gradients(lambda s: item_anchored(loss, s, tf.constant(MASK)), SCORED)
    total = 0.0
    for item in range(4):
        others = [math.exp(SCORED[query, item] / 0.5) for query in range(4) if MASK[query, item]]
        own = math.exp(SCORED[item, item] / 0.5)
        total -= math.log(own / (own + sum(others)))
    np.testing.assert_allclose(value, 0.05 * total / 4, rtol=1e-5)
    assert not gradient[:, 4:].any(), "a candidate without a query"
    assert gradient[0, 2] == 0, "query 0 also wants item 2"
    assert gradient[2, 0] > 0, "query 2 does not want item 0"


def test_lost_weights_do_not_look_like_a_solved_problem():
    nan = np.float32([[np.nan, 0.1]])
    even = tf.ones([1, 2])
    assert np.isnan(adaptive_softmax(nan, np.float32([0.5]), [[True, True]], even))
    assert np.isfinite(adaptive_softmax(nan, np.float32([0.5]), [[False, True]], even))
    assert np.isnan(adaptive_softmax(np.float32([[0.1, 0.1]]), np.float32([np.nan]), [[False, False]], even))


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (adaptive_margin, {"base": -0.1}, "`base` must be a finite number of at least 0"),
        (adaptive_margin, {"alpha": -0.1}, "`alpha` must be a finite number of at least 0"),
        (adaptive_temperature, {"base": 0.0}, "`base` must be a finite number above 0"),
        (adaptive_temperature, {"alpha": float("nan")}, "`alpha` must be a finite number of at least 0"),
    ],
)
def test_impossible_arguments_are_named(make, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(tf.zeros([1]), **arguments)
