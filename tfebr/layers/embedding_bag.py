"""Mean of the embeddings of a padded list of ids."""

import tensorflow as tf


class EmbeddingBag(tf.keras.layers.Layer):
    """Looks up ids and averages over the ids that are not 0; an empty list gives zeros.

    Args:
        size: ids are in [0, size); 0 is padding.
        dim: width of an embedding.

    Call: int32 ids [..., length] -> float32 [..., dim]. The gradient touches each distinct id once.
    """

    def __init__(self, size: int, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.size, self.dim = size, dim

    def build(self, input_shape):
        # Rows of unit length on average, so that categories and texts start on one scale.
        start = tf.keras.initializers.RandomNormal(stddev=self.dim**-0.5)
        self.table = self.add_weight(name="table", shape=[self.size, self.dim], initializer=start)
        super().build(input_shape)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(ids)
        rows = tf.reshape(ids, [-1, shape[-1]])
        present = tf.where(rows > 0)
        distinct, position = tf.unique(tf.gather_nd(rows, present))
        embeddings = tf.gather(self.table, distinct)
        pooled = tf.sparse.segment_mean(embeddings, position, present[:, 0], num_segments=tf.shape(rows)[0])
        pooled = tf.reshape(pooled, tf.concat([shape[:-1], [self.dim]], axis=0))
        return tf.ensure_shape(pooled, [*ids.shape[:-1], self.dim])

    def get_config(self):
        return super().get_config() | {"size": self.size, "dim": self.dim}
