"""The pairwise hinge against plain loops, for every mask, weight and reduction."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from harness import run_loss_test
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfebr.losses.pairwise_hinge import REDUCTIONS, pairwise_hinge


def plain(scores, positives, mask, margin, reduction, weights=None) -> float:
    rows = []
    for i, positive in enumerate(positives):
        pairs = [
            (max(0.0, margin - positive + score), 1.0 if weights is None else weights[i][j])
            for j, score in enumerate(scores[i])
            if mask[i][j]
        ]
        total = sum(pair * weight for pair, weight in pairs)
        if reduction == "sum":
            rows.append(total)
        else:
            over = sum(weight for pair, weight in pairs if reduction == "mean" or pair > 0)
            rows.append(total / over if over else 0.0)
    return sum(rows) / len(rows)


@pytest.mark.parametrize("margin", [0.1, 1.5])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_contract(reduction, margin):
    loss = functools.partial(pairwise_hinge, margin=margin, reduction=reduction)
    run_loss_test(loss, functools.partial(plain, margin=margin, reduction=reduction))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(
    st.integers(1, 3).flatmap(
        lambda c: st.tuples(*(hnp.arrays(np.float32, (2, c), elements=st.floats(low, 3, width=16)) for low in (-3, 0.125)))
    )
)
def test_weights_equal_plain_loops(reduction, drawn):
    scores, weights = drawn
    mask = scores > -2
    found = pairwise_hinge(tf.constant(scores), tf.constant([0.5, -0.5]), tf.constant(mask), 0.5, tf.constant(weights), reduction)
    expected = plain(scores.tolist(), [0.5, -0.5], mask.tolist(), 0.5, reduction, weights.tolist())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_gradient_of_the_paper_s_sum():
    scores, positives = tf.constant([[0.5, 0.0, 0.45, 9.0]]), tf.constant([0.5])
    with tf.GradientTape() as tape:
        tape.watch([scores, positives])
        loss = pairwise_hinge(scores, positives, tf.constant([[True, True, True, False]]), 0.1)
    by_score, by_positive = tape.gradient(loss, [scores, positives])
    np.testing.assert_allclose(loss, 0.1 + 0.05, rtol=1e-5)
    np.testing.assert_array_equal(by_score, [[1, 0, 1, 0]])
    np.testing.assert_array_equal(by_positive, [-2])


def test_the_default_reduction_is_the_papers():
    arguments = tf.constant([[0.5, 0.4]]), tf.constant([0.2]), tf.constant([[True, True]])
    assert float(pairwise_hinge(*arguments, 0.1)) == pytest.approx(0.4 + 0.3)
    assert float(pairwise_hinge(*arguments, 0.1, reduction="mean")) == pytest.approx(0.35)


def test_an_unknown_reduction_is_named():
    with pytest.raises(ValueError, match=r"`reduction` must be one of sum, mean, mean_active.*'max'"):
        pairwise_hinge(tf.zeros([1, 1]), tf.zeros([1]), tf.ones([1, 1], tf.bool), 0.1, reduction="max")


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_lost_weights_do_not_look_like_a_solved_problem(reduction):
    nan = tf.constant([[np.nan, 0.1]])
    loss = functools.partial(pairwise_hinge, margin=0.1, reduction=reduction)
    assert np.isnan(loss(nan, tf.constant([0.5]), tf.constant([[True, True]])))
    assert np.isnan(loss(tf.constant([[0.1]]), tf.constant([np.nan]), tf.constant([[True]])))
    assert np.isfinite(loss(nan, tf.constant([0.5]), tf.constant([[False, True]])))
