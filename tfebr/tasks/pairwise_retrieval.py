"""DPSR's objective as a TFRS task: soft attention over heads, hinge loss over mixed negatives."""

import tensorflow as tf

from tfebr.checks import check_choice, check_number, require
from tfebr.layers.precision import at_least_float32
from tfebr.losses.pairwise_hinge import REDUCTIONS, pairwise_hinge
from tfebr.shapes import check_tensors
from tfebr.tasks.candidates import Candidates, negative_mask
from tfebr.tasks.full_precision import FullPrecisionRetrieval
from tfebr.tasks.scoring import soft_attention_scores


class PairwiseRetrieval(FullPrecisionRetrieval):
    """Every positive against every negative of the pool, with known positives masked.

    Args:
        margin: delta of the hinge.
        beta: temperature of the attention over query heads.
        in_batch: other rows' positives are negatives; False leaves the shared random ones alone.
        reduction: as in `pairwise_hinge`.
        stop_weights: no gradient through the attention weights.
        explicit_weight: weight of explicit negatives ("human supervision"), relative to the pool's.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(
        self,
        margin: float,
        beta: float,
        in_batch: bool = True,
        reduction: str = "sum",
        stop_weights: bool = False,
        explicit_weight: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_number("margin", margin, "[0, inf)")
        check_number("beta", beta, "(0, inf)")
        check_choice("reduction", reduction, REDUCTIONS)
        check_number("explicit_weight", explicit_weight, "[0, inf)")
        self.margin, self.beta, self.in_batch = margin, beta, in_batch
        self.reduction, self.stop_weights, self.explicit_weight = reduction, stop_weights, explicit_weight

    def call(
        self,
        query_embeddings: tf.Tensor,
        candidates: Candidates,
        known_positives: tf.Tensor,
        explicit_negatives: Candidates | None = None,
        explicit_mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The loss, a scalar.

        Args:
            query_embeddings: float [batch, heads, dim].
            candidates: the pool; candidate i < batch is the positive of row i.
            known_positives: int32 [batch, n], all known positive rows of each row, its drawn one among them, padded with 0.
            explicit_negatives: candidates that are negatives of particular rows only.
            explicit_mask: bool [batch, explicit], which explicit negative belongs to which row.

        Raises:
            ConfigError: an argument has another shape or dtype.
        """
        check_tensors(
            query_embeddings=(query_embeddings, "float [batch, heads, dim]"),
            **candidates.described("candidates"),
            known_positives=(known_positives, "int [batch, n]"),
            **({} if explicit_negatives is None else explicit_negatives.described("explicit_negatives", "[explicit]")),
            explicit_mask=(explicit_mask, "bool [batch, explicit]"),
        )
        require((explicit_negatives is None) == (explicit_mask is None), "explicit_mask", "given with `explicit_negatives`", explicit_mask)
        queries = at_least_float32(query_embeddings)
        batch = tf.shape(queries)[0]
        scores = soft_attention_scores(queries, at_least_float32(candidates.embeddings), self.beta, self.stop_weights)
        positive_scores = tf.linalg.diag_part(scores[:, :batch])
        mask = negative_mask(candidates.rows, known_positives)
        if not self.in_batch:
            mask &= (tf.range(tf.shape(scores)[1]) >= batch)[None, :]
        weights = None
        if explicit_negatives is not None:
            extra = soft_attention_scores(queries, at_least_float32(explicit_negatives.embeddings), self.beta, self.stop_weights)
            extra_mask = explicit_mask & negative_mask(explicit_negatives.rows, known_positives)
            weights = tf.concat([tf.ones_like(scores), tf.fill(tf.shape(extra), self.explicit_weight)], axis=1)
            scores, mask = tf.concat([scores, extra], axis=1), tf.concat([mask, extra_mask], axis=1)
        return pairwise_hinge(scores, positive_scores, mask, self.margin, weights, self.reduction)
