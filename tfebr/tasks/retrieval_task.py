"""What all tasks share: the call of `tfrs.tasks.Retrieval`, its metrics, the mask of negatives, and vectors compared in float32."""

import abc
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfebr.errors import ConfigError
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.precision import at_least_float32
from tfebr.tasks.candidates import Candidates, negative_mask

# What is never drawn by its estimate is drawn all the same: its logarithm must be finite.
_LEAST_DRAWS = 1e-30


class RetrievalTask(tfrs.tasks.Retrieval, abc.ABC):
    """A `tfrs.tasks.Retrieval` with a loss of this library: it takes TFRS's place in a TFRS program.

    A subclass defines `compute_loss`, and `score` where a score is not the inner product with the one query vector.

    The loss is a mean over the batch, where TFRS's sums. A candidate that is a known positive of a row is no negative of that row: by
    `known_positives`, or, without them, by the id of the row's own positive (TFRS's `remove_accidental_hits`).

    Vectors are compared in float32, also under a global policy of mixed precision: rounded to bfloat16, a softmax over thousands of
    scores has hardly a digit left.

    Args:
        metrics: one or several `tfrs.metrics.Factorized`, such as `FactorizedTopK` over `tfebr.index.IndexTopK`; for one query vector.
        batch_metrics: Keras metrics of the positives' scores among the candidates'.
        loss_metrics: Keras metrics of the loss.
        name: of the layer.
    """

    in_batch = True

    def __init__(
        self,
        *,
        metrics: Sequence[tfrs.metrics.Factorized] | tfrs.metrics.Factorized | None = None,
        batch_metrics: list[tf.keras.metrics.Metric] | None = None,
        loss_metrics: list[tf.keras.metrics.Metric] | None = None,
        name: str | None = None,
    ):
        super().__init__(metrics=metrics, batch_metrics=batch_metrics, loss_metrics=loss_metrics, name=name)
        # TFRS hands no `dtype` on to Keras.
        self._set_dtype_policy("float32")

    def call(
        self,
        query_embeddings: tf.Tensor,
        candidate_embeddings: tf.Tensor,
        sample_weight: tf.Tensor | None = None,
        candidate_sampling_probability: tf.Tensor | None = None,
        candidate_ids: tf.Tensor | None = None,
        compute_metrics: bool = True,
        compute_batch_metrics: bool = True,
        score_mask: tf.Tensor | None = None,
        *,
        known_positives: tf.Tensor | None = None,
        training: bool | None = None,
        **more: Any,
    ) -> tf.Tensor:
        """The loss, a scalar; arguments before the star as TFRS takes them.

        Args:
            query_embeddings: float [batch, dim] or [batch, heads, dim].
            candidate_embeddings: float [candidates, dim]; candidate i < batch is the positive of row i, the others are negatives of all.
            sample_weight: float [batch], multiplies the loss of each row; the mean is still over all rows.
            candidate_sampling_probability: float [candidates], probability or expected number of draws into this pool.
            candidate_ids: int or string [candidates]. With `known_positives`, 0 or "" is no item.
            compute_metrics: whether to update `metrics`.
            compute_batch_metrics: whether to update `batch_metrics`.
            score_mask: bool [batch, candidates], False where a candidate is not to be considered for a row.
            known_positives: ids [batch, n] of all known positives of each row, its own among them, padded with 0 or "".
            training: Keras gives it to every layer; it makes no difference.
            **more: what the subclass's `compute_loss` takes.

        Raises:
            ConfigError: an argument has another shape or dtype, or the task takes one query vector and the tower has several.
        """
        check_tensors(
            query_embeddings=(query_embeddings, "float [batch, dim] or [batch, heads, dim]"),
            candidate_embeddings=(candidate_embeddings, "float [candidates, dim]"),
            sample_weight=(sample_weight, "float [batch]"),
            candidate_sampling_probability=(candidate_sampling_probability, "float [candidates]"),
            candidate_ids=(candidate_ids, "id [candidates]"),
            score_mask=(score_mask, "bool [batch, candidates]"),
            known_positives=(known_positives, "id [batch, n]"),
        )
        if known_positives is not None and candidate_ids is None:
            raise ConfigError("`candidate_ids` must be given with `known_positives`. Received: None.")
        queries, items = at_least_float32(query_embeddings), at_least_float32(candidate_embeddings)
        queries = queries[:, None] if queries.shape.rank == 2 else queries
        draws = candidate_sampling_probability
        logs = None if draws is None else tf.math.log(tf.maximum(tf.cast(draws, items.dtype), _LEAST_DRAWS))
        pool = Candidates(items, candidate_ids, logs)
        scores = self.score(queries, items)
        mask = self._negatives(tf.shape(scores), candidate_ids, known_positives)
        if score_mask is not None:
            mask &= score_mask
        loss = self.compute_loss(queries, pool, scores, mask, sample_weight, **more)
        updates = self._update_metrics(queries, pool, scores, mask, loss, sample_weight, compute_metrics, compute_batch_metrics)
        with tf.control_dependencies(updates):
            return tf.identity(loss)

    def score(self, queries: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Float [batch, candidates] of queries [batch, heads, dim] and items [candidates, dim]: the inner product with the one head."""
        if queries.shape[1] != 1:
            raise ConfigError(
                f"`query_embeddings` must be [batch, dim] or [batch, 1, dim]: {type(self).__name__} is for towers with one head. Received: "
                f"shape {queries.shape}. Set the tower's heads to 1, or use PairwiseRetrieval."
            )
        return tf.matmul(queries[:, 0], items, transpose_b=True)

    @abc.abstractmethod
    def compute_loss(
        self,
        queries: tf.Tensor,
        pool: Candidates,
        scores: tf.Tensor,
        mask: tf.Tensor,
        sample_weight: tf.Tensor | None,
        **more: Any,
    ) -> tf.Tensor:
        """The loss, a scalar.

        Args:
            queries: float [batch, heads, dim].
            pool: the candidates; candidate i < batch is the positive of row i. Ids and probabilities may be None.
            scores: float [batch, candidates], by `score`.
            mask: bool [batch, candidates], True for negatives.
            sample_weight: float [batch] or None.
            **more: keyword arguments of the call that TFRS does not know.
        """

    def _negatives(self, shape: tf.Tensor, ids: tf.Tensor | None, known_positives: tf.Tensor | None) -> tf.Tensor:
        if known_positives is not None:
            mask = negative_mask(ids, known_positives)
        elif ids is not None:
            mask = ids[None, :] != ids[: shape[0], None]
        else:
            mask = ~tf.eye(shape[0], shape[1], dtype=tf.bool)
        return mask if self.in_batch else mask & (tf.range(shape[1]) >= shape[0])[None, :]

    def _update_metrics(
        self,
        queries: tf.Tensor,
        pool: Candidates,
        scores: tf.Tensor,
        mask: tf.Tensor,
        loss: tf.Tensor,
        sample_weight: tf.Tensor | None,
        compute_metrics: bool,
        compute_batch_metrics: bool,
    ) -> list[tf.Operation]:
        """As TFRS does; a candidate that is neither the positive nor a negative of a row has the lowest score there."""
        batch, updates = tf.shape(queries)[0], [metric.update_state(loss) for metric in self._loss_metrics]
        if compute_metrics and queries.shape[1] == 1:
            for metric in self.factorized_metrics:
                true_ids = None if pool.rows is None else pool.rows[:batch]
                true = pool.embeddings[:batch]
                updates.append(metric.update_state(queries[:, 0], true, true_candidate_ids=true_ids, sample_weight=sample_weight))
        if compute_batch_metrics and self._batch_metrics:
            labels = tf.eye(batch, tf.shape(scores)[1], dtype=scores.dtype)
            considered = tf.where(mask | (labels > 0), scores, scores.dtype.min / 100)
            updates += [metric.update_state(labels, considered, sample_weight=sample_weight) for metric in self._batch_metrics]
        return updates
