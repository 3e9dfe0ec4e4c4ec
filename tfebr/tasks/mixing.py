"""Hard negatives mixed with the positive, in score space."""

import tensorflow as tf

from tfebr.infrastructure.checks import check_number, require
from tfebr.infrastructure.shapes import check_tensors


def mixed_negatives(
    scores: tf.Tensor, positive_scores: tf.Tensor, mask: tf.Tensor, hard: int, low: float, high: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores of I_mix = alpha i+ + (1 - alpha) I_hard, alpha ~ U(low, high), I_hard the `hard` negatives of the row with the largest score.

    The score is an inner product, so <q, I_mix> = alpha <q, i+> + (1 - alpha) <q, I_hard>: no mixed embedding is built, and value and
    gradients are those of the mixed embeddings. What is mixed are the embeddings as they are scored: where items are normalised to length
    1, the mix is of normalised vectors and is itself a little shorter than 1.

    Source: MGDSPR, relevance-improving hard negatives. One alpha per row and hard negative. Reconstructed: negatives are masked before the
    hardest are taken, and gradients flow through both i+ and I_hard; where they should not, give scores of stopped embeddings.

    Args:
        scores: float [batch, candidates], inner products.
        positive_scores: float [batch], inner products.
        mask: bool [batch, candidates], True for negatives.
        hard: N, how many; all negatives of rows that have fewer. Those that tie with the N-th, such as its copies in the pool, count too.
        low: a, at least 0.
        high: b, at most 1.
        seed: int [2].

    Returns:
        Mixed scores, float [batch, candidates], each of the candidate in its column, and bool [batch, candidates], True for the hardest;
        other columns of the scores mean nothing.

    Raises:
        ConfigError: an argument has another shape or dtype, or is out of its range.
    """
    check_number("hard", hard, "[1, inf)", whole=True)
    check_number("low", low, "[0, 1]")
    check_number("high", high, "[0, 1]")
    require(low < high, "low", f"below `high` = {high}", low)
    check_tensors(
        scores=(scores, "float [batch, candidates]"),
        positive_scores=(positive_scores, "float [batch]"),
        mask=(mask, "bool [batch, candidates]"),
        seed=(seed, "int [2]"),
    )
    alpha = tf.random.stateless_uniform(tf.shape(scores), seed, low, high, scores.dtype)
    # Every column is mixed and most of them used: a gather of the hardest, and the scatter of its gradient, would take longer.
    return alpha * positive_scores[:, None] + (1.0 - alpha) * scores, _hardest(scores, mask, hard)


def _hardest(scores: tf.Tensor, mask: tf.Tensor, hard: int) -> tf.Tensor:
    """bool [batch, candidates]: the `hard` largest of each row where the mask is True."""
    keys = tf.where(mask, tf.stop_gradient(scores), -float("inf"))
    # Selection needs an order. A lost score counts as the hardest, so that it stays visible in the loss.
    keys = tf.where(tf.math.is_nan(keys), float("inf"), keys)
    # Only the N-th value is needed, not the order of those above it: linear, where top_k sorts.
    last = tf.minimum(hard, tf.shape(scores)[1]) - 1
    threshold = tf.raw_ops.NthElement(input=keys, n=last, reverse=True)
    return mask & (keys >= threshold[:, None])
