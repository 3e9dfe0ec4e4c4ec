"""Several projections of one input, each followed by an encoder of its own: DPSR's multi-head query tower."""

import tensorflow as tf

# Two towers that start as twins score a query and a title by the tokens they share; with independent weights a text match would have
# to be learned from nothing. Heads start this far apart from the twin, and inputs that the other tower lacks start this small.
_APART = 0.3
_OTHERS = 0.1


class HeadsDense(tf.keras.layers.Layer):
    """A dense layer with separate weights for each head: [batch, heads, in] -> [batch, heads, units].

    Args:
        heads: number of heads.
        units: output width of each head.
        activation: as in `tf.keras.layers.Dense`.
        shared: all heads use one set of weights.
        twin_seed: layers with one `twin_seed` start with (nearly) the same weights for their first `twin_inputs` inputs.
        twin_inputs: see `twin_seed`; all inputs by default.
    """

    def __init__(
        self,
        heads: int,
        units: int,
        activation: str | None = None,
        shared: bool = False,
        twin_seed: int = 0,
        twin_inputs: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads, self.units, self.shared, self.twin_seed, self.twin_inputs = heads, units, shared, twin_seed, twin_inputs
        self.activation = tf.keras.activations.get(activation)

    def build(self, input_shape):
        sets, width = 1 if self.shared else self.heads, input_shape[-1]
        twins = width if self.twin_inputs is None else self.twin_inputs
        limit = (6.0 / (twins + self.units)) ** 0.5  # Glorot for one head; Keras would count the heads as fan-in
        twin = tf.random.stateless_uniform([1, twins, self.units], [self.twin_seed, twins], -limit, limit)
        own = tf.random.uniform([sets, width, self.units], -limit, limit)
        apart = _APART if self.heads > 1 else 0.0
        start = tf.concat([(1 - apart**2) ** 0.5 * twin + apart * own[:, :twins], _OTHERS * own[:, twins:]], axis=1)
        self.kernel = self.add_weight(name="kernel", shape=start.shape, initializer=lambda shape, dtype: tf.cast(start, dtype))
        self.bias = self.add_weight(name="bias", shape=[sets, self.units], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.broadcast_to(self.kernel, [self.heads, *self.kernel.shape[1:]])
        outputs = tf.einsum("bhi,hio->bho", inputs, kernel) + self.bias
        return self.activation(outputs)

    def get_config(self):
        activation = tf.keras.activations.serialize(self.activation)
        own = {"heads": self.heads, "units": self.units, "activation": activation, "shared": self.shared}
        return super().get_config() | own | {"twin_seed": self.twin_seed, "twin_inputs": self.twin_inputs}


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
        twin_inputs: the query and the item encoder of a model start alike for this many first inputs, their text.
    """

    def __init__(
        self,
        heads: int,
        hidden: tuple[int, ...],
        dim: int,
        share_mlp: bool = False,
        normalize: bool = True,
        twin_inputs: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads, self.hidden, self.dim, self.share_mlp, self.normalize = heads, tuple(hidden), dim, share_mlp, normalize
        self.twin_inputs = twin_inputs
        widths = [*self.hidden, dim]
        # The projection and the first hidden layer are one matrix when nothing stands between them; the ReLU makes it the first layer.
        self.layers = [
            HeadsDense(
                heads,
                width,
                "relu" if i < len(widths) - 1 else None,
                shared=share_mlp and i > 0,
                twin_seed=i,
                twin_inputs=None if i else twin_inputs,
                name=f"dense_{i}",
            )
            for i, width in enumerate(widths)
        ]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = tf.repeat(inputs[:, None, :], self.heads, axis=1)
        for layer in self.layers:
            outputs = layer(outputs)
        return tf.math.l2_normalize(outputs, axis=-1) if self.normalize else outputs

    def get_config(self):
        own = {"heads": self.heads, "hidden": self.hidden, "dim": self.dim, "share_mlp": self.share_mlp, "normalize": self.normalize}
        return super().get_config() | own | {"twin_inputs": self.twin_inputs}
