"""Several rows to one vector: what a learned row reads from all of them."""

import tensorflow as tf

from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.attention import SelfAttention
from tfebr.layers.embedding_bag import TABLE_SCALE


class ClsFusion(tf.keras.layers.Layer):
    """SelfAttention([[CLS]; rows]) at [CLS], a learned vector: rows [batch, rows, dim] -> [batch, dim].

    Source: MGDSPR, H_qu = Self_Att^first([[CLS]; Q_mgs; H_real; H_short; H_long]). Only that place is computed.

    Args:
        heads, residual: as in `SelfAttention`.

    Raises:
        ConfigError: as in `SelfAttention`.
    """

    def __init__(self, heads: int = 8, residual: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.residual = heads, residual
        self.attention = SelfAttention(heads, residual, name="attention", dtype=self.dtype_policy)

    def build(self, input_shape):
        start = tf.keras.initializers.RandomNormal(stddev=TABLE_SCALE)
        self.cls = self.add_weight(name="cls", shape=[input_shape[-1]], initializer=start)
        super().build(input_shape)

    def call(self, rows: tf.Tensor) -> tf.Tensor:
        check_tensors(rows=(rows, "float [batch, rows, dim]"))
        return self.attention.read(self.cls, rows)

    def get_config(self):
        return super().get_config() | {"heads": self.heads, "residual": self.residual}
