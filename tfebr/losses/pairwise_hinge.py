"""Hinge loss over every (positive, negative) pair."""

import tensorflow as tf

from tfebr.infrastructure.checks import check_choice
from tfebr.infrastructure.shapes import check_scalar, check_tensors, is_scalar
from tfebr.layers.precision import at_least_float32

REDUCTIONS = ("sum", "mean", "mean_active")


def pairwise_hinge(
    scores: tf.Tensor,
    positive_scores: tf.Tensor,
    mask: tf.Tensor,
    margin: float | tf.Tensor,
    weights: tf.Tensor | None = None,
    reduction: str = "sum",
    sample_weight: tf.Tensor | None = None,
) -> tf.Tensor:
    """L = mean over rows of  sum_j mask_ij max(0, margin - s_i+ + s_ij).  Source: DPSR, the loss of section "optimization".

    Args:
        scores: float [batch, candidates].
        positive_scores: float [batch].
        mask: bool [batch, candidates], True for negatives; the row's own positive and its other known positives must be False.
        margin: delta, in units of the score: a number of at least 0, or float [batch, candidates].
        weights: float [batch, candidates], of each negative; all 1 by default.
        reduction: over the negatives of a row: "sum" (the paper's), "mean" over unmasked ones, or "mean_active" over those in the margin.
        sample_weight: float [batch], multiplies the loss of each row; the mean is still over all rows. All 1 by default.

    Returns:
        A scalar, float32 at least; 0 where nothing is unmasked. Finite for every mask, in value and gradient.

    Raises:
        ConfigError: an argument has another shape or dtype, the margin is negative, or the reduction is unknown.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    if is_scalar(margin):
        check_scalar("margin", margin, "[0, inf)")
    check_tensors(
        scores=(scores, "float [batch, candidates]"),
        positive_scores=(positive_scores, "float [batch]"),
        mask=(mask, "bool [batch, candidates]"),
        weights=(weights, "float [batch, candidates]"),
        sample_weight=(sample_weight, "float [batch]"),
        margin=(None if is_scalar(margin) else margin, "float [batch, candidates]"),
    )
    scores, own = at_least_float32(scores), at_least_float32(positive_scores)
    pairs = tf.cast(margin, scores.dtype) - own[:, None] + scores
    # Not relu, which makes 0 of NaN and so hides from training that its weights are lost.
    pairs = tf.where(pairs <= 0, 0.0, pairs)
    counted = tf.cast(mask, scores.dtype)
    # Selected, not multiplied: a masked score may be infinite.
    pairs = tf.where(mask, pairs, 0.0)
    if weights is not None:
        weights = tf.cast(weights, scores.dtype)
        pairs *= weights
        counted *= weights
    total = tf.reduce_sum(pairs, axis=1)
    if reduction == "mean":
        total = tf.math.divide_no_nan(total, tf.reduce_sum(counted, axis=1))
    elif reduction == "mean_active":
        total = tf.math.divide_no_nan(total, tf.reduce_sum(tf.where(pairs == 0, 0.0, counted), axis=1))
    return tf.reduce_mean(total if sample_weight is None else total * tf.cast(sample_weight, total.dtype))
