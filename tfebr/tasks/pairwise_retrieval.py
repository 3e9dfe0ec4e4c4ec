"""DPSR's objective as a TFRS task: soft attention over heads, hinge loss over mixed negatives."""

import tensorflow as tf

from tfebr.infrastructure.checks import check_choice, check_number
from tfebr.infrastructure.shapes import check_tensors
from tfebr.losses.pairwise_hinge import REDUCTIONS, pairwise_hinge
from tfebr.tasks.candidates import Candidates
from tfebr.tasks.retrieval_task import RetrievalTask
from tfebr.tasks.scoring import soft_attention_scores


class PairwiseRetrieval(RetrievalTask):
    """Every positive against every negative of the pool, with known positives masked.

    Args:
        margin: delta of the hinge.
        beta: temperature of the attention over query heads.
        in_batch: other rows' positives are negatives; False leaves the shared random ones alone.
        reduction: as in `pairwise_hinge`.
        stop_weights: no gradient through the attention weights.

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_number("margin", margin, "[0, inf)")
        check_number("beta", beta, "(0, inf)")
        check_choice("reduction", reduction, REDUCTIONS)
        self.margin, self.beta, self.in_batch = margin, beta, in_batch
        self.reduction, self.stop_weights = reduction, stop_weights

    def score(self, queries: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Float [batch, candidates]: soft attention over the heads."""
        return soft_attention_scores(queries, items, self.beta, self.stop_weights)

    def compute_loss(  # type: ignore[override]  # more keywords than any task has
        self,
        queries: tf.Tensor,
        pool: Candidates,
        scores: tf.Tensor,
        mask: tf.Tensor,
        sample_weight: tf.Tensor | None,
        *,
        negative_weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The hinge over all pairs.

        Args:
            queries, pool, scores, mask, sample_weight: as `RetrievalTask.compute_loss` has them.
            negative_weights: float [batch, candidates], of each negative: labelled ones ("human supervision") may weigh more or less than
                those of the pool. All 1 by default.

        Raises:
            ConfigError: the weights have another shape or dtype.
        """
        check_tensors(scores=(scores, "float [batch, candidates]"), negative_weights=(negative_weights, "float [batch, candidates]"))
        positive_scores = tf.linalg.diag_part(scores[:, : tf.shape(scores)[0]])
        return pairwise_hinge(scores, positive_scores, mask, self.margin, negative_weights, self.reduction, sample_weight)
