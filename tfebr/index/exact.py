"""Exact search by matrix product, with core TensorFlow operations only."""

import numpy as np
import tensorflow as tf

from tfebr.index import base

# Scores held at one time: 64 MB of float32, whatever the catalogue's size.
_SCORES_AT_ONCE = 16 * 2**20
_SMALLEST_BLOCK = 1024


class ExactIndex(base.Index):
    """Scores every item; the results are the true ones.

    Args:
        item_embeddings: [items, dim] float32.

    Raises:
        DataError: the shape is another one, or a row is not finite or too long.
    """

    is_exact = True

    def __init__(self, item_embeddings: np.ndarray, name: str = "exact_index"):
        super().__init__(name=name)
        vectors = base.checked_embeddings(item_embeddings)
        self.items, self.dim = vectors.shape
        self._vectors = tf.Variable(vectors, trainable=False, name="vectors")

    def search(self, queries: tf.Tensor, k: int | tf.Tensor, leaves: int | tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Index.search`; items go by in blocks, so that memory does not grow with the catalogue."""
        queries, usable = base.usable_heads(queries)
        batch, heads = tf.shape(queries)[0], tf.shape(queries)[1]
        flat = tf.reshape(queries, [-1, self.dim])
        vectors = self._vectors.read_value()
        keep = tf.minimum(k, self.items)
        block = tf.clip_by_value(_SCORES_AT_ONCE // tf.maximum(batch * heads, 1), _SMALLEST_BLOCK, self.items + _SMALLEST_BLOCK)

        def scores_of(first: tf.Tensor) -> tf.Tensor:
            part = vectors[first : first + block]
            scores = tf.reshape(tf.matmul(flat, part, transpose_b=True), [batch, heads, tf.shape(part)[0]])
            return base.best_head(scores, usable)

        return base.finish(*base.best_in_blocks(scores_of, self.items, block, keep), k)

    def vectors(self, rows: tf.Tensor) -> tf.Tensor:
        """See `Index.vectors`."""
        return tf.gather(self._vectors, rows)
