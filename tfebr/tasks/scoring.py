"""Scores of query vectors against candidates."""

import tensorflow as tf


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
    """
    per_head = tf.einsum("bhd,cd->bhc", query, candidates)
    if query.shape[1] == 1:
        return per_head[:, 0]
    weights = tf.nn.softmax(per_head / beta, axis=1)
    if stop_weights:
        weights = tf.stop_gradient(weights)
    return tf.reduce_sum(weights * per_head, axis=1)
