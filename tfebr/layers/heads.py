"""Several projections of one input, each followed by an encoder of its own: DPSR's multi-head query tower."""

import tensorflow as tf


class HeadsDense(tf.keras.layers.Layer):
    """A dense layer with separate weights for each head: [batch, heads, in] -> [batch, heads, units].

    Args:
        heads: number of heads.
        units: output width of each head.
        activation: as in `tf.keras.layers.Dense`.
        shared: all heads use one set of weights.
    """

    def __init__(self, heads: int, units: int, activation: str | None = None, shared: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.units, self.shared = heads, units, shared
        self.activation = tf.keras.activations.get(activation)

    def build(self, input_shape):
        sets, width = 1 if self.shared else self.heads, input_shape[-1]
        limit = (6.0 / (width + self.units)) ** 0.5  # Glorot for one head; Keras would count the heads as fan-in
        start = tf.keras.initializers.RandomUniform(-limit, limit)
        self.kernel = self.add_weight(name="kernel", shape=[sets, width, self.units], initializer=start)
        self.bias = self.add_weight(name="bias", shape=[sets, self.units], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.broadcast_to(self.kernel, [self.heads, *self.kernel.shape[1:]])
        outputs = tf.einsum("bhi,hio->bho", inputs, kernel) + self.bias
        return self.activation(outputs)

    def get_config(self):
        activation = tf.keras.activations.serialize(self.activation)
        return super().get_config() | {"heads": self.heads, "units": self.units, "activation": activation, "shared": self.shared}


class MultiHeadEncoder(tf.keras.layers.Layer):
    """z_i = x P_i; e_i = MLP_i(z_i): [batch, in] -> [batch, heads, dim], each vector of length 1 when `normalize`.

    With one head and a linear projection this is a plain tower.

    Source: DPSR section on the query tower (papers: equations of Q(q)); that each head has its own MLP is reconstructed.

    Args:
        heads: m, the number of query vectors.
        hidden: widths of the ReLU layers of each head; the first is the width of the projection.
        dim: d, the width of the output.
        share_mlp: the heads share the MLP after their projections.
        normalize: scale outputs to length 1, so that inner products are cosines.
    """

    def __init__(self, heads: int, hidden: tuple[int, ...], dim: int, share_mlp: bool = False, normalize: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.hidden, self.dim, self.share_mlp, self.normalize = heads, tuple(hidden), dim, share_mlp, normalize
        widths = [*self.hidden, dim]
        # The projection and the first hidden layer are one matrix when nothing stands between them; the ReLU makes it the first layer.
        self.layers = [
            HeadsDense(heads, width, "relu" if i < len(widths) - 1 else None, shared=share_mlp and i > 0, name=f"dense_{i}")
            for i, width in enumerate(widths)
        ]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = tf.repeat(inputs[:, None, :], self.heads, axis=1)
        for layer in self.layers:
            outputs = layer(outputs)
        return tf.math.l2_normalize(outputs, axis=-1) if self.normalize else outputs

    def get_config(self):
        own = {"heads": self.heads, "hidden": self.hidden, "dim": self.dim, "share_mlp": self.share_mlp, "normalize": self.normalize}
        return super().get_config() | own
