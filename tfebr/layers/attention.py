"""Attention: rows that read a padded sequence, and sequences that read themselves."""

import tensorflow as tf

from tfebr.infrastructure.checks import check_number, require
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.packing import map_groups, pack, unpack
from tfebr.layers.precision import softmax


def attend(queries: tf.Tensor, keys: tf.Tensor, mask: tf.Tensor, *, zero_row: bool = True) -> tf.Tensor:
    """softmax(Q [0; K]^T) [0; K], an unscaled dot product: what each query row reads from the sequence.

    Source: MGDSPR, H_real, H_short and H_a; the zero row, by which a query may read nothing, is ZAM's (that it is never masked is
    reconstructed).

    Args:
        queries: float [..., rows, dim].
        keys: float [..., length, dim]; what stands at masked places is not read, but must be finite.
        mask: bool [..., length].
        zero_row: without it softmax(Q K^T) K, and zeros where the whole sequence is masked.

    Returns:
        [..., rows, dim].

    Raises:
        ConfigError: an argument has another shape or dtype.
    """
    check_tensors(queries=(queries, "float [..., rows, dim]"), keys=(keys, "float [..., length, dim]"), mask=(mask, "bool [..., length]"))
    keys = tf.where(mask[..., None], keys, 0.0)
    scores = tf.matmul(queries, keys, transpose_b=True)
    scores = tf.where(mask[..., None, :], scores, scores.dtype.min)
    # The zero row has a score of 0 and adds nothing to what is read.
    scores = tf.pad(scores, [[0, 0]] * (scores.shape.rank - 1) + [[int(zero_row), 0]])
    return tf.matmul(softmax(scores)[..., int(zero_row) :], keys)


class SelfAttention(tf.keras.layers.Layer):
    """Multi-head scaled dot-product self-attention with an output projection: inputs [batch, length, dim] -> [batch, length, dim].

    Masked places are neither read nor computed; their outputs are zeros. As in the formula of Vaswani et al. the projections have no bias.

    Args:
        heads: number of heads; divides dim.
        residual: LayerNorm(inputs + output) in place of the output (reconstructed).

    Raises:
        ConfigError: `heads` does not divide the width of the inputs; when called, an argument has another shape or dtype.
    """

    def __init__(self, heads: int = 8, residual: bool = False, **kwargs):
        super().__init__(**kwargs)
        check_number("heads", heads, "[1, inf)", whole=True)
        self.heads, self.residual = heads, residual
        norm = tf.keras.layers.LayerNormalization
        self.norm = norm(epsilon=1e-6, name="norm", dtype=self.dtype_policy) if residual else None

    def build(self, input_shape):
        self.dim = input_shape[-1]
        require(self.dim % self.heads == 0, "heads", f"a divisor of the inputs' width, {self.dim}", self.heads)
        self.qkv = self._kernel("qkv", 3 * self.dim)
        self.output_kernel = self._kernel("output_kernel", self.dim)
        super().build(input_shape)

    def _kernel(self, name: str, width: int) -> tf.Variable:
        # Glorot's limit for one projection; Keras would count queries, keys and values as one fan-out.
        limit = (3.0 / self.dim) ** 0.5
        return self.add_weight(name=name, shape=[self.dim, width], initializer=tf.keras.initializers.RandomUniform(-limit, limit))

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        check_tensors(inputs=(inputs, "float [batch, length, dim]"), mask=(mask, "bool [batch, length]"))
        packed = pack(inputs, tf.ones(tf.shape(inputs)[:2], tf.bool) if mask is None else mask)
        return unpack(self.packed(packed.values, packed.lengths), packed.places, like=inputs)

    def packed(self, values: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """The same without padding: values [present, dim] and lengths [batch] as in `Packed` -> [present, dim]."""
        if not self.built:
            self.build(values.shape)
        read = map_groups(self._read, tf.matmul(values, self.qkv), lengths, self.dim)
        return self._close(values, tf.matmul(read, self.output_kernel))

    def read(self, start: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
        """The output at a row `start` [dim] in front of the inputs [batch, length, dim], the same for all: [batch, dim].

        Neither the inputs' queries nor their keys and values are computed: a score q (x W_k)^T is (q W_k^T) x^T, where q W_k^T is one row
        for each head, and a read value w (X W_v) is (w X) W_v.
        """
        check_tensors(inputs=(inputs, "float [batch, length, dim]"), start=(start, "float [dim]"))
        if not self.built:
            self.build(inputs.shape)
        width, batch, length = self.dim // self.heads, tf.shape(inputs)[0], tf.shape(inputs)[1]
        query, key, value = tf.unstack(tf.reshape(self.qkv, [self.dim, 3, self.heads, width]), axis=1)
        asked = tf.einsum("he,dhe->dh", tf.einsum("d,dhe->he", start, query) * width**-0.5, key)
        scores = tf.reshape(tf.matmul(tf.reshape(inputs, [-1, self.dim]), asked), [batch, length, self.heads])
        own = tf.broadcast_to(tf.matmul(start[None], asked), [batch, 1, self.heads])
        scores = tf.concat([own, scores], axis=1)
        weights = softmax(tf.transpose(scores, [0, 2, 1]))
        read = tf.matmul(weights[:, :, 1:], inputs) + weights[:, :, :1] * start
        values = tf.matmul(tf.transpose(read, [1, 0, 2]), tf.transpose(value, [1, 0, 2]))
        return self._close(start, tf.matmul(tf.reshape(tf.transpose(values, [1, 0, 2]), [batch, self.dim]), self.output_kernel))

    def _read(self, projected: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """[rows, length, 3 dim] queries, keys and values -> [rows, length, dim] heads side by side."""
        rows, length = tf.unstack(tf.shape(present))
        width = self.dim // self.heads
        by_head = tf.transpose(tf.reshape(projected, [rows, length, 3, self.heads, width]), [2, 0, 3, 1, 4])
        queries, keys, values = tf.unstack(by_head)
        scores = tf.matmul(queries * width**-0.5, keys, transpose_b=True)
        scores += tf.where(present, tf.zeros([], scores.dtype), scores.dtype.min / 2)[:, None, None, :]
        read = tf.matmul(softmax(scores), values)
        return tf.reshape(tf.transpose(read, [0, 2, 1, 3]), [rows, length, self.dim])

    def _close(self, inputs: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        return output if self.norm is None else self.norm(inputs + output)

    def get_config(self):
        return super().get_config() | {"heads": self.heads, "residual": self.residual}


class TransformerLayer(tf.keras.layers.Layer):
    """x = LayerNorm(x + SelfAttention(x)); x = LayerNorm(x + W_2 relu(W_1 x)): inputs [batch, length, dim] -> [batch, length, dim].

    Masked places are neither read nor computed; their outputs are zeros. Source: MGDSPR, Trm in q_seg_seq; its inside is reconstructed.

    Args:
        heads: as in `SelfAttention`.
        hidden: width between W_1 and W_2; 4 dim if None.
        scale: of the outputs at the start, the first value of the last LayerNorm's gamma.

    Raises:
        ConfigError: a setting is out of its range, or as in `SelfAttention`.
    """

    def __init__(self, heads: int = 8, hidden: int | None = None, scale: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        if hidden is not None:
            check_number("hidden", hidden, "[1, inf)", whole=True)
        check_number("scale", scale, "(0, inf)")
        self.heads, self.hidden, self.scale = heads, hidden, scale
        self.attention = SelfAttention(heads, residual=True, name="attention", dtype=self.dtype_policy)
        gamma = tf.keras.initializers.Constant(scale)
        self.norm = tf.keras.layers.LayerNormalization(epsilon=1e-6, gamma_initializer=gamma, name="norm", dtype=self.dtype_policy)

    def build(self, input_shape):
        dim = input_shape[-1]
        self.widen = tf.keras.layers.Dense(self.hidden or 4 * dim, "relu", name="widen", dtype=self.dtype_policy)
        self.narrow = tf.keras.layers.Dense(dim, name="narrow", dtype=self.dtype_policy)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        check_tensors(inputs=(inputs, "float [batch, length, dim]"), mask=(mask, "bool [batch, length]"))
        packed = pack(inputs, mask)
        values = self.attention.packed(packed.values, packed.lengths)
        return unpack(self.norm(values + self.narrow(self.widen(values))), packed.places, like=inputs)

    def get_config(self):
        return super().get_config() | {"heads": self.heads, "hidden": self.hidden, "scale": self.scale}
