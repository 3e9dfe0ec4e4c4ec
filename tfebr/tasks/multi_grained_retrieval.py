"""MMSE's objective as a TFRS task: every stage of a request in a retrieval loss and a ranking loss, or in one graded loss."""

import functools
from collections.abc import Sequence

import tensorflow as tf

from tfebr.data.stage import Stage
from tfebr.errors import ConfigError
from tfebr.infrastructure.checks import check_choice, check_number, check_numbers, require
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.precision import at_least_float32
from tfebr.losses.adaptive import adaptive_margin, adaptive_softmax, adaptive_temperature, item_anchored
from tfebr.losses.graded_infonce import ROW_REDUCTIONS, graded_infonce
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.losses.multi_grained import FORMS, check_margin, multi_grained, ranking_loss
from tfebr.losses.sampled_softmax import sampled_softmax
from tfebr.tasks.candidates import Candidates
from tfebr.tasks.retrieval_task import RetrievalTask

OBJECTIVES = ("multi_grained", "graded")
UNCLICKED = ("left_out", "negatives")
# Random candidates have a level too, below that of unclicked items.
_LEVELS = len(Stage) + 1


class MultiGrainedRetrieval(RetrievalTask):
    """Compares a request's shown items with a pool (global) and with each other (local). For towers with one query vector.

    "multi_grained": L_retrieval + lambda L_ranking, see `tfebr.losses.multi_grained`. "graded": one `graded_infonce` over random (0),
    unclicked (1), clicked (2), carted (3) and ordered (4) items.

    Source: MMSE, of which the abstract alone is known: both losses are reconstructed. Graded: CroPS, H-InfoNCE. Adaptive: JD, EMNLP 2023.

    Args:
        objective: "multi_grained" or "graded".
        temperature: tau of the retrieval loss or of the graded loss, in units of the score.
        weights: of the terms of CLICKED, CARTED and ORDERED.
        row_reduction: "sum" or "mean" over a row's positives.
        ranking_weight: lambda; 0 leaves the ranking loss out.
        form, margin, ranking_temperature: of `ranking_loss`.
        unclicked_as: what unclicked items are in the retrieval loss: "left_out", or "negatives" beside the pool.
        lowest_positive: of the graded loss, the first level that has a term: 2 for clicked items, 1 for unclicked ones too.
        adaptive: None, or alpha > 0: every negative has a temperature, and every pair a margin, by how near its items are; `margin` is
            delta_0 then. Needs "multi_grained", a hinge, and unclicked items left out.
        anchor_weight: of the loss with the item as the anchor, where `adaptive` is set.
        smoothing: of the targets of both softmax losses.

    Raises:
        ConfigError: an argument is out of its range, or two do not go together.
    """

    def __init__(
        self,
        objective: str = "multi_grained",
        temperature: float = 1 / 30,
        weights: Sequence[float] = (1.0, 1.0, 1.0),
        row_reduction: str = "mean",
        ranking_weight: float = 0.1,
        form: str = "hinge",
        margin: float | Sequence[float] = 0.1,
        ranking_temperature: float = 1 / 30,
        unclicked_as: str = "left_out",
        lowest_positive: int = 2,
        adaptive: float | None = None,
        anchor_weight: float = 0.05,
        smoothing: LabelSmoothing | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        choices = {"objective": (objective, OBJECTIVES), "row_reduction": (row_reduction, ROW_REDUCTIONS), "form": (form, FORMS)}
        for name, (given, known) in (choices | {"unclicked_as": (unclicked_as, UNCLICKED)}).items():
            check_choice(name, given, known)
        for name, scale in (("temperature", temperature), ("ranking_temperature", ranking_temperature)):
            check_number(name, scale, "(0, inf)")
        for name, weight in (("ranking_weight", ranking_weight), ("anchor_weight", anchor_weight)):
            check_number(name, weight, "[0, inf)")
        check_numbers("weights", weights, 3, "[0, inf)")
        check_margin(margin)
        check_number("lowest_positive", lowest_positive, "[1, 2]", whole=True)
        if adaptive is not None:
            check_number("adaptive", adaptive, "(0, inf)")
        plain = objective == "multi_grained" and form == "hinge" and not isinstance(margin, Sequence) and unclicked_as == "left_out"
        if adaptive is not None and not plain:
            raise ConfigError("`adaptive` needs `objective` = multi_grained, `form` = hinge, one `margin` and `unclicked_as` = left_out.")
        if adaptive is not None and smoothing is not None and smoothing.total:
            raise ConfigError("`adaptive` and `smoothing` do not go together. Leave one of them out.")
        self.objective, self.temperature, self.stage_weights, self.row_reduction = objective, temperature, tuple(weights), row_reduction
        self.ranking_weight, self.form, self.margin, self.ranking_temperature = ranking_weight, form, margin, ranking_temperature
        self.unclicked_as, self.lowest_positive = unclicked_as, lowest_positive
        self.adaptive, self.anchor_weight = adaptive, anchor_weight
        # Targets without a share for anything else are the plain loss, which needs less memory.
        self.smoothing = smoothing if smoothing is not None and smoothing.total else None

    def compute_loss(  # type: ignore[override]  # more keywords than any task has
        self,
        queries: tf.Tensor,
        pool: Candidates,
        scores: tf.Tensor,
        mask: tf.Tensor,
        sample_weight: tf.Tensor | None,
        *,
        shown: Candidates | None = None,
        stages: tf.Tensor | None = None,
        confidence: tf.Tensor | None = None,
        teacher_scores: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The objective.

        Args:
            queries, pool, scores, mask, sample_weight: as `RetrievalTask.compute_loss` has them. In the call, `known_positives` are all
                items that a request was shown: none of them is a random negative.
            shown: each request's own items: embeddings [batch, n, dim], rows and, for sampling's smoothing, log_probability [batch, n].
                By default the row's positive alone, as clicked: what a plain TFRS program knows.
            stages: int32 [batch, n], -1 where there is no item; given with `shown`.
            confidence: float [batch, n], multiplies the terms of each shown item; no part of a mean's weights.
            teacher_scores: float [batch, n + candidates], of shown items and the pool, for bootstrapped smoothing.

        Raises:
            ConfigError: an argument has another shape or dtype.
        """
        require((shown is None) == (stages is None), "stages", "given with `shown`", stages)
        batch = tf.shape(scores)[0]
        if shown is None or stages is None:
            own = None if pool.log_probability is None else pool.log_probability[:batch, None]
            shown = Candidates(pool.embeddings[:batch, None], None if pool.rows is None else pool.rows[:batch, None], own)
            stages = tf.fill([batch, 1], int(Stage.CLICKED))
        check_tensors(
            scores=(scores, "float [batch, candidates]"),
            candidate_embeddings=(pool.embeddings, "float [candidates, dim]"),
            **shown.described("shown", "[batch, n]"),
            stages=(stages, "int [batch, n]"),
            confidence=(confidence, "float [batch, n]"),
            teacher_scores=(teacher_scores, "float [batch, n + candidates]"),
        )
        if sample_weight is not None:
            confidence = sample_weight[:, None] * (tf.ones(tf.shape(stages)) if confidence is None else confidence)
        shown = shown._replace(embeddings=at_least_float32(shown.embeddings))
        shown_scores = tf.linalg.matvec(shown.embeddings, queries[:, 0])
        if self.adaptive is not None and not isinstance(self.margin, Sequence):
            return self._adaptive(shown, stages, shown_scores, pool, scores, mask, confidence, self.adaptive, self.margin)
        log_probability = None
        if shown.log_probability is not None and pool.log_probability is not None:
            pooled = tf.tile(pool.log_probability[None], [tf.shape(scores)[0], 1])
            log_probability = tf.concat([shown.log_probability, pooled], axis=1)
        smooth = self.smoothing, log_probability, teacher_scores
        if self.objective == "multi_grained":
            ranking = self.ranking_weight, self.temperature, self.stage_weights, self.form, self.margin, self.ranking_temperature
            unclicked = self.unclicked_as == "negatives"
            return multi_grained(shown_scores, stages, scores, mask, *ranking, self.row_reduction, confidence, *smooth, unclicked)
        levels = tf.concat([tf.where(stages >= 0, stages + 1, -1), tf.where(mask, 0, -1)], axis=1)
        believed = None if confidence is None else tf.pad(confidence, [[0, 0], [0, tf.shape(scores)[1]]])
        graded = _LEVELS, self.temperature, self.lowest_positive, (1.0, 1.0, *self.stage_weights), self.row_reduction, believed
        return graded_infonce(tf.concat([shown_scores, scores], axis=1), levels, *graded, *smooth)

    def _adaptive(
        self,
        shown: Candidates,
        stages: tf.Tensor,
        shown_scores: tf.Tensor,
        pool: Candidates,
        scores: tf.Tensor,
        mask: tf.Tensor,
        confidence: tf.Tensor | None,
        alpha: float,
        margin: float,
    ) -> tf.Tensor:
        """Both losses with temperatures and margins of their own for each negative, and the loss with the items as anchors."""
        of_shown, of_pool = (tf.math.l2_normalize(tf.stop_gradient(c.embeddings), axis=-1) for c in (shown, pool))
        positives = tf.where(stages >= int(Stage.CLICKED))
        rows = positives[:, 0]
        factors = tf.gather(tf.constant([0.0, *self.stage_weights]), tf.gather_nd(stages, positives))
        batch = tf.shape(stages)[0]
        if self.row_reduction == "mean":
            factors = tf.math.divide_no_nan(factors, tf.gather(tf.math.unsorted_segment_sum(factors, rows, batch), rows))
        factors *= 1.0 if confidence is None else tf.gather_nd(confidence, positives)
        similarity = tf.matmul(tf.gather_nd(of_shown, positives), of_pool, transpose_b=True)
        temperatures = adaptive_temperature(similarity, self.temperature, alpha)
        # The mean over positives as the sum over them, a batch's mean at last; it has a value where there are none.
        factors *= tf.cast(tf.size(rows), tf.float32) / tf.cast(tf.maximum(batch, 1), tf.float32)
        given = tf.gather(scores, rows), tf.gather_nd(shown_scores, positives), tf.gather(mask, rows), temperatures, factors
        loss = tf.cond(tf.size(rows) > 0, lambda: adaptive_softmax(*given), lambda: 0.0)
        if self.ranking_weight:
            margins = adaptive_margin(tf.matmul(of_shown, of_shown, transpose_b=True), margin, alpha)
            loss += self.ranking_weight * ranking_loss(shown_scores, stages, "hinge", margins, confidence=confidence)
        plain = functools.partial(sampled_softmax, temperature=self.temperature)
        return loss + item_anchored(plain, scores, mask, self.anchor_weight)


def shown_and_pool_scores(queries: tf.Tensor, shown: tf.Tensor, pool: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Inner products of queries with each row's own items, and with a pool that all rows share.

    Args:
        queries: float [batch, dim].
        shown: float [batch, n, dim].
        pool: float [candidates, dim].

    Returns:
        Float [batch, n] and [batch, candidates].

    Raises:
        ConfigError: an argument has another shape or dtype.
    """
    check_tensors(queries=(queries, "float [batch, dim]"), shown=(shown, "float [batch, n, dim]"), pool=(pool, "float [candidates, dim]"))
    return tf.linalg.matvec(shown, queries), tf.matmul(queries, pool, transpose_b=True)
