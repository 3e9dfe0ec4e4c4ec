"""Several projections of one input, each followed by an encoder of its own: DPSR's multi-head query tower."""

import functools
from collections.abc import Sequence

import tensorflow as tf

from tfebr.infrastructure.checks import check_number, is_number, require
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.precision import to_length


class HeadsDense(tf.keras.layers.Layer):
    """A dense layer with separate weights for each head: [batch, heads, in], or [batch, 1, in] for all alike -> [batch, heads, units].

    Args:
        heads: number of heads.
        units: output width of each head.
        activation: as in `tf.keras.layers.Dense`.
        shared: all heads use one set of weights.
        scale: of the initial weights, relative to Glorot's.

    Raises:
        ConfigError: a setting is out of its range; when called, the inputs have another shape or dtype.
    """

    def __init__(self, heads: int, units: int, activation: str | None = None, shared: bool = False, scale: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        check_number("heads", heads, "[1, inf)", whole=True)
        check_number("units", units, "[1, inf)", whole=True)
        check_number("scale", scale, "(0, inf)")
        self.heads, self.units, self.shared, self.scale = heads, units, shared, scale
        self.activation = tf.keras.activations.get(activation)

    def build(self, input_shape):
        sets, width = 1 if self.shared else self.heads, input_shape[-1]
        # Glorot's limit for one head; Keras would count the heads as fan-in.
        limit = self.scale * (6.0 / (width + self.units)) ** 0.5
        start = tf.keras.initializers.RandomUniform(-limit, limit)
        self.kernel = self.add_weight(name="kernel", shape=[sets, width, self.units], initializer=start)
        self.bias = self.add_weight(name="bias", shape=[sets, self.units], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        check_tensors(inputs=(inputs, f"float [batch, {self.heads}, in] or [batch, 1, in]"))
        if self.heads == 1 or self.shared:
            outputs = tf.tensordot(inputs, self.kernel[0], 1)
        else:
            outputs = tf.transpose(tf.matmul(tf.transpose(inputs, [1, 0, 2]), self.kernel), [1, 0, 2])
        return self.activation(outputs + self.bias)

    def get_config(self):
        activation = tf.keras.activations.serialize(self.activation)
        own = {"heads": self.heads, "units": self.units, "activation": activation, "shared": self.shared, "scale": self.scale}
        return super().get_config() | own


class MultiHeadEncoder(tf.keras.layers.Layer):
    """z_i = x P_i; e_i = MLP_i(z_i), where x is the concatenation of the parts: parts [batch, width] -> [batch, heads, dim].

    Source: DPSR, the equations of Q(q); that each head has its own MLP is reconstructed.

    With `gates`, e_i = sum_p g_ip x_p + MLP_i(z_i) over the parts that have a gate (not in the paper). Parts that the query and the item
    tower look up in the same tables then match from the first step, as a query's words with a title's; with random MLPs alone each such
    match would have to be learned from examples. The gates are learned, for each head its own.

    Args:
        heads: m, the number of output vectors.
        hidden: widths of the ReLU layers of each head; the first is the width of the projection P_i.
        dim: d, the width of the output, and of every part that has a gate.
        share_mlp: the heads share the MLP after their projections.
        gates: for each part the initial value of its gate, None for a part without one; () for no gates at all.
        normalize: scale outputs to length 1, so that inner products are cosines; they are float32 then under mixed precision, too.

    Raises:
        ConfigError: a setting is out of its range; when called, there are not as many parts as gates, or a part has another shape.
    """

    def __init__(
        self,
        heads: int,
        hidden: tuple[int, ...],
        dim: int,
        share_mlp: bool = False,
        gates: tuple[float | None, ...] = (),
        normalize: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_number("heads", heads, "[1, inf)", whole=True)
        check_number("dim", dim, "[1, inf)", whole=True)
        widths = isinstance(hidden, Sequence) and all(is_number(width, "[1, inf)", whole=True) for width in hidden)
        require(widths, "hidden", "whole numbers of at least 1", hidden)
        numbers = isinstance(gates, Sequence) and all(gate is None or is_number(gate) for gate in gates)
        require(numbers, "gates", "finite numbers or None", gates)
        self.heads, self.hidden, self.dim = heads, tuple(hidden), dim
        self.share_mlp, self.gates, self.normalize = share_mlp, tuple(gates), normalize
        shared = [share_mlp and i > 0 for i in range(len(self.hidden) + 1)]
        dense = functools.partial(HeadsDense, heads, dtype=self.dtype_policy)
        self.layers = [dense(w, "relu", shared=shared[i], name=f"dense_{i}") for i, w in enumerate(self.hidden)]
        # Beside gated parts the MLP starts small: it corrects what they say.
        last = 0.1 if self._gated else 1.0
        self.layers.append(dense(dim, shared=shared[-1], scale=last, name=f"dense_{len(self.hidden)}"))

    @property
    def _gated(self) -> list[int]:
        return [i for i, gate in enumerate(self.gates) if gate is not None]

    def build(self, input_shape):
        if self._gated:
            start = [[self.gates[i]] * self.heads for i in self._gated]
            self.gate = self.add_weight(name="gate", shape=[len(start), self.heads], initializer=tf.keras.initializers.Constant(start))
        super().build(input_shape)

    def call(self, parts: list[tf.Tensor]) -> tf.Tensor:
        require(len(parts) == len(self.gates) or not self.gates, "parts", f"as many as `gates`, {len(self.gates)}", len(parts))
        widths = {i: str(self.dim) if i in self._gated else f"width {i}" for i in range(len(parts))}
        check_tensors(**{f"parts[{i}]": (part, f"float [batch, {widths[i]}]") for i, part in enumerate(parts)})
        outputs = tf.concat(parts, axis=-1)[:, None, :]
        for layer in self.layers:
            outputs = layer(outputs)
        for row, part in enumerate(self._gated):
            outputs += parts[part][:, None, :] * self.gate[row][:, None]
        return to_length(outputs) if self.normalize else outputs

    def get_config(self):
        own = {"heads": self.heads, "hidden": self.hidden, "dim": self.dim, "share_mlp": self.share_mlp}
        return super().get_config() | own | {"gates": self.gates, "normalize": self.normalize}
