"""Margins and temperatures that follow how hard a negative is, and the loss with the item as the anchor."""

from collections.abc import Callable

import tensorflow as tf

from tfebr.infrastructure.checks import check_number, require
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.precision import at_least_float32
from tfebr.losses.sampled_softmax import sampled_softmax


def adaptive_margin(similarity: tf.Tensor, base: float = 0.01, alpha: float = 0.5) -> tf.Tensor:
    """delta_ij = delta_0 + alpha (1 - sg(cos(v_i+, v_j))): the harder a negative, the smaller its margin. For a hinge's `margin`.

    Source: adaptive hyper-parameter learning (JD, EMNLP 2023 industry track); the formula is reconstructed, delta_0 and alpha are the
    paper's. A hard negative may be an unlabelled positive, and is not to be pushed away as far as a random item.

    Args:
        similarity: float [...], cosine of each row's positive item and each candidate.
        base: delta_0, the margin of a negative that equals the positive, in units of the score.
        alpha: how much is added for a negative that is orthogonal to the positive.

    Returns:
        Of the shape of `similarity`; no gradient flows through it.

    Raises:
        ConfigError: `base` or `alpha` is negative.
    """
    check_number("base", base, "[0, inf)")
    return base + _slack(similarity, alpha)


def adaptive_temperature(similarity: tf.Tensor, base: float = 1 / 30, alpha: float = 0.5) -> tf.Tensor:
    """tau_ij = tau_0 (1 + alpha (1 - sg(cos(v_i+, v_j)))): the harder a negative, the smaller its temperature. For `adaptive_softmax`.

    Source: as `adaptive_margin`. Reconstructed with alpha relative to tau_0: 0.5 added to 1/30 would flatten the softmax over random
    negatives to nothing.

    Args:
        similarity: float [...], cosine of each row's positive item and each candidate.
        base: tau_0, the temperature of a negative that equals the positive, in units of the score.
        alpha: by what share the temperature of a negative that is orthogonal to the positive is larger.

    Returns:
        Of the shape of `similarity`; no gradient flows through it.

    Raises:
        ConfigError: `base` is not positive, or `alpha` is negative.
    """
    check_number("base", base, "(0, inf)")
    return base * (1.0 + _slack(similarity, alpha))


def adaptive_softmax(
    scores: tf.Tensor, positive_scores: tf.Tensor, mask: tf.Tensor, temperatures: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """L = mean over rows of  log(1 + sum_j mask_ij exp((s_ij - s_i+) / tau_ij)): `sampled_softmax` with a temperature for each negative.

    Args:
        scores: float [batch, candidates].
        positive_scores: float [batch].
        mask: bool [batch, candidates], True for negatives; the row's own positive and its other known positives must be False.
        temperatures: float [batch, candidates], positive; see `adaptive_temperature`.
        weights: float [batch], multiplies the loss of each row. All 1 by default.

    Returns:
        A scalar, float32 at least; rows without negatives count as 0. Finite for every mask, in value and gradient.

    Raises:
        ConfigError: an argument has another shape or dtype.
    """
    check_tensors(
        scores=(scores, "float [batch, candidates]"),
        positive_scores=(positive_scores, "float [batch]"),
        mask=(mask, "bool [batch, candidates]"),
        temperatures=(temperatures, "float [batch, candidates]"),
        weights=(weights, "float [batch]"),
    )
    scores, own = at_least_float32(scores), at_least_float32(positive_scores)
    # A masked candidate's temperature may be lost, and 0 times that is not 0.
    gaps = (scores - own[:, None]) / tf.where(mask, tf.cast(temperatures, scores.dtype), 1.0)
    # The positive's gap to itself: 0, but NaN where its score is lost.
    return sampled_softmax(gaps, own - own, mask, weights=weights)


def item_anchored(
    loss: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor], scores: tf.Tensor, mask: tf.Tensor, weight: float = 0.05
) -> tf.Tensor:
    """w times the loss of every in-batch positive item against the other queries of the batch; to be added to the loss of the queries.

    It keeps items apart where an adaptive margin alone would let them collapse. Source: as `adaptive_margin`; w is the paper's.

    Args:
        loss: of (scores [batch, candidates], positive_scores [batch], mask [batch, candidates]), such as `sampled_softmax`.
        scores: float [batch, candidates]; candidate i < batch is the positive of row i, further candidates have no query and are left out.
        mask: bool [batch, candidates], True where a candidate is a negative of the row, and so the row's query one of the candidate.
        weight: w.

    Raises:
        ConfigError: an argument has another shape or dtype, there are fewer candidates than rows, or the weight is negative.
    """
    check_number("weight", weight, "[0, inf)")
    check_tensors(scores=(scores, "float [batch, candidates]"), mask=(mask, "bool [batch, candidates]"))
    rows, candidates = tf.TensorShape(scores.shape).as_list()
    fits = rows is None or candidates is None or candidates >= rows
    require(fits, "scores", "[batch, candidates] with at least one candidate for each row", [rows, candidates])
    batch = tf.shape(scores)[0]
    in_batch = scores[:, :batch]
    return weight * loss(tf.transpose(in_batch), tf.linalg.diag_part(in_batch), tf.transpose(mask[:, :batch]))


def _slack(similarity: tf.Tensor, alpha: float) -> tf.Tensor:
    check_number("alpha", alpha, "[0, inf)")
    check_tensors(similarity=(similarity, "float [...]"))
    # Rounding takes a cosine beyond 1, and a temperature must not come near 0.
    return alpha * (1.0 - tf.clip_by_value(tf.stop_gradient(similarity), -1.0, 1.0))
