"""Softmax reductions over masked scores that stay finite, in value and gradient, whatever the mask and the masked scores."""

import tensorflow as tf

from tfebr.infrastructure.shapes import check_scalar
from tfebr.layers.precision import at_least_float32


def masked_logsumexp(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """log sum_j mask_ij exp(l_ij), float [batch]; -infinity, without a gradient, for rows where nothing is unmasked."""
    kept = tf.where(mask, logits, -float("inf"))
    top = _top(kept)
    total = tf.reduce_sum(tf.exp(kept - top[:, None]), axis=1)
    # Compared with 0, not by the mask: a row of -infinity is as empty, and a lost score is not.
    empty = total == 0
    return tf.where(empty, -float("inf"), top + tf.math.log(tf.where(empty, 1.0, total)))


def masked_softmax(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """mask_ij exp(l_ij) / sum_k mask_ik exp(l_ik), float [batch, candidates]; rows where nothing is unmasked are all 0."""
    kept = tf.where(mask, logits, -float("inf"))
    shares = tf.exp(kept - _top(kept)[:, None])
    return tf.math.divide_no_nan(shares, tf.reduce_sum(shares, axis=1, keepdims=True))


def _top(kept: tf.Tensor) -> tf.Tensor:
    top = tf.stop_gradient(tf.reduce_max(kept, axis=1))
    return tf.where(top == -float("inf"), tf.zeros_like(top), top)


def to_logits(scores: tf.Tensor, temperature: float | tf.Tensor) -> tf.Tensor:
    """scores / tau, in float32 at least.

    Raises:
        ConfigError: the temperature is not positive. One that is learned is known only when the graph runs.
    """
    check_scalar("temperature", temperature, "(0, inf)")
    scores = at_least_float32(scores)
    return scores * tf.cast(1.0 / temperature, scores.dtype)
