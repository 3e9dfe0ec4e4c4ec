"""Clipping by the norm of the gradient as it is: rows of one table that a step reads several times count with their sum."""

from typing import Any

import tensorflow as tf


class _SummedRows:
    """An optimizer that sees each row of a table once.

    Keras clips before it sums, so that it would take the norm of the parts: too small where they agree, too large where they cancel.
    """

    def apply_gradients(self, grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
        return super().apply_gradients([(summed(gradient), variable) for gradient, variable in grads_and_vars], *args, **kwargs)  # type: ignore[misc]


class ClippedAdagrad(_SummedRows, tf.keras.optimizers.Adagrad):
    """AdaGrad whose `global_clipnorm` is of the gradient as it is."""


class ClippedAdam(_SummedRows, tf.keras.optimizers.Adam):
    """Adam, likewise."""


class ClippedSGD(_SummedRows, tf.keras.optimizers.SGD):
    """Gradient descent, likewise."""


def summed(gradient: Any) -> Any:
    """A gradient of a table in which every row is once; any other as it is."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, place = tf.unique(gradient.indices)
    return tf.IndexedSlices(tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows)), rows, gradient.dense_shape)
