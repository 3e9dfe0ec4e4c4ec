"""The check in the graph that all inputs of a request have as many rows as each other, which says whose number differs."""

from collections.abc import Mapping

import tensorflow as tf

from tfebr.servable.input_arrays import SAME_ROWS


def with_same_rows(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The inputs, which are there only when their first dimensions are equal: nothing that reads them runs before the check.

    TensorFlow would broadcast one row to many, or drop rows, in some places, and fail in others without naming an input. A dozen small
    operations whatever the number of inputs; a server that merges requests checks the merged batch.

    Args:
        inputs: tensors by name, each of a known rank of at least 1.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs: two inputs differ in rows; names all with their numbers.
    """
    names = sorted(inputs)
    if len(names) < 2:
        return dict(inputs)
    dtypes = {inputs[name].dtype: 0 for name in names}
    grouped = [[name for name in names if inputs[name].dtype == dtype] for dtype in dtypes]
    # One operation reads the shapes of all inputs of a type, and one picks the first size of each out of all sizes.
    sizes = tf.concat([shape for group in grouped for shape in tf.shape_n([inputs[name] for name in group])], 0)
    order = [name for group in grouped for name in group]
    starts = [sum(inputs[name].shape.rank for name in order[:number]) for number in range(len(order))]
    rows = tf.gather(sizes, starts)

    def refuse() -> tf.Operation:
        received = tf.strings.reduce_join(tf.strings.join([order, tf.strings.as_string(rows)], ": "), separator=", ")
        said = tf.strings.join(["All inputs need the same number of rows. Received: ", received, ". " + SAME_ROWS])
        return tf.raw_ops.Assert(condition=False, data=[said])

    with tf.control_dependencies([tf.cond(tf.reduce_all(rows == rows[0]), tf.no_op, refuse)]):
        return {name: tf.identity(tensor) for name, tensor in inputs.items()}
