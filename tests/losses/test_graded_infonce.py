"""Graded InfoNCE against plain loops for every level, weight and mask; two levels are the softmax loss; the Keras face."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf
from harness import run_loss_test
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_checks import check_against_finite_differences, check_finite, scores_and_labels, value_and_gradients

from tfebr.errors import ConfigError
from tfebr.losses.graded_infonce import ROW_REDUCTIONS, GradedInfoNCE, graded_infonce
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.losses.sampled_softmax import SampledSoftmax, sampled_softmax

RNG = np.random.default_rng(0)
SCORES, LEVELS = RNG.normal(size=(4, 7)).astype(np.float32), RNG.integers(-1, 4, (4, 7)).astype(np.int32)


def plain(scores, levels, temperature, lowest=1, weights=None, reduction="sum", confidence=None) -> float:
    rows = []
    for i, (row, row_levels) in enumerate(zip(scores, levels, strict=True)):
        total, over = 0.0, 0.0
        for j, (score, level) in enumerate(zip(row, row_levels, strict=True)):
            if level < lowest:
                continue
            below = [math.exp(s / temperature) for s, other in zip(row, row_levels, strict=True) if 0 <= other < level]
            factor, sure = weights[level] if weights else 1.0, confidence[i][j] if confidence else 1.0
            own = math.exp(score / temperature)
            total -= factor * sure * math.log(own / (own + sum(below)))
            over += factor if below else 0.0
        rows.append(total if reduction == "sum" else total / over if over else 0.0)
    return sum(rows) / len(rows)


def softmax_oracle(scores, positives, mask, temperature) -> float:
    rows = [[p, *row] for p, row in zip(positives, scores, strict=True)]
    return plain(rows, [[1, *(0 if m else -1 for m in row)] for row in mask], temperature)


def test_contract_of_a_softmax_loss():
    def loss(scores, positives, mask):
        levels = tf.concat([tf.ones_like(mask[:, :1], tf.int32), tf.where(mask, 0, -1)], axis=1)
        return graded_infonce(tf.concat([positives[:, None], scores], axis=1), levels, 2, 0.7)

    run_loss_test(loss, functools.partial(softmax_oracle, temperature=0.7))


@pytest.mark.parametrize("reduction", ROW_REDUCTIONS)
@given(scores_and_labels(-1, 3), st.integers(1, 3), st.sampled_from([0.2, 1.0]), st.booleans())
def test_equals_plain_loops(reduction, drawn, lowest, temperature, weighted):
    scores, levels = drawn
    weights = [9.0, 0.5, 2.0, 1.0] if weighted else None
    confidence = np.abs(scores) + 0.5 if weighted else None
    loss = functools.partial(graded_infonce, num_levels=4, temperature=temperature, lowest_positive=lowest, weights=weights)
    found = loss(tf.constant(scores), tf.constant(levels), row_reduction=reduction, confidence=confidence)
    known = None if confidence is None else confidence.tolist()
    expected = plain(scores.tolist(), levels.tolist(), temperature, lowest, weights, reduction, known)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(scores_and_labels(-1, 1))
def test_two_levels_are_the_softmax_loss_in_value_and_gradient(drawn):
    scores, levels = drawn
    found = value_and_gradients(lambda s: graded_infonce(s, levels, 2, 0.5, row_reduction="mean"), scores)
    expected = value_and_gradients(lambda s: SampledSoftmax(0.5)(levels, s), scores)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1][0], expected[1][0], rtol=1e-4, atol=1e-5)


def test_one_positive_a_row_is_sampled_softmax():
    levels = np.where(LEVELS < 0, -1, 0)
    levels[:, 2] = 1
    found = value_and_gradients(lambda s: graded_infonce(s, levels, 2, 0.05), SCORES)
    expected = value_and_gradients(lambda s: sampled_softmax(s, s[:, 2], tf.constant(levels == 0), 0.05), SCORES)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(found[1][0], expected[1][0], rtol=1e-4, atol=1e-6)


@settings(max_examples=20)
@given(scores_and_labels(-1, 3), st.sampled_from([50.0, np.inf, -np.inf]))
def test_a_masked_candidate_counts_for_nothing(drawn, extreme):
    scores, levels = drawn
    loss = functools.partial(graded_infonce, num_levels=4)
    value, (gradient,) = value_and_gradients(lambda s: loss(s, levels), scores)
    hidden = np.where(levels < 0, np.float32(extreme), scores)
    hidden_value, (hidden_gradient,) = value_and_gradients(lambda s: loss(s, levels), hidden)
    np.testing.assert_allclose(hidden_value, value, rtol=1e-6)
    np.testing.assert_allclose(hidden_gradient, gradient, rtol=1e-6, atol=1e-7)
    assert not gradient[levels < 0].any()


@settings(max_examples=20)
@given(scores_and_labels(-1, 3))
def test_finite_for_every_mask_in_float32_and_bfloat16(drawn):
    scores, levels = drawn
    for loss in (lambda s: graded_infonce(s, levels, 4, 0.5), lambda s: graded_infonce(s, levels, 4, 0.5, row_reduction="mean")):
        check_finite(loss, scores)


def test_gradients_are_slopes_of_scores_and_of_a_learned_temperature():
    loss = functools.partial(graded_infonce, num_levels=4, weights=[0.0, 0.5, 1.0, 2.0], row_reduction="mean")
    check_against_finite_differences(lambda s, t: loss(s, LEVELS, temperature=t), SCORES, np.array(0.3))


def test_large_scores_stay_exact():
    value, (gradient,) = value_and_gradients(lambda s: graded_infonce(s, [[1, 0], [0, 1]], 2, 1.0), np.float32([[1e3, 1e3], [-1e3, 1e3]]))
    np.testing.assert_allclose(value, math.log(2) / 2, rtol=1e-5)
    np.testing.assert_allclose(gradient, [[-0.25, 0.25], [0, 0]], rtol=1e-5)


def test_an_unmasked_score_of_minus_infinity_is_a_candidate_of_no_weight():
    without, _ = value_and_gradients(lambda s: graded_infonce(s, [[1, 0]], 2), np.float32([[0.3, 0.2]]))
    value, (gradient,) = value_and_gradients(lambda s: graded_infonce(s, [[1, 0, 0]], 2), np.float32([[0.3, 0.2, -np.inf]]))
    np.testing.assert_allclose(value, without, rtol=1e-6)
    assert np.isfinite(gradient).all()
    value, (gradient,) = value_and_gradients(lambda s: graded_infonce(s, [[1, 0]], 2), np.float32([[0.3, -np.inf]]))
    assert value == 0
    assert not gradient.any()


def test_lost_weights_do_not_look_like_a_solved_problem():
    for at in (0, 1):
        scores = np.float32([[0.1, 0.2, 0.3]])
        scores[0, at] = np.nan
        for reduction in ROW_REDUCTIONS:
            assert np.isnan(graded_infonce(tf.constant(scores), [[0, 1, -1]], 2, row_reduction=reduction))
        assert np.isnan(graded_infonce(tf.constant([[np.nan]]), [[1]], 2))


@pytest.mark.parametrize("smoothing", [LabelSmoothing(0.2), LabelSmoothing(sampling=0.3), LabelSmoothing(0.1, bootstrap=0.2)])
def test_smoothing_is_that_of_each_positive_with_what_is_below_it(smoothing):
    log_probability = RNG.normal(size=7).astype(np.float32)
    found = graded_infonce(tf.constant(SCORES), LEVELS, 4, 0.5, smoothing=smoothing, log_probability=log_probability)
    total = 0.0
    for row, levels in zip(SCORES, LEVELS, strict=True):
        for j in np.flatnonzero(levels >= 1):
            below = (levels >= 0) & (levels < levels[j])
            total += float(smoothing.row_losses(tf.constant([row]), tf.constant([j]), tf.constant([below]), 0.5, log_probability)[0])
    np.testing.assert_allclose(found, total / len(SCORES), rtol=1e-5)
    assert abs(float(found) - float(graded_infonce(tf.constant(SCORES), LEVELS, 4, 0.5))) > 1e-3


@settings(max_examples=20)
@given(scores_and_labels(-1, 3))
def test_no_smoothing_is_the_plain_loss_in_value_and_gradient(drawn):
    scores, levels = drawn
    for reduction in ROW_REDUCTIONS:
        loss = functools.partial(graded_infonce, levels=levels, num_levels=4, temperature=0.5, row_reduction=reduction)
        value, (gradient,) = value_and_gradients(loss, scores)
        smoothed, (smoothed_gradient,) = value_and_gradients(functools.partial(loss, smoothing=LabelSmoothing()), scores)
        np.testing.assert_allclose(smoothed, value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(smoothed_gradient, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lowest_positive": 0}, r"`lowest_positive` must be a whole number in \[1, 4\)"),
        ({"lowest_positive": 4}, r"`lowest_positive` must be a whole number in"),
        ({"weights": [1.0, 2.0]}, r"`weights` must be 4 finite numbers of at least 0"),
        ({"row_reduction": "max"}, r"`row_reduction` must be one of sum, mean. Received: 'max'"),
        ({"temperature": 0.0}, r"`temperature` must be a finite number above 0"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        graded_infonce(tf.constant(SCORES), LEVELS, 4, **arguments)


def test_an_unknown_level_is_an_error_and_not_a_silent_term():
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be below `num_levels`"):
        graded_infonce(tf.constant(SCORES), LEVELS, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be below `num_levels`"):
        tf.function(lambda levels: graded_infonce(tf.constant(SCORES), levels, 3))(tf.constant(LEVELS))


def test_it_trains_any_keras_model_and_comes_back_from_its_config():
    loss = GradedInfoNCE.from_config(GradedInfoNCE(4, 0.5, 2, [0.0, 0.0, 1.0, 3.0], "mean", name="graded").get_config())
    expected = plain(SCORES.tolist(), LEVELS.tolist(), 0.5, 2, [0.0, 0.0, 1.0, 3.0], "mean")
    np.testing.assert_allclose(loss(LEVELS, SCORES), expected, rtol=1e-5)
    assert loss.name == "graded"
    tf.keras.utils.set_random_seed(1)
    model = tf.keras.Sequential([tf.keras.layers.Dense(4)])
    model.compile(optimizer=tf.keras.optimizers.Adagrad(0.5), loss=GradedInfoNCE(4, 0.5))
    # Item i is one level below item i + 1 for every query.
    model.fit(tf.eye(6), tf.tile(tf.range(4)[None, :], [6, 1]), epochs=20, verbose=0)
    assert (np.diff(model(tf.eye(6)), axis=1) > 0).all()
