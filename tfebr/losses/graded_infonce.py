"""Graded InfoNCE: every candidate against all of lower levels, in one softmax loss."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfebr.infrastructure.checks import check_choice, check_number, check_numbers
from tfebr.infrastructure.shapes import check_scalar, check_tensors
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.losses.masked import masked_logsumexp, to_logits

ROW_REDUCTIONS = ("sum", "mean")


def graded_infonce(
    scores: tf.Tensor,
    levels: tf.Tensor,
    num_levels: int,
    temperature: float | tf.Tensor = 0.05,
    lowest_positive: int = 1,
    weights: Sequence[float] | tf.Tensor | None = None,
    row_reduction: str = "sum",
    confidence: tf.Tensor | None = None,
    smoothing: LabelSmoothing | None = None,
    log_probability: tf.Tensor | None = None,
    teacher_scores: tf.Tensor | None = None,
) -> tf.Tensor:
    """L = mean over rows of  sum_i -log( exp(s_i / tau) / (exp(s_i / tau) + sum_{k: l_k < l_i} exp(s_k / tau)) ),  l_i >= lowest_positive.

    What is on the same level or above is not in the denominator. With two levels it is the softmax loss.

    Source: CroPS (Kuaishou, AAAI 2026), H-InfoNCE; there tau is learned from 0.05, in-batch items have level 0, and the sum is over all
    candidates. Weights, confidence and smoothing are this library's own.

    Args:
        scores: float [batch, candidates].
        levels: int [batch, candidates], from 0, the lowest, to num_levels - 1; -1 for what is masked.
        num_levels: how many levels there are, the lowest included.
        temperature: tau, in units of the score; a scalar tensor where it is learned.
        lowest_positive: candidates below this level are negatives only.
        weights: one number a level, or float [batch, candidates]; multiplies the terms of each level or candidate. All 1 by default.
        row_reduction: "sum" over a row's terms (the paper's), or "mean": weighted by `weights`, of those with a candidate below them.
        confidence: float [batch, candidates], multiplies the term of each candidate. No part of the mean's weights: a row whose one
            positive is doubtful counts for less.
        smoothing: of the target distributions. Takes memory of [positives, candidates], where the plain loss takes [batch, candidates].
        log_probability: float [candidates] or [batch, candidates], for `smoothing`.
        teacher_scores: float [batch, candidates], for `smoothing`.

    Returns:
        A scalar, float32 at least; a candidate with nothing below it counts as 0. Finite for every mask, in value and gradient.

    Raises:
        ConfigError: an argument has another shape or dtype, or is out of its range.
        tf.errors.InvalidArgumentError: a level is not below num_levels.
    """
    arguments = levels, num_levels, temperature, lowest_positive, weights, row_reduction
    return tf.reduce_mean(_row_losses(scores, *arguments, confidence, smoothing, log_probability, teacher_scores))


class GradedInfoNCE(tf.keras.losses.Loss):
    """The same for `compile`: levels and scores, both [batch, candidates].

    Args:
        num_levels, temperature, lowest_positive, weights, row_reduction: as in `graded_infonce`.
        **kwargs: reduction and name, as every Keras loss takes them; Keras's default reduction is the mean over the rows.

    Raises:
        ConfigError: a setting is out of its range; when called, levels or scores have another shape.
    """

    def __init__(
        self,
        num_levels: int,
        temperature: float = 0.05,
        lowest_positive: int = 1,
        weights: Sequence[float] | None = None,
        row_reduction: str = "sum",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        _check_settings(num_levels, temperature, lowest_positive, weights, row_reduction)
        self.num_levels, self.temperature, self.lowest_positive = num_levels, temperature, lowest_positive
        self.weights, self.row_reduction = weights, row_reduction

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Losses of the rows, float [batch]."""
        # Keras may have made floats of the labels.
        levels = tf.cast(y_true, tf.int32)
        check_tensors(y_pred=(y_pred, "float [batch, candidates]"), y_true=(levels, "int [batch, candidates]"))
        return _row_losses(y_pred, levels, self.num_levels, self.temperature, self.lowest_positive, self.weights, self.row_reduction)

    def get_config(self) -> dict[str, Any]:
        """What makes the same loss again."""
        names = "num_levels", "temperature", "lowest_positive", "weights", "row_reduction"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _check_settings(
    num_levels: int, temperature: float | tf.Tensor, lowest_positive: int, weights: Sequence[float] | tf.Tensor | None, row_reduction: str
) -> None:
    check_number("num_levels", num_levels, "[2, inf)", whole=True)
    check_number("lowest_positive", lowest_positive, f"[1, {num_levels})", whole=True)
    check_scalar("temperature", temperature, "(0, inf)")
    if isinstance(weights, Sequence):
        check_numbers("weights", weights, num_levels, "[0, inf)")
    check_choice("row_reduction", row_reduction, ROW_REDUCTIONS)


def _row_losses(
    scores: tf.Tensor,
    levels: tf.Tensor,
    num_levels: int,
    temperature: float | tf.Tensor,
    lowest_positive: int,
    weights: Sequence[float] | tf.Tensor | None,
    row_reduction: str,
    confidence: tf.Tensor | None = None,
    smoothing: LabelSmoothing | None = None,
    log_probability: tf.Tensor | None = None,
    teacher_scores: tf.Tensor | None = None,
) -> tf.Tensor:
    _check_settings(num_levels, temperature, lowest_positive, weights, row_reduction)
    check_tensors(
        scores=(scores, "float [batch, candidates]"),
        levels=(levels, "int [batch, candidates]"),
        weights=(None if isinstance(weights, Sequence) else weights, "float [batch, candidates]"),
        confidence=(confidence, "float [batch, candidates]"),
        log_probability=(log_probability, "float [candidates] or [batch, candidates]"),
        teacher_scores=(teacher_scores, "float [batch, candidates]"),
    )
    levels = tf.cast(levels, tf.int32)
    known = tf.debugging.assert_less(levels, num_levels, "`levels` must be below `num_levels`. Raise `num_levels`, or mask with -1.")
    # Otherwise a graph may come upon the unknown level before the message.
    with tf.control_dependencies([known] if known is not None else []):
        levels = tf.identity(levels)

    logits = to_logits(scores, temperature)
    positives = tf.where(levels >= lowest_positive)
    rows, columns = positives[:, 0], positives[:, 1]
    level = tf.gather_nd(levels, positives)
    # The denominators of all positives of a level in a row are one.
    below = [masked_logsumexp(logits, (levels >= 0) & (levels < at)) for at in range(lowest_positive, num_levels)]
    below = tf.gather_nd(tf.stack(below, axis=1), tf.stack([rows, tf.cast(level - lowest_positive, tf.int64)], axis=1))
    if smoothing is None:
        losses = tf.math.softplus(below - tf.gather_nd(logits, positives))
    else:
        lower = tf.gather(levels, rows)
        lower = (lower >= 0) & (lower < level[:, None])
        of_rows = [None if t is None else tf.gather(t, rows) if len(t.shape) == 2 else t for t in (log_probability, teacher_scores)]
        losses = smoothing.row_losses(tf.gather(scores, rows), columns, lower, temperature, *of_rows)
    if confidence is not None:
        losses *= tf.cast(tf.gather_nd(confidence, positives), losses.dtype)
    if weights is None:
        factors = tf.ones_like(losses)
    elif isinstance(weights, Sequence):
        factors = tf.gather(tf.constant(weights, losses.dtype), level)
    else:
        factors = tf.cast(tf.gather_nd(weights, positives), losses.dtype)
    count = tf.shape(scores)[0]
    total = tf.math.unsorted_segment_sum(factors * losses, rows, count)
    if row_reduction == "sum":
        return total
    counted = tf.where(below == -float("inf"), 0.0, factors)
    return tf.math.divide_no_nan(total, tf.math.unsorted_segment_sum(counted, rows, count))
