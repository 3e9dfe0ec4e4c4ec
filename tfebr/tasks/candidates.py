"""Candidates of a training step and where they come from: in-batch items and shared uniform negatives."""

from typing import NamedTuple

import tensorflow as tf

from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.shapes import check_tensors


class Candidates(NamedTuple):
    """What the positives and negatives of a batch are drawn from. The first `batch` candidates are the batch's own positives, in order.

    Attributes:
        embeddings: float [candidates, dim].
        rows: [candidates], item rows (0 is "no item") or other ids; None when not known.
        log_probability: float [candidates], the log of the expected number of draws of the item into this pool; None when not known.
    """

    embeddings: tf.Tensor
    rows: tf.Tensor | None
    log_probability: tf.Tensor | None = None

    def described(self, name: str, shape: str = "[candidates]") -> dict[str, tuple[tf.Tensor | None, str]]:
        """The fields with their shapes, for `check_tensors`; `shape` is that of the rows."""
        return {
            f"{name}.embeddings": (self.embeddings, f"float {shape[:-1]}, dim]"),
            f"{name}.rows": (self.rows, f"id {shape}"),
            f"{name}.log_probability": (self.log_probability, f"float {shape}"),
        }

    def arguments(self) -> dict[str, tf.Tensor | None]:
        """The pool as the keyword arguments of a TFRS task."""
        draws = None if self.log_probability is None else tf.exp(self.log_probability)
        return {"candidate_embeddings": self.embeddings, "candidate_ids": self.rows, "candidate_sampling_probability": draws}


def random_negatives_for(alpha: float, batch_size: int) -> int:
    """How many shared uniform negatives make `alpha` the share of random ones among all negatives of a row.

    alpha = R / (R + batch - 1). Source: DPSR, mixing ratio of N_rand and N_batch. alpha = 1 leaves in-batch negatives out and takes
    as many random ones as the batch has rows.

    Raises:
        ConfigError: an argument is out of its range.
    """
    check_number("alpha", alpha, "[0, 1]")
    check_number("batch_size", batch_size, "[1, inf)", whole=True)
    if alpha == 1:
        return batch_size
    return round(alpha / (1 - alpha) * (batch_size - 1))


def uniform_rows(count: int, items: int, seed: tf.Tensor) -> tf.Tensor:
    """int32 [count] item rows in [1, items], uniformly with replacement. Source: DPSR, N_rand shared by the batch.

    Args:
        count: how many, at least 0.
        items: number of items.
        seed: int [2].

    Raises:
        ConfigError: an argument has another shape or dtype, or is out of its range.
    """
    check_number("count", count, "[0, inf)", whole=True)
    check_number("items", items, "[1, inf)", whole=True)
    check_tensors(seed=(seed, "int [2]"))
    return tf.random.stateless_uniform([count], seed, 1, items + 1, tf.int32)


def negative_mask(candidate_rows: tf.Tensor, known_positives: tf.Tensor) -> tf.Tensor:
    """bool [batch, candidates]: True where a candidate is an item and not among the row's known positives (accidental hits).

    Args:
        candidate_rows: int or string [candidates]; 0 or "" is no item.
        known_positives: of the same dtype, [batch, n], padded with 0 or "".

    Raises:
        ConfigError: an argument has another shape or dtype.
    """
    check_tensors(candidate_rows=(candidate_rows, "id [candidates]"), known_positives=(known_positives, "id [batch, n]"))
    nothing = tf.zeros([], candidate_rows.dtype)
    # Most of the padded list is padding: only what is there is compared.
    present = tf.where(known_positives != nothing)
    hits = tf.where(tf.gather_nd(known_positives, present)[:, None] == candidate_rows[None, :])
    masked = tf.stack([tf.gather(present[:, 0], hits[:, 0]), hits[:, 1]], axis=1)
    mask = tf.tile((candidate_rows != nothing)[None, :], [tf.shape(known_positives)[0], 1])
    return tf.tensor_scatter_nd_update(mask, masked, tf.zeros(tf.shape(masked)[:1], tf.bool))
