"""Mean of the embeddings of a padded list of ids, or of several such lists with a table each."""

import tensorflow as tf

from tfebr.infrastructure.checks import check_number, require
from tfebr.infrastructure.shapes import check_tensors

# Standard deviation of an embedding's values at the start.
TABLE_SCALE = 0.05


class EmbeddingBag(tf.keras.layers.Layer):
    """Looks up ids and averages over the ids that are not 0; an empty list gives zeros.

    Args:
        size: ids are in [0, size); 0 is padding.
        dim: width of an embedding.

    Call: int32 ids [..., length] -> float [..., dim]. The gradient touches each distinct id once. The table and the sum are float32 under
    mixed precision, too: what leaves is rounded, and that once.

    Raises:
        ConfigError: a setting is not positive; when called, ids are no integers or have no length.
    """

    def __init__(self, size: int, dim: int, **kwargs):
        super().__init__(**kwargs)
        check_number("size", size, "[1, inf)", whole=True)
        check_number("dim", dim, "[1, inf)", whole=True)
        self.size, self.dim = size, dim

    def build(self, input_shape):
        start = tf.keras.initializers.RandomNormal(stddev=TABLE_SCALE)
        self.table = self.add_weight(name="table", shape=[self.size, self.dim], initializer=start, experimental_autocast=False)
        super().build(input_shape)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        total = self.total(ids)
        mean = tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(ids > 0, total.dtype), axis=-1, keepdims=True))
        return tf.cast(mean, self.compute_dtype)

    def total(self, ids: tf.Tensor) -> tf.Tensor:
        """The sum in place of the mean, and of the table's dtype."""
        check_tensors(ids=(ids, "int [..., length]"))
        if not self.built:
            self.build(ids.shape)
        if ids.shape[-1] == 1:
            found = tf.reshape(self._rows(tf.reshape(ids, [-1])), [*tf.unstack(tf.shape(ids)[:-1]), self.dim])
            return tf.ensure_shape(found, [*ids.shape[:-1], self.dim])
        shape = tf.shape(ids)
        rows = tf.reshape(ids, [tf.reduce_prod(shape[:-1]), shape[-1]])
        present = tf.where(rows > 0)
        distinct, position = tf.unique(tf.gather_nd(rows, present))
        embeddings = tf.gather(self.table, distinct)
        pooled = tf.sparse.segment_sum(embeddings, position, present[:, 0], num_segments=tf.shape(rows)[0])
        pooled = tf.reshape(pooled, tf.concat([shape[:-1], [self.dim]], axis=0))
        return tf.ensure_shape(pooled, [*ids.shape[:-1], self.dim])

    def sequence(self, ids: tf.Tensor) -> tf.Tensor:
        """Each id's embedding, not pooled: int32 ids [..., length] -> [..., length, dim], zeros at id 0."""
        check_tensors(ids=(ids, "int [..., length]"))
        present = tf.where(ids > 0)
        embeddings = self.lookup(tf.gather_nd(ids, present))
        found = tf.scatter_nd(present, embeddings, tf.concat([tf.shape(ids, tf.int64), [self.dim]], axis=0))
        return tf.ensure_shape(found, [*ids.shape, self.dim])

    def lookup(self, ids: tf.Tensor) -> tf.Tensor:
        """The same for a plain list of ids, which may be 0 too: int32 [n] -> [n, dim]."""
        return tf.cast(self._rows(ids), self.compute_dtype)

    def _rows(self, ids: tf.Tensor) -> tf.Tensor:
        check_tensors(ids=(ids, "int [n]"))
        if not self.built:
            self.build(ids.shape)
        distinct, position = tf.unique(ids)
        embeddings = tf.where(distinct[:, None] > 0, tf.gather(self.table, distinct), 0.0)
        return tf.gather(embeddings, position)

    def get_config(self):
        return super().get_config() | {"size": self.size, "dim": self.dim}


class TextBag(tf.keras.layers.Layer):
    """Average pooling over the tokens of all grains together, with one table for each grain.

    Source: DPSR, query tokens of several granularities are looked up and averaged.

    Args:
        sizes: grain -> size of its vocabulary.
        dim: width of an embedding.

    Call: grain -> int32 ids [..., length], for all grains or some -> float [..., dim]. Sums are as in `EmbeddingBag`.

    Raises:
        ConfigError: a size or `dim` is not positive; when called, a grain is unknown, or as in `EmbeddingBag`.
    """

    def __init__(self, sizes: dict[str, int], dim: int, **kwargs):
        super().__init__(**kwargs)
        for grain, size in sizes.items():
            check_number(f"sizes[{grain!r}]", size, "[1, inf)", whole=True)
        self.sizes, self.dim = dict(sizes), dim
        self.bags = {grain: EmbeddingBag(size, dim, name=grain, dtype=self.dtype_policy) for grain, size in self.sizes.items()}

    def call(self, ids: dict[str, tf.Tensor]) -> tf.Tensor:
        known = bool(ids) and set(ids) <= set(self.sizes)
        require(known, "ids", f"of one or more of the grains {', '.join(self.sizes)}", list(ids))
        total = tf.add_n([self.bags[grain].total(of_grain) for grain, of_grain in ids.items()])
        count = tf.add_n([tf.reduce_sum(tf.cast(of_grain > 0, total.dtype), axis=-1, keepdims=True) for of_grain in ids.values()])
        return tf.cast(tf.math.divide_no_nan(total, count), self.compute_dtype)

    def get_config(self):
        return super().get_config() | {"sizes": dict(self.sizes), "dim": self.dim}
