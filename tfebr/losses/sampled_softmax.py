"""Softmax cross-entropy of the positive against sampled candidates, with a temperature and a mask."""

from typing import Any

import tensorflow as tf

from tfebr.infrastructure.shapes import check_scalar, check_tensors
from tfebr.layers.precision import at_least_float32
from tfebr.losses.masked import masked_logsumexp


def sampled_softmax(
    scores: tf.Tensor,
    positive_scores: tf.Tensor,
    mask: tf.Tensor,
    temperature: float | tf.Tensor = 1.0,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """L = mean over rows of  -log( exp(s_i+ / tau) / (exp(s_i+ / tau) + sum_j mask_ij exp(s_ij / tau)) ).

    Source: MGDSPR, the loss with temperature, the corpus replaced by sampled candidates. There, tau > 1 over un-normalised inner
    products trades a little recall for relevance; cosines need tau < 1.

    Args:
        scores: float [batch, candidates].
        positive_scores: float [batch].
        mask: bool [batch, candidates], True for negatives; the row's own positive and its other known positives must be False.
        temperature: tau, in units of the score; a scalar tensor where it is learned.
        weights: float [batch], multiplies the loss of each row; the mean is still over all rows. All 1 by default.

    Returns:
        A scalar, float32 at least; rows without negatives count as 0. Finite for every mask, in value and gradient, whatever masked
        scores are.

    Raises:
        ConfigError: an argument has another shape or dtype, or the temperature is not positive.
    """
    check_tensors(
        scores=(scores, "float [batch, candidates]"),
        positive_scores=(positive_scores, "float [batch]"),
        mask=(mask, "bool [batch, candidates]"),
        weights=(weights, "float [batch]"),
    )
    losses = _row_losses(scores, positive_scores, mask, temperature)
    return tf.reduce_mean(losses if weights is None else losses * tf.cast(weights, losses.dtype))


class SampledSoftmax(tf.keras.losses.Loss):
    """The same for `compile`, or as the loss of `tfrs.tasks.Retrieval`: labels and scores, both [batch, candidates].

    A label is 1 for a positive of the row, 0 for a negative, and -1 for what is neither, such as an accidental hit. A row with several
    positives has the mean of their losses, each against the negatives alone; a row without positives has a loss of 0.

    Args:
        temperature: tau, in units of the score.
        **kwargs: reduction and name, as every Keras loss takes them; Keras's default reduction is the mean over the rows.

    Raises:
        ConfigError: the temperature is not positive; when called, labels or scores have another shape.
    """

    def __init__(self, temperature: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        check_scalar("temperature", temperature, "(0, inf)")
        self.temperature = temperature

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Losses of the rows, float [batch]."""
        labels = tf.cast(y_true, y_pred.dtype)
        check_tensors(y_pred=(y_pred, "float [batch, candidates]"), y_true=(labels, "float [batch, candidates]"))
        positives = tf.where(labels > 0)
        rows = positives[:, 0]
        mask = tf.gather(labels == 0, rows)
        losses = _row_losses(tf.gather(y_pred, rows), tf.gather_nd(y_pred, positives), mask, self.temperature)
        return tf.math.unsorted_segment_mean(losses, rows, tf.shape(y_pred)[0])

    def get_config(self) -> dict[str, Any]:
        """What makes the same loss again."""
        return {**super().get_config(), "temperature": self.temperature}


def _row_losses(scores: tf.Tensor, positive_scores: tf.Tensor, mask: tf.Tensor, temperature: float | tf.Tensor) -> tf.Tensor:
    """float [batch]: log(1 + sum_j exp((s_j - s+) / tau)), which keeps more digits than the difference of two large logarithms."""
    check_scalar("temperature", temperature, "(0, inf)")
    scores, own = at_least_float32(scores), at_least_float32(positive_scores)
    gaps = (scores - own[:, None]) * tf.cast(1.0 / temperature, scores.dtype)
    # 0, but NaN where the positive's score is lost: a row without negatives must not hide it.
    return tf.math.softplus(masked_logsumexp(gaps, mask) + (own - own))
