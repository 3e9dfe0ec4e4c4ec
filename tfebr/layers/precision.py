"""What is computed in float32 under every dtype policy: sums and shares of many numbers, for which bfloat16's 8 bits are too few."""

import tensorflow as tf


def at_least_float32(values: tf.Tensor) -> tf.Tensor:
    """Half precision made single: a sum over a thousand candidates has hardly a digit left in bfloat16."""
    values = tf.convert_to_tensor(values)
    return tf.cast(values, tf.float32) if values.dtype.size < 4 else values


def softmax(scores: tf.Tensor) -> tf.Tensor:
    """`tf.nn.softmax` over the last axis, of the dtype of the scores."""
    return tf.cast(tf.nn.softmax(at_least_float32(scores)), scores.dtype)


def to_length(vectors: tf.Tensor) -> tf.Tensor:
    """[..., dim] scaled to length 1, which no vector in half precision keeps: float32 at least."""
    return tf.math.l2_normalize(at_least_float32(vectors), axis=-1)


def mean_of_present(values: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """The mean of values [batch, length, dim], zeros where present bool [batch, length] is false: [batch, dim]; zeros where none is."""
    total = tf.reduce_sum(at_least_float32(values), axis=1)
    count = tf.reduce_sum(tf.cast(present, total.dtype), axis=1, keepdims=True)
    return tf.cast(tf.math.divide_no_nan(total, count), values.dtype)
