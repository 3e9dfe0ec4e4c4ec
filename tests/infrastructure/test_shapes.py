"""What is said of tensors, and that saying it costs a graph nothing."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfebr.errors import ConfigError
from tfebr.infrastructure.shapes import check_scalar, check_tensors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"a": (tf.ones([3, 1]), "float [batch]")}, r"`a` must have shape \[batch\]\. Received: shape \[3, 1\]\."),
        ({"a": (tf.ones([]), "float [batch]")}, r"`a` must have shape \[batch\]\. Received: shape \[\]\."),
        ({"a": (tf.ones([3]), "bool [batch]")}, r"`a` must be of a dtype bool\. Received: float32\."),
        ({"a": (np.ones(3, bool), "int [batch]")}, r"`a` must be of a dtype int\. Received: bool\."),
        (
            {"a": (tf.ones([3]), "float [n]"), "b": (tf.ones([3, 4]), "float [m, n]")},
            r"`b` .*\[m, n\], here \[m, 3\]\. Received: shape \[3, 4\]",
        ),
        ({"a": (tf.ones([3]), "float [] or [2]")}, r"`a` must have shape \[\] or \[2\], here \[2\]\. Received: shape \[3\]"),
        (
            {"a": (tf.ones([2]), "float [n]"), "b": (tf.ones([3]), "float [m]"), "c": (tf.ones([6]), "float [n + m]")},
            r"`c` must have shape \[n \+ m\], here \[5\]\. Received: shape \[6\]",
        ),
        ({"a": (tf.ones([1, 2, 3]), "float [..., n]"), "b": (tf.ones([3]), "float [..., n]")}, r"`b` must have shape \[\.\.\., n\]"),
        ({"a": ([[1.0], [2.0]], "float [n]")}, r"`a` must have shape \[n\]\. Received: shape \[2, 1\]"),
    ],
)
def test_the_first_wrong_tensor_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        check_tensors(**arguments)


@given(st.lists(st.sampled_from([None, 1, 2, 3]), max_size=3), st.lists(st.sampled_from([None, 1, 2, 3]), max_size=3))
def test_shapes_pass_just_where_no_known_size_contradicts(first, second):
    """Two tensors of one description, in a graph that knows some of their sizes."""
    described = "float [" + ", ".join("abc"[: len(first)]) + "]"
    fits = len(first) == len(second) and all(None in pair or pair[0] == pair[1] for pair in zip(first, second, strict=False))

    def call(x, y):
        check_tensors(x=(x, described), y=(y, described))
        return tf.zeros([])

    graph = tf.function(call, input_signature=[tf.TensorSpec(first), tf.TensorSpec(second)], autograph=False)
    if fits:
        graph.get_concrete_function()
    else:
        with pytest.raises(ConfigError, match="`y` must have shape"):
            graph.get_concrete_function()


def test_what_a_graph_does_not_know_passes_and_nothing_is_added_to_it():
    @tf.function(input_signature=[tf.TensorSpec(None), tf.TensorSpec([None, None]), tf.TensorSpec([], tf.float32)])
    def graph(anything, matrix, temperature):
        check_tensors(anything=(anything, "float [n]"), matrix=(matrix, "float [n, m]"), nothing=(None, "float [n]"))
        check_scalar("temperature", temperature, "(0, inf)")

    assert {operation.type for operation in graph.get_concrete_function().graph.get_operations()} <= {"Placeholder", "NoOp"}


def test_a_scalar_is_a_number_or_a_tensor_without_a_rank():
    for good in (0.5, 1, np.float32(0.5), tf.constant(0.5), tf.Variable(0.5), np.array(0.5)):
        check_scalar("tau", good, "(0, inf)")
    for bad in (
        0.0,
        -1,
        np.float32(-1),
        tf.constant(0.0),
        np.array(-0.5),
        float("nan"),
        tf.constant([0.5]),
        tf.constant(1),
        "0.5",
        True,
        None,
    ):
        with pytest.raises(ConfigError, match="`tau` must"):
            check_scalar("tau", bad, "(0, inf)")


def test_an_error_inside_a_graph_keeps_its_type():
    @tf.function
    def graph(x):
        check_tensors(x=(x, "float [n, m]"))
        return x

    with pytest.raises(ConfigError, match=r"`x` must have shape \[n, m\]\. Received: shape \[3\]"):
        graph(tf.ones([3]))
