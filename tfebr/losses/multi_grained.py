"""Multi-grained objective: a global retrieval loss against random items, and a local ranking loss among the shown items of a request."""

from collections.abc import Sequence

import tensorflow as tf

from tfebr.data.stage import Stage
from tfebr.infrastructure.checks import check_choice, check_number, check_numbers, is_number, require
from tfebr.infrastructure.shapes import check_scalar, check_tensors, is_scalar, is_tensor
from tfebr.layers.precision import at_least_float32
from tfebr.losses.graded_infonce import graded_infonce
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.losses.masked import to_logits

FORMS = ("hinge", "logistic", "listwise")


def multi_grained(
    shown_scores: tf.Tensor,
    stages: tf.Tensor,
    negative_scores: tf.Tensor,
    negative_mask: tf.Tensor,
    ranking_weight: float = 0.1,
    temperature: float | tf.Tensor = 1 / 30,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    form: str = "hinge",
    margin: float | Sequence[float] | tf.Tensor = 0.1,
    ranking_temperature: float | tf.Tensor = 1 / 30,
    row_reduction: str = "sum",
    confidence: tf.Tensor | None = None,
    smoothing: LabelSmoothing | None = None,
    log_probability: tf.Tensor | None = None,
    teacher_scores: tf.Tensor | None = None,
    unclicked_negatives: bool = False,
) -> tf.Tensor:
    """L = L_retrieval + lambda L_ranking, of `retrieval_loss` and `ranking_loss`; `confidence` is that of both.

    Source: MMSE, arXiv 2303.11009, multi-grained learning objectives; only the abstract is known, and both losses are reconstructed.

    Args:
        ranking_weight: lambda.
        form, margin, ranking_temperature: of `ranking_loss`; the other arguments are of `retrieval_loss`.

    Raises:
        ConfigError: an argument has another shape or dtype, or is out of its range.
    """
    check_number("ranking_weight", ranking_weight, "[0, inf)")
    check_scalar("ranking_temperature", ranking_temperature, "(0, inf)")
    smooth = smoothing, log_probability, teacher_scores, unclicked_negatives
    retrieval = retrieval_loss(
        shown_scores, stages, negative_scores, negative_mask, temperature, weights, row_reduction, confidence, *smooth
    )
    return retrieval + ranking_weight * ranking_loss(shown_scores, stages, form, margin, ranking_temperature, confidence)


def retrieval_loss(
    shown_scores: tf.Tensor,
    stages: tf.Tensor,
    negative_scores: tf.Tensor,
    negative_mask: tf.Tensor,
    temperature: float | tf.Tensor = 1 / 30,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    row_reduction: str = "sum",
    confidence: tf.Tensor | None = None,
    smoothing: LabelSmoothing | None = None,
    log_probability: tf.Tensor | None = None,
    teacher_scores: tf.Tensor | None = None,
    unclicked_negatives: bool = False,
) -> tf.Tensor:
    """L = mean over rows of  sum_p w_p -log( exp(s_p / tau) / (exp(s_p / tau) + sum_n exp(s_n / tau)) ),  p clicked, carted or ordered.

    Global comparison: the negatives n are random and in-batch items. The other positives of the row are not in the denominator, and
    unclicked items are left out: they were good enough to be shown.

    Source: MMSE, retrieval loss (reconstructed); tau of the same team's EMNLP 2023 paper.

    Args:
        shown_scores: float [batch, shown].
        stages: int [batch, shown], the number of each item's `Stage`; -1 for padding and what is to be left out.
        negative_scores: float [batch, candidates].
        negative_mask: bool [batch, candidates], True for negatives; all known positives of the row must be False.
        temperature: tau, in units of the score.
        weights: w of CLICKED, CARTED and ORDERED, at least 0.
        row_reduction: "sum" or "mean" over a row's positives, as in `graded_infonce`.
        confidence: float [batch, shown], multiplies the term of each positive, and is no part of a mean's weights.
        smoothing: of the target distributions, each over one positive and the negatives.
        log_probability: float [shown + candidates] or [batch, shown + candidates], for `smoothing`.
        teacher_scores: float [batch, shown + candidates], for `smoothing`.
        unclicked_negatives: the row's unclicked items are in the denominators after all, as negatives like the others.

    Returns:
        A scalar, float32 at least; rows without positives or without negatives count as 0. Finite for every mask, in value and gradient.

    Raises:
        ConfigError: an argument has another shape or dtype, or is out of its range.
    """
    check_numbers("weights", weights, 3, "[0, inf)")
    check_tensors(
        shown_scores=(shown_scores, "float [batch, shown]"),
        stages=(stages, "int [batch, shown]"),
        negative_scores=(negative_scores, "float [batch, candidates]"),
        negative_mask=(negative_mask, "bool [batch, candidates]"),
        confidence=(confidence, "float [batch, shown]"),
        log_probability=(log_probability, "float [shown + candidates] or [batch, shown + candidates]"),
        teacher_scores=(teacher_scores, "float [batch, shown + candidates]"),
    )
    scores = tf.concat([shown_scores, negative_scores], axis=1)
    below = stages >= int(Stage.UNCLICKED) if unclicked_negatives else tf.zeros_like(stages, tf.bool)
    of_shown = tf.where(stages >= int(Stage.CLICKED), 1, tf.where(below, 0, -1))
    levels = tf.concat([of_shown, tf.where(negative_mask, 0, -1)], axis=1)
    # Negatives' terms do not exist, whatever their factor.
    padding = [[0, 0], [0, tf.shape(negative_scores)[1]]]
    of_stage = tf.pad(tf.gather(tf.constant([0.0, *weights]), tf.maximum(stages, 0)), padding)
    sure = None if confidence is None else tf.pad(confidence, padding)
    return graded_infonce(scores, levels, 2, temperature, 1, of_stage, row_reduction, sure, smoothing, log_probability, teacher_scores)


def ranking_loss(
    shown_scores: tf.Tensor,
    stages: tf.Tensor,
    form: str = "hinge",
    margin: float | Sequence[float] | tf.Tensor = 0.1,
    temperature: float | tf.Tensor = 1 / 30,
    confidence: tf.Tensor | None = None,
) -> tf.Tensor:
    """L = mean over rows of the mean over pairs (a, b) of one request, stage(a) > stage(b), of the pair's loss.

    Local comparison. The pair's loss is max(0, delta - s_a + s_b) as "hinge" or log(1 + exp((s_b - s_a) / tau)) as "logistic". "listwise"
    is the mean over items a of -log( exp(s_a / tau) / (exp(s_a / tau) + sum_b exp(s_b / tau)) ), b all shown items of earlier stages.

    Source: MMSE, ranking loss (reconstructed).

    Args:
        shown_scores: float [batch, shown].
        stages: int [batch, shown], the number of each item's `Stage`; -1 for padding and what is to be left out.
        form: "hinge", "logistic" or "listwise".
        margin: delta of the hinge, in units of the score: one number for every pair; or three for the steps from UNCLICKED to CLICKED, to
            CARTED, to ORDERED, of which a pair's margin is the sum; or a tensor [batch, shown, shown] of pairs (a, b).
        temperature: tau of the other two, in units of the score.
        confidence: float [batch, shown], multiplies a's terms, and is no part of the mean's weights.

    Returns:
        A scalar, float32 at least; rows without pairs count as 0. Finite for every mask, in value and gradient.

    Raises:
        ConfigError: an argument has another shape or dtype, or is out of its range.
    """
    check_choice("form", form, FORMS)
    check_margin(margin)
    check_scalar("temperature", temperature, "(0, inf)")
    check_tensors(
        shown_scores=(shown_scores, "float [batch, shown]"),
        stages=(stages, "int [batch, shown]"),
        margin=(margin if is_tensor(margin) and not is_scalar(margin) else None, "float [batch, shown, shown]"),
        confidence=(confidence, "float [batch, shown]"),
    )
    if form == "listwise":
        return graded_infonce(shown_scores, stages, len(Stage), temperature, int(Stage.CLICKED), None, "mean", confidence)
    later, earlier = stages[:, :, None], stages[:, None, :]
    mask = (later > earlier) & (earlier >= int(Stage.UNCLICKED))
    scores = at_least_float32(shown_scores) if form == "hinge" else to_logits(shown_scores, temperature)
    # Selected before the loss is taken of them: padding may have infinite scores, and infinity - infinity has no slope.
    gaps = tf.where(mask, scores[:, None, :] - scores[:, :, None], 0.0)
    if form == "hinge":
        pairs = gaps + _margins(stages, margin, scores.dtype)
        # Not relu, which on some devices makes 0 of NaN and so hides from training that its weights are lost.
        pairs = tf.where(pairs <= 0, 0.0, pairs)
    else:
        pairs = tf.math.softplus(gaps)
    believed = tf.ones_like(scores) if confidence is None else tf.cast(confidence, scores.dtype)
    pairs = tf.where(mask, pairs * believed[:, :, None], 0.0)
    count = tf.math.count_nonzero(mask, axis=[1, 2], dtype=pairs.dtype)
    return tf.reduce_mean(tf.math.divide_no_nan(tf.reduce_sum(pairs, axis=[1, 2]), count))


def check_margin(margin: float | Sequence[float] | tf.Tensor) -> None:
    """Raises ConfigError unless a margin is one number of at least 0, three for the steps between stages, or a tensor."""
    if is_tensor(margin):
        if is_scalar(margin):
            check_scalar("margin", margin, "[0, inf)")
        return
    steps = list(margin) if isinstance(margin, Sequence) else [margin]
    fits = len(steps) == (3 if isinstance(margin, Sequence) else 1) and all(is_number(step, "[0, inf)") for step in steps)
    require(fits, "margin", "one finite number of at least 0, or three for the steps between stages", margin)


def _margins(stages: tf.Tensor, margin: float | Sequence[float] | tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Of every pair (a, b), broadcast to [batch, shown, shown]."""
    if not isinstance(margin, Sequence):
        return tf.cast(margin, dtype)
    ladder = tf.math.cumsum(tf.constant([0.0, *margin], dtype))
    height = tf.gather(ladder, tf.maximum(stages, 0))
    return height[:, :, None] - height[:, None, :]
