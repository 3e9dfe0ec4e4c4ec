"""Vectors that an index keeps to compute full scores of, as float32 or as int8 with a scale for each."""

import numpy as np
import tensorflow as tf

_ROWS_AT_ONCE = 2**16


class StoredVectors(tf.Module):
    """A table of vectors in a variable: a SavedModel restores it straight into its place.

    As int8 each vector has a scale of its own, its largest number / 127, and scores are right to about 0.5 %.

    Args:
        vectors: [items, dim] float32.
        kind: "float32" or "int8".
        order: int [items], which row of `vectors` stands at each place; all in their own places when not given.
    """

    def __init__(self, vectors: np.ndarray, kind: str, order: np.ndarray | None = None):
        super().__init__(name="stored")
        self._scales: tf.Variable | None = None
        if kind == "float32":
            kept = vectors if order is None else vectors[order]
        else:
            kept, scales = np.empty(vectors.shape, np.int8), np.empty(len(vectors), np.float32)
            for start in range(0, len(vectors), _ROWS_AT_ONCE):
                places = slice(start, start + _ROWS_AT_ONCE)
                part = vectors[places if order is None else order[places]]
                scale = np.maximum(np.abs(part).max(axis=1), np.finfo(np.float32).tiny * 127) / 127
                scales[places], kept[places] = scale, np.rint(part / scale[:, None])
            self._scales = tf.Variable(scales, trainable=False, name="scales")
        self._vectors = tf.Variable(kept, trainable=False, name="vectors")

    def take(self, places: tf.Tensor) -> tf.Tensor:
        """float32 [..., dim] vectors at int32 [...] places; of int8 ones, what they stand for."""
        vectors = tf.cast(tf.gather(self._vectors, places), tf.float32)
        return vectors if self._scales is None else vectors * tf.gather(self._scales, places)[..., None]

    def scores(self, queries: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """float32 [..., heads, n] dot products of [..., heads, dim] queries with the vectors at int32 [..., n] places of their own."""
        scores = tf.matmul(queries, tf.cast(tf.gather(self._vectors, places), tf.float32), transpose_b=True)
        # Scaled after the product, which is one number a vector in place of dim.
        return scores if self._scales is None else scores * tf.gather(self._scales, places)[..., None, :]
