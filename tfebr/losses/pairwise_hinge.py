"""Hinge loss over every (positive, negative) pair."""

import tensorflow as tf

REDUCTIONS = ("sum", "mean", "mean_active")


def pairwise_hinge(
    scores: tf.Tensor, positive_scores: tf.Tensor, mask: tf.Tensor, margin: float, weights: tf.Tensor | None = None, reduction: str = "sum"
) -> tf.Tensor:
    """L = mean over rows of  sum_j mask_ij max(0, margin - s_i+ + s_ij).  Source: DPSR, the loss of section "optimization".

    Args:
        scores: float [batch, candidates].
        positive_scores: float [batch].
        mask: bool [batch, candidates], True for negatives; the row's own positive and its other known positives must be False.
        margin: delta, in units of the score.
        weights: float [batch, candidates], of each negative; all 1 by default.
        reduction: over the negatives of a row: "sum" (the paper's), "mean" over unmasked ones, or "mean_active" over those in the margin.

    Returns:
        A scalar; 0 where nothing is unmasked. Finite for every mask, in value and gradient.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"`reduction` must be one of {', '.join(REDUCTIONS)}. Received: `reduction` = {reduction!r}.")
    pairs = margin - positive_scores[:, None] + scores
    # Not relu, which makes 0 of NaN and so hides from training that its weights are lost.
    pairs = tf.where(pairs <= 0, 0.0, pairs)
    counted = tf.cast(mask, scores.dtype)
    # Selected, not multiplied: a masked score may be infinite.
    pairs = tf.where(mask, pairs, 0.0)
    if weights is not None:
        pairs *= weights
        counted *= weights
    total = tf.reduce_sum(pairs, axis=1)
    if reduction == "mean":
        total = tf.math.divide_no_nan(total, tf.reduce_sum(counted, axis=1))
    elif reduction == "mean_active":
        total = tf.math.divide_no_nan(total, tf.reduce_sum(tf.where(pairs == 0, 0.0, counted), axis=1))
    return tf.reduce_mean(total)
