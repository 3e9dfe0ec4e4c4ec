"""An LSTM over padded rows that costs what is in them: each step computes only the rows that are that long."""

from collections.abc import Callable

import tensorflow as tf

from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.precision import at_least_float32


class LSTMStack(tf.keras.layers.Layer):
    """h = LSTM_1(x); then h = h + LSTM_l(h) for each further layer: inputs [batch, length, dim] -> [batch, length, units].

    Each cell is `tf.keras.layers.LSTMCell`, weights and all, and each layer reads its input through dropout when training.
    That the dropout stands there, and the residual connections where input and output have one meaning, is reconstructed.

    Call: inputs left-aligned, mask bool [batch, length] true for the first places of each row, and a `seed`, int [2], of what is dropped:
    one seed drops the same. Without a seed it is drawn from TensorFlow's global generator. Outputs at masked places are zeros.

    Args:
        units: width of the state.
        layers: number of layers.
        dropout: share of the inputs' elements dropped in training, in [0, 1).

    Raises:
        ConfigError: a setting is out of its range; when called, an argument has another shape or dtype.
    """

    def __init__(self, units: int, layers: int = 2, dropout: float = 0.2, **kwargs):
        super().__init__(**kwargs)
        check_number("units", units, "[1, inf)", whole=True)
        check_number("layers", layers, "[1, inf)", whole=True)
        check_number("dropout", dropout, "[0, 1)")
        self.units, self.layers, self.dropout = units, layers, dropout
        cell = tf.keras.layers.LSTMCell
        self.cells = [cell(units, name=f"cell_{number}", dtype=self.dtype_policy) for number in range(layers)]

    def build(self, input_shape):
        for number, cell in enumerate(self.cells):
            cell.build([None, self.units if number else input_shape[-1]])
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, mask: tf.Tensor, training: bool | None = None, seed: tf.Tensor | None = None) -> tf.Tensor:
        check_tensors(inputs=(inputs, "float [batch, length, dim]"), mask=(mask, "bool [batch, length]"), seed=(seed, "int [2]"))
        lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
        # Longest rows first: the rows that go on after a step are then the first rows of that step.
        order = tf.argsort(lengths, direction="DESCENDING", stable=True)
        steps = tf.maximum(1, tf.reduce_max(tf.concat([lengths, [0]], axis=0)))
        present = tf.transpose(tf.sequence_mask(tf.gather(lengths, order), steps))
        counts = tf.reduce_sum(tf.cast(present, tf.int32), axis=1)
        found = tf.where(present)
        places = tf.stack([tf.gather(tf.cast(order, tf.int64), found[:, 1]), found[:, 0]], axis=1)

        values = tf.gather_nd(inputs, places)
        for number, cell in enumerate(self.cells):
            states = _recur(cell, self._drop(values, number, seed) if training and self.dropout else values, counts)
            values = values + states if number else states
        padded = tf.scatter_nd(places, values, tf.concat([tf.shape(inputs, tf.int64)[:2], [self.units]], axis=0))
        return tf.ensure_shape(padded, [*inputs.shape[:2], self.units])

    def _drop(self, values: tf.Tensor, layer: int, seed: tf.Tensor | None) -> tf.Tensor:
        if seed is None:
            return tf.nn.dropout(values, self.dropout)
        return tf.nn.experimental.stateless_dropout(values, self.dropout, tf.random.experimental.stateless_fold_in(seed, layer))

    def get_config(self):
        return super().get_config() | {"units": self.units, "layers": self.layers, "dropout": self.dropout}


def _recur(cell: tf.keras.layers.LSTMCell, values: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Values [sum(counts), dim], step after step, of which step t has the first counts[t] rows -> states [sum(counts), units]."""
    projected = tf.matmul(values, cell.kernel) + cell.bias
    # Rounding would add up from step to step.
    states = _states(at_least_float32(projected), at_least_float32(cell.recurrent_kernel), counts)
    return tf.cast(states, values.dtype)


# The fused kernel, BlockLSTMV2, is no faster here, and its gradient in TensorFlow 2.20 is not that of its output.
@tf.custom_gradient
def _states(projected: tf.Tensor, kernel: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Gate inputs [sum(counts), 4 units] and the recurrent kernel -> states; with the gradient of the kernel as one product.

    TensorFlow's own gradient of the loop takes that product anew in every step and keeps every intermediate on a stack.
    """
    units, steps = kernel.shape[0], tf.shape(counts)[0]
    ends = tf.cumsum(counts)
    starts = ends - counts

    def forward(number, state, memory, gates_of, memory_of, state_of):
        rows = counts[number]
        raw = projected[starts[number] : ends[number]] + tf.matmul(state[:rows], kernel)
        i, f, _, o = tf.split(tf.sigmoid(raw), 4, axis=1)
        g = tf.tanh(raw[:, 2 * units : 3 * units])
        memory = f * memory[:rows] + i * g
        state = o * tf.tanh(memory)
        written = (gates_of.write(number, tf.concat([i, f, g, o], 1)), memory_of.write(number, memory), state_of.write(number, state))
        return number + 1, state, memory, *written

    start = tf.zeros([counts[0], units], projected.dtype)
    found = _loop(forward, steps, (0, start, start), projected.dtype, (4 * units, units, units))
    gates, memories, states = (array.concat() for array in found)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, None]:
        step_of = tf.repeat(tf.range(steps), counts)
        before = tf.range(ends[-1]) - tf.gather(tf.concat([[0], counts], 0), step_of)
        earlier = lambda x: tf.where(step_of[:, None] > 0, tf.gather(x, tf.maximum(before, 0)), 0.0)  # noqa: E731
        i, f, g, o = tf.split(gates, 4, axis=1)
        read = tf.tanh(memories)
        to_memory = o * (1 - read * read)
        slopes = tf.concat([g * i * (1 - i), earlier(memories) * f * (1 - f), i * (1 - g * g), read * o * (1 - o)], axis=1)

        def backward(number, by_state, by_memory, by_gates):
            at = steps - 1 - number
            here = slice(starts[at], ends[at])
            more = [[0, counts[at] - tf.shape(by_state)[0]], [0, 0]]
            by_state = upstream[here] + tf.pad(by_state, more)
            by_memory = by_state * to_memory[here] + tf.pad(by_memory, more)
            found = tf.concat([by_memory, by_memory, by_memory, by_state], axis=1) * slopes[here]
            return number + 1, tf.matmul(found, kernel, transpose_b=True), by_memory * f[here], by_gates.write(at, found)

        end = tf.zeros([0, units], projected.dtype)
        (by_gates,) = _loop(backward, steps, (0, end, end), projected.dtype, (4 * units,))
        by_projected = by_gates.concat()
        return by_projected, tf.matmul(earlier(states), by_projected, transpose_a=True), None

    return tf.ensure_shape(states, [None, units]), gradient


def _loop(body: Callable, steps: tf.Tensor, start: tuple, dtype: tf.DType, widths: tuple[int, ...]) -> list[tf.TensorArray]:
    """Runs a body over (number, two matrices, arrays of rows of these widths); returns the arrays."""
    arrays = [tf.TensorArray(dtype, steps, infer_shape=False, element_shape=[None, width]) for width in widths]
    matrix = tf.TensorShape([None, start[1].shape[1]])
    shapes = (tf.TensorShape([]), matrix, matrix, *[tf.TensorShape(None)] * len(arrays))
    found = tf.while_loop(lambda number, *_: number < steps, body, (*start, *arrays), shape_invariants=shapes, maximum_iterations=steps)
    return list(found[3:])
