"""Label smoothing: where the mass goes, nothing of it to what is masked, and the cross-entropy against plain loops and Keras's own."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf
from harness import run_loss_test
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from loss_checks import SCORES, check_against_finite_differences, check_finite, value_and_gradients

from tfebr.errors import ConfigError
from tfebr.losses.label_smoothing import LabelSmoothing, soft_cross_entropy
from tfebr.losses.sampled_softmax import sampled_softmax

RNG = np.random.default_rng(0)
MODEL, TEACHER = (RNG.normal(size=(3, 6)).astype(np.float32) for _ in range(2))
MASK, POSITIVE = RNG.random((3, 6)) < 0.6, np.array([0, 3, 5])
LOG_PROBABILITY = RNG.normal(size=6).astype(np.float32)
EVERY = [
    LabelSmoothing(uniform=0.2),
    LabelSmoothing(sampling=0.3),
    LabelSmoothing(bootstrap=0.4),
    LabelSmoothing(0.1, 0.2, 0.3),
]


def shares(values, kept) -> list[float]:
    total = sum(math.exp(v) for v, k in zip(values, kept, strict=True) if k)
    return [math.exp(v) / total if k else 0.0 for v, k in zip(values, kept, strict=True)]


def plain_targets(smoothing, scores, positive, mask, temperature, log_probability, teacher=None) -> list[list[float]]:
    rows = []
    for i, row in enumerate(scores):
        kept = [m or j == positive[i] for j, m in enumerate(mask[i])]
        soft = shares([s / temperature for s in (row if teacher is None else teacher[i])], kept)
        drawn, even = shares(log_probability, kept), [k / sum(kept) for k in kept]
        hard = [float(j == positive[i]) for j in range(len(row))]
        u, s, b = smoothing.uniform, smoothing.sampling, smoothing.bootstrap
        parts = zip(hard, even, drawn, soft, strict=True)
        rows.append([(1 - u - s - b) * h + u * e + s * d + b * p for h, e, d, p in parts])
    return rows


def plain_loss(scores, targets, mask, temperature) -> float:
    total = 0.0
    for row, row_targets, kept in zip(scores, targets, mask, strict=True):
        found = shares([s / temperature for s in row], kept)
        total -= sum(t * math.log(p) for t, p, k in zip(row_targets, found, kept, strict=True) if k)
    return total / len(scores)


def joined(scores, positives, mask):
    """The positive as column 0, as `sampled_softmax` has it apart."""
    rows = tf.shape(scores)[0]
    own = tf.ones([rows, 1], tf.bool)
    return tf.concat([positives[:, None], scores], axis=1), tf.zeros([rows], tf.int32), tf.concat([own, mask], axis=1)


@pytest.mark.parametrize("smoothing", [LabelSmoothing(), EVERY[-1]])
def test_contract(smoothing):
    def loss(scores, positives, mask):
        equal = tf.zeros([tf.shape(scores)[1] + 1])
        return tf.reduce_mean(smoothing.row_losses(*joined(scores, positives, mask), 0.7, equal))

    def oracle(scores, positives, mask):
        rows = [[p, *row] for p, row in zip(positives, scores, strict=True)]
        masks = [[True, *row] for row in mask]
        targets = plain_targets(smoothing, rows, [0] * len(rows), masks, 0.7, [0.0] * len(rows[0]))
        return plain_loss(rows, targets, masks, 0.7)

    run_loss_test(loss, oracle)


@pytest.mark.parametrize("teacher", [None, TEACHER])
@pytest.mark.parametrize("smoothing", EVERY)
def test_targets_are_distributions_over_what_is_unmasked(smoothing, teacher):
    targets = smoothing.targets(MODEL, POSITIVE, MASK, 0.5, LOG_PROBABILITY, teacher).numpy()
    expected = plain_targets(smoothing, MODEL.tolist(), POSITIVE, MASK, 0.5, LOG_PROBABILITY.tolist(), teacher)
    np.testing.assert_allclose(targets, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    masked = ~MASK
    masked[range(3), POSITIVE] = False
    assert masked.any()
    assert not targets[masked].any()


@settings(max_examples=20)
@given(
    hnp.arrays(np.float32, (2, 4), elements=SCORES), hnp.arrays(bool, (2, 4)), st.integers(0, 3), st.sampled_from([np.inf, -np.inf, 1e30])
)
def test_a_masked_candidate_has_probability_and_gradient_0(scores, mask, column, extreme):
    mask[:, column], mask[:, (column + 1) % 4] = False, True
    positive = np.full(2, (column + 1) % 4)
    for smoothing in EVERY:
        hidden = scores.copy()
        hidden[:, column] = extreme
        log_probability = np.where(np.arange(4) == column, extreme, 0.1).astype(np.float32)
        arguments = hidden, positive, mask, 0.5, log_probability
        assert not smoothing.targets(*arguments)[:, column].numpy().any()
        value, (gradient,) = value_and_gradients(lambda s: tf.reduce_mean(smoothing.row_losses(s, *arguments[1:])), hidden)  # noqa: B023
        assert not gradient[:, column].any()
        less = [np.delete(array, column, axis=-1) for array in (scores, mask, log_probability)]
        without = smoothing.row_losses(less[0], positive - (positive > column), less[1], 0.5, less[2])
        np.testing.assert_allclose(value, tf.reduce_mean(without), rtol=1e-5, atol=1e-6)


@settings(max_examples=20)
@given(hnp.arrays(np.float32, (3, 5), elements=SCORES), hnp.arrays(bool, (3, 5)), st.sampled_from([0.2, 1.0, 3.0]))
def test_epsilon_0_is_the_plain_loss_in_value_and_gradient(scores, mask, temperature):
    positive = np.array([0, 2, 4])
    mask[range(3), positive] = False
    smooth = lambda s: tf.reduce_mean(LabelSmoothing().row_losses(s, positive, mask, temperature))  # noqa: E731
    plain = lambda s: sampled_softmax(s, tf.gather(s, positive, batch_dims=1), tf.constant(mask), temperature)  # noqa: E731
    (value, (gradient,)), (expected, (slope,)) = value_and_gradients(smooth, scores), value_and_gradients(plain, scores)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)


def test_uniform_smoothing_of_unmasked_candidates_is_keras_label_smoothing():
    labels = np.eye(6, dtype=np.float32)[POSITIVE]
    expected = tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.15)(labels, MODEL / 0.5)
    found = LabelSmoothing(uniform=0.15).row_losses(MODEL, POSITIVE, np.ones((3, 6), bool), 0.5)
    np.testing.assert_allclose(tf.reduce_mean(found), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", EVERY)
def test_gradients_are_slopes(smoothing):
    targets = smoothing.targets(MODEL, POSITIVE, MASK, 0.5, LOG_PROBABILITY)
    kept = MASK | (np.arange(6) == POSITIVE[:, None])
    check_against_finite_differences(lambda s: soft_cross_entropy(s, targets, kept, 0.5), MODEL)
    # Targets do not move with the scores that some were made of.
    _, (found,) = value_and_gradients(lambda s: tf.reduce_mean(smoothing.row_losses(s, POSITIVE, MASK, 0.5, LOG_PROBABILITY)), MODEL)
    _, (expected,) = value_and_gradients(lambda s: soft_cross_entropy(s, targets, kept, 0.5), MODEL)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@settings(max_examples=20)
@given(hnp.arrays(np.float32, (3, 5), elements=SCORES), hnp.arrays(bool, (3, 5)))
def test_finite_for_every_mask_in_float32_and_bfloat16(scores, mask):
    positive = np.array([0, 2, 4])
    for smoothing in EVERY:
        check_finite(lambda s: tf.reduce_mean(smoothing.row_losses(s, positive, mask, 0.5, np.zeros(5))), scores)  # noqa: B023
    check_finite(lambda s: soft_cross_entropy(s, np.where(mask, 0.2, 0.0), mask, 0.5), scores)


def test_bootstrapping_pulls_less_on_a_click_that_the_model_does_not_believe():
    scores = tf.constant([[4.0, 0.0, 0.0]])
    slopes = [
        value_and_gradients(lambda s: tf.reduce_sum(smoothing.row_losses(s, [1], [[True] * 3])), scores)[1][0]  # noqa: B023
        for smoothing in (LabelSmoothing(), LabelSmoothing(bootstrap=0.5))
    ]
    np.testing.assert_allclose(slopes[1], 0.5 * slopes[0], rtol=1e-4)


def test_weights_multiply_rows():
    targets = LabelSmoothing(0.1).targets(MODEL, POSITIVE, MASK)
    kept = MASK | (np.arange(6) == POSITIVE[:, None])
    rows = [float(soft_cross_entropy(MODEL[i : i + 1], targets[i : i + 1], kept[i : i + 1])) for i in range(3)]
    weighted = soft_cross_entropy(MODEL, targets, kept, weights=tf.constant([0.0, 1.0, 2.5]))
    np.testing.assert_allclose(weighted, (rows[1] + 2.5 * rows[2]) / 3, rtol=1e-5)


def test_lost_weights_do_not_look_like_a_solved_problem():
    for smoothing in [LabelSmoothing(), *EVERY]:
        for at in (0, 1):
            scores = np.float32([[0.1, 0.2, 0.3]])
            scores[0, at] = np.nan
            assert np.isnan(smoothing.row_losses(scores, [0], [[False, True, False]], 1.0, np.zeros(3)))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"uniform": -0.1}, r"`uniform` must be a finite number in \[0, 1\). Received: -0.1"),
        ({"bootstrap": 1.0}, r"`bootstrap` must be a finite number in"),
        ({"sampling": float("nan")}, r"`sampling` must be a finite number"),
        ({"uniform": 0.5, "sampling": 0.5}, r"`uniform \+ sampling \+ bootstrap` must be less than 1"),
    ],
)
def test_impossible_shares_are_named(shares, message):
    with pytest.raises(ConfigError, match=message):
        LabelSmoothing(**shares)


def test_what_is_missing_is_named():
    with pytest.raises(ConfigError, match=r"`log_probability` of the candidates is needed for `sampling` = 0\.3"):
        LabelSmoothing(sampling=0.3).targets(MODEL, POSITIVE, MASK)
    with pytest.raises(ConfigError, match="`temperature` must be a finite number above 0"):
        soft_cross_entropy(MODEL, MODEL, MASK, 0.0)


def test_it_runs_in_a_graph_with_unknown_shapes():
    smoothing = LabelSmoothing(0.1, 0.1, 0.1)
    specs = [tf.TensorSpec([None, None]), tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.bool), tf.TensorSpec([None])]
    graph = tf.function(lambda s, p, m, q: smoothing.row_losses(s, p, m, 0.5, q), input_signature=specs)
    arguments = MODEL, POSITIVE.astype(np.int32), MASK, LOG_PROBABILITY
    expected = functools.partial(smoothing.row_losses, temperature=0.5, log_probability=LOG_PROBABILITY)(*arguments[:3])
    np.testing.assert_allclose(graph(*arguments), expected, rtol=1e-5)
