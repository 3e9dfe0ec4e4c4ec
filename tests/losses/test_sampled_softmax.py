"""Sampled softmax against plain loops and Keras's own cross-entropy; what the temperature does; the Keras face and its labels."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from harness import run_loss_test
from hypothesis import given
from hypothesis import strategies as st

from tfebr.errors import ConfigError
from tfebr.losses.sampled_softmax import SampledSoftmax, sampled_softmax

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(5, 7)).astype(np.float32) * 3


def row_loss(scores, positive, mask, temperature) -> float:
    own = math.exp(positive / temperature)
    return -math.log(own / (own + sum(math.exp(s / temperature) for s, m in zip(scores, mask, strict=True) if m)))


def plain(scores, positives, mask, temperature) -> float:
    rows = zip(scores, positives, mask, strict=True)
    return sum(row_loss(*row, temperature) for row in rows) / len(positives)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_contract(temperature):
    run_loss_test(functools.partial(sampled_softmax, temperature=temperature), functools.partial(plain, temperature=temperature))


@pytest.mark.parametrize("temperature", [0.05, 1.0, 2.0])
def test_unmasked_it_is_categorical_cross_entropy(temperature):
    labels = np.eye(5, 7, dtype=np.float32)
    expected = tf.keras.losses.CategoricalCrossentropy(from_logits=True)(labels, SCORES / temperature)
    found = sampled_softmax(tf.constant(SCORES), tf.constant(np.diag(SCORES)), tf.constant(labels == 0), temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(SampledSoftmax(temperature)(labels, SCORES), expected, rtol=1e-5)


def test_a_higher_temperature_spreads_the_gradient_over_more_negatives():
    shares = []
    for temperature in (0.2, 1.0, 5.0):
        scores = tf.constant([[3.0, 1.0, -2.0]])
        with tf.GradientTape() as tape:
            tape.watch(scores)
            loss = sampled_softmax(scores, tf.constant([2.0]), tf.ones([1, 3], tf.bool), temperature)
        by_score = tape.gradient(loss, scores).numpy()[0]
        shares.append(by_score[0] / by_score.sum())
    assert shares[0] > 0.99
    assert shares[0] > shares[1] > shares[2]
    np.testing.assert_allclose(shares[2], math.exp(0.6) / (math.exp(0.6) + math.exp(0.2) + math.exp(-0.4)), rtol=1e-4)


def test_weights_multiply_rows():
    arguments = tf.constant(SCORES), tf.constant(SCORES[:, 0]), tf.constant(SCORES > 0)
    weights = [0.0, 1.0, 2.5, 0.5, 3.0]
    rows = [w * row_loss(s, s[0], s > 0, 1.0) for w, s in zip(weights, SCORES.astype(float), strict=True)]
    np.testing.assert_allclose(sampled_softmax(*arguments, weights=tf.constant(weights)), np.mean(rows), rtol=1e-5)


def test_large_scores_stay_exact():
    """exp(1000) is infinite, and 1e4 + 0.125 has few digits left: neither matters."""
    scores, positives = tf.constant([[1000.0, -1000.0], [1e4, 0.0]]), tf.constant([1000.0, 1e4 + 0.125])
    with tf.GradientTape() as tape:
        tape.watch([scores, positives])
        loss = sampled_softmax(scores, positives, tf.ones([2, 2], tf.bool))
    np.testing.assert_allclose(loss, (math.log(2) + math.log1p(math.exp(-0.125))) / 2, rtol=1e-5)
    for gradient in tape.gradient(loss, [scores, positives]):
        assert np.isfinite(gradient).all()


def test_lost_weights_do_not_look_like_a_solved_problem():
    nan, one = tf.constant([[np.nan, 0.1]]), tf.constant([0.5])
    assert np.isnan(sampled_softmax(nan, one, tf.constant([[True, True]])))
    assert np.isfinite(sampled_softmax(nan, one, tf.constant([[False, True]])))
    for mask in ([[True]], [[False]]):
        assert np.isnan(sampled_softmax(tf.constant([[0.1]]), tf.constant([np.nan]), tf.constant(mask)))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_an_impossible_temperature_is_named(temperature):
    with pytest.raises(ConfigError, match="`temperature` must be a finite number above 0"):
        sampled_softmax(tf.zeros([1, 1]), tf.zeros([1]), tf.ones([1, 1], tf.bool), temperature)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 5))
def test_labels_with_several_positives_and_ignored_candidates(seed, batch, columns):
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(-1, 2, (batch, columns)), rng.normal(size=(batch, columns)).astype(np.float32)
    rows = []
    for label, score in zip(labels, scores.astype(float), strict=True):
        losses = [row_loss(score, score[p], label == 0, 0.7) for p in np.flatnonzero(label == 1)]
        rows.append(np.mean(losses) if losses else 0.0)
    loss = SampledSoftmax(0.7, reduction="none")
    np.testing.assert_allclose(loss(labels, scores), rows, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(SampledSoftmax(0.7)(labels, scores), np.mean(rows), rtol=1e-4, atol=1e-6)


def test_it_is_a_loss_for_tfrs():
    queries, items = (tf.constant(RNG.normal(size=(4, 3)), tf.float32) for _ in range(2))
    task = tfrs.tasks.Retrieval(loss=SampledSoftmax(2.0), remove_accidental_hits=True)
    found = task(queries, items, candidate_ids=tf.constant([1, 2, 2, 3]), compute_metrics=False)
    scores = queries.numpy() @ items.numpy().T
    hits = np.eye(4, dtype=bool)
    hits[1, 2] = hits[2, 1] = True
    np.testing.assert_allclose(found, plain(scores.astype(float), np.diag(scores).astype(float), ~hits, 2.0), rtol=1e-5)


def test_it_trains_any_keras_model_and_comes_back_from_its_config():
    loss = SampledSoftmax.from_config(SampledSoftmax(0.5, name="softmax").get_config())
    assert (loss.temperature, loss.name) == (0.5, "softmax")
    tf.keras.utils.set_random_seed(1)
    model = tf.keras.Sequential([tf.keras.layers.Dense(6)])
    model.compile(optimizer=tf.keras.optimizers.Adagrad(0.5), loss=loss)
    features = tf.eye(6)
    history = model.fit(features, tf.eye(6), epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.2 * history[0]
