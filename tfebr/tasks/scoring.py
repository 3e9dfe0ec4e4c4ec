"""Scores of query vectors against candidates."""

from typing import Any

import tensorflow as tf

from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.shapes import check_tensors


def soft_attention_scores(query: tf.Tensor, candidates: tf.Tensor, beta: float, stop_weights: bool = False) -> tf.Tensor:
    """f(q, s) = sum_i w_i z_i with z_i = <e_i, g> and w = softmax(z / beta) over the heads.

    beta -> 0 is the best head, beta -> infinity the mean of the heads, one head the plain inner product.
    Source: DPSR, attention loss; the value of beta is reconstructed.

    Args:
        query: float [batch, heads, dim].
        candidates: float [candidates, dim].
        beta: temperature over the heads, in units of the score.
        stop_weights: no gradient through w.

    Returns:
        float [batch, candidates].

    Raises:
        ConfigError: an argument has another shape or dtype, or `beta` is not positive.
    """
    check_number("beta", beta, "(0, inf)")
    check_tensors(query=(query, "float [batch, heads, dim]"), candidates=(candidates, "float [candidates, dim]"))
    if query.shape[1] == 1:
        return tf.matmul(query[:, 0], candidates, transpose_b=True)
    # Heads first, before the product, which is large: reducing over the outermost axis runs over contiguous memory.
    heads_first = tf.transpose(query, [1, 0, 2])
    per_head = tf.matmul(tf.reshape(heads_first, [-1, query.shape[2]]), candidates, transpose_b=True)
    shape = [query.shape[1], tf.shape(query)[0], tf.shape(candidates)[0]]
    return _attended(tf.reshape(per_head, shape), beta, stop_weights)


def _attended(per_head: tf.Tensor, beta: float, stop_weights: bool) -> tf.Tensor:
    """sum_i softmax(z / beta)_i z_i over the first axis, with its gradient in closed form: w_i (1 + (z_i - f) / beta)."""

    @tf.custom_gradient
    def attended(z: tf.Tensor) -> tuple[tf.Tensor, Any]:
        shares = tf.exp((z - tf.reduce_max(z, axis=0)) * (1.0 / beta))
        weights = shares / tf.reduce_sum(shares, axis=0)
        value = tf.reduce_sum(weights * z, axis=0)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            if stop_weights:
                return weights * upstream
            return weights * (1.0 + (z - value) * (1.0 / beta)) * upstream

        return value, gradient

    return attended(per_head)
