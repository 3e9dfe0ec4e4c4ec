"""What every index is: a module that finds, for queries with one or several heads, the items with the highest dot products."""

import abc
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfebr.errors import DataError
from tfebr.index.recipe import Recipe

# The score of a place without a result. Finite, because JSON has no infinity, and below every real score.
NO_SCORE = float(tf.float32.min)
# Numbers between 2^-32 and 2^32 have squares, and sums of squares over millions of vectors, in the middle of float32's range.
_ORDINARY = 32


class Index(tf.Module, abc.ABC):
    """Finds items by dot product; a tf.Module that is saved inside a SavedModel.

    Attributes:
        items: number of items.
        dim: width of the embeddings.
        is_exact: whether every result is the true one.
        recipe: how it is built and searched; None for an index that has nothing to choose.
    """

    items: int
    dim: int
    is_exact: bool
    recipe: Recipe | None = None

    @abc.abstractmethod
    def search(self, queries: tf.Tensor, k: int | tf.Tensor, leaves: int | tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds the k best items of each query.

        An item's score is the highest dot product with any of the query's heads. A head that holds NaN or infinity is ignored.

        Args:
            queries: [batch, heads, dim] float32.
            k: how many results; a Python integer or a scalar int32 tensor. It may exceed the number of items.
            leaves: how many partitions to look into for each head, an integer or a scalar int32 tensor, taken as the nearest number from 1
                to all; the recipe's when not given. An index without partitions ignores it.

        Returns:
            scores: [batch, k] float32, best first, finite; `NO_SCORE` where there are fewer than k results.
            rows: [batch, k] int32 rows of the items, each at most once; -1 where there are fewer than k results.
        """

    def effort(self, k: tf.Tensor, leaves: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What a search's results depend on: at equal effort the same items are found in the same order, a larger k only goes further.

        Args:
            k: int32 [batch], how many results.
            leaves: int32 [batch], partitions to look into; 0 or less stands for the recipe's.

        Returns:
            Two int32 [batch]: the depth of the search, and the partitions that it looks into, as `search` takes them.
        """
        if self.recipe is None:
            return tf.zeros_like(k), tf.zeros_like(leaves)
        wanted = tf.where(leaves > 0, leaves, self.recipe.leaves_to_search)
        return k, tf.clip_by_value(wanted, 1, max(self.recipe.leaves, 1))

    @abc.abstractmethod
    def vectors(self, rows: tf.Tensor) -> tf.Tensor:
        """The embeddings that `search` scores: integer rows of any shape to [..., dim] float32."""


def checked_embeddings(embeddings: np.ndarray) -> np.ndarray:
    """[items, dim] float32 in row-major order.

    Raises:
        DataError: another rank, no items, or a row that holds NaN or infinity or whose squared norm is beyond float32, naming the row.
    """
    with np.errstate(over="ignore"):
        embeddings = np.ascontiguousarray(embeddings, np.float32)
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise DataError(f"`item_embeddings` must have shape [items, dim] with at least one item. Received shape {list(embeddings.shape)}.")
    row = first_unusable(embeddings)
    if row is not None:
        raise DataError(
            f"`item_embeddings` row {row} {what_is_wrong(embeddings[row])}. The model has diverged, or a feature of this item is not "
            "finite: train with a smaller learning rate."
        )
    return embeddings


def first_unusable(vectors: np.ndarray) -> int | None:
    """The first of float32 [n, dim] vectors whose squared norm is not finite, or None; without a copy of them."""
    with np.errstate(over="ignore", invalid="ignore"):
        bad = ~np.isfinite(np.einsum("nd,nd->n", vectors, vectors))
    return int(np.argmax(bad)) if bad.any() else None


def what_is_wrong(vector: np.ndarray) -> str:
    """Why `first_unusable` found this vector, to be said of it."""
    if not np.isfinite(vector).all():
        return "holds NaN or infinity"
    return f"holds numbers up to {np.abs(vector).max():.3g}, so that its squared norm is beyond float32"


def at_ordinary_scale(vectors: np.ndarray) -> np.ndarray:
    """Vectors whose squares and distances neither overflow nor vanish, for training partitions and codes.

    Where the largest number is below 2^-32 or above 2^32, all are multiplied by one power of two, which changes the order of no dot
    products; else they are `vectors` themselves.
    """
    exponent = int(np.frexp(max(vectors.max(), -vectors.min()))[1])
    return vectors if abs(exponent) <= _ORDINARY else np.ldexp(vectors, -exponent)


def usable_heads(queries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The queries with unusable heads replaced by zeros, and [batch, heads] which are usable (all finite)."""
    usable = tf.reduce_all(tf.math.is_finite(queries), axis=-1)
    return tf.where(usable[..., None], queries, 0.0), usable


def best_head(scores: tf.Tensor, usable: tf.Tensor) -> tf.Tensor:
    """[batch, heads, items] scores to the best usable head's, [batch, items]; -inf where no head is usable."""
    return tf.reduce_max(tf.where(usable[..., None], within_range(scores), -np.inf), axis=1)


def best_in_blocks(
    scores_of: Callable[[tf.Tensor], tf.Tensor], total: int | tf.Tensor, block: int | tf.Tensor, keep: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best of many items without holding all their scores at once.

    Args:
        scores_of: maps the place of a block's first item to the block's scores, [batch, at most block].
        total: number of items.
        block: items that go by at one time.
        keep: how many to keep, at most `total`.

    Returns:
        [batch, keep] scores, best first, and the places of their items.
    """

    def best_of(first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scores = scores_of(first)
        scores, places = tf.math.top_k(scores, tf.minimum(keep, tf.shape(scores)[1]))
        return scores, places + first

    def merge(first: tf.Tensor, scores: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        more_scores, more_places = best_of(first)
        scores, places = tf.concat([scores, more_scores], 1), tf.concat([places, more_places], 1)
        scores, kept = tf.math.top_k(scores, tf.minimum(keep, tf.shape(scores)[1]))
        return first + block, scores, tf.gather(places, kept, batch_dims=1)

    _, scores, places = tf.while_loop(
        lambda first, *_: first < total,
        merge,
        (tf.convert_to_tensor(block), *best_of(tf.constant(0))),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None])),
        parallel_iterations=1,
    )
    return scores, places


def within_range(scores: tf.Tensor) -> tf.Tensor:
    """Scores that overflowed, pulled back to finite ones above `NO_SCORE`."""
    limit = 0.999 * float(tf.float32.max)
    return tf.clip_by_value(tf.where(tf.math.is_nan(scores), -limit, scores), -limit, limit)


def finish(scores: tf.Tensor, rows: tf.Tensor, k: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Marks places of score -inf as empty and pads [batch, found] to [batch, k], found being at most k."""
    present = scores > -np.inf
    missing = [[0, 0], [0, k - tf.shape(scores)[1]]]
    scores = tf.pad(tf.where(present, scores, NO_SCORE), missing, constant_values=NO_SCORE)
    rows = tf.pad(tf.where(present, tf.cast(rows, tf.int32), -1), missing, constant_values=-1)
    static_k = tf.get_static_value(k)
    return tf.ensure_shape(scores, [None, static_k]), tf.ensure_shape(rows, [None, static_k])
