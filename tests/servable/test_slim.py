"""A slimmed SavedModel answers as before, from fewer nodes."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfebr.servable.slim import slim


class Toy(tf.Module):
    """Slices with equal bounds, a loop, a branch, a constant that is an output, and an assertion that is waited for."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([], tf.int32)])
    def answer(self, x, times):
        with tf.control_dependencies([tf.debugging.assert_less(times, 9, "too many"), tf.constant(7)]):
            total = x[:, 0] + x[:, 1] + x[:, 2] + x[:, 0]
        for _ in tf.range(times):
            total = total + x[:, 3] * 2.0 + x[:, 3] * 2.0
        total = tf.cond(times > 3, lambda: total * 2.0 + 2.0, lambda: total - 2.0)
        return {"total": total, "seven": tf.constant(7), "again": tf.constant(7), "half": tf.constant(0.5), "minus": tf.constant(-0.0)}


@pytest.fixture
def folder(tmp_path):
    toy = Toy()
    tf.saved_model.save(toy, str(tmp_path / "toy"), signatures={"serving_default": toy.answer})
    return tmp_path / "toy"


def nodes(folder) -> list:
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return [node for function in model.meta_graphs[0].graph_def.library.function for node in function.node_def]


def test_answers_stay_and_nodes_go(folder):
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    ask = lambda times: tf.saved_model.load(str(folder)).signatures["serving_default"](x=x, times=times)  # noqa: E731
    before = {times: ask(tf.constant(times)) for times in (0, 2, 5)}
    count = len(nodes(folder))
    slim(folder)
    assert len(nodes(folder)) < 0.9 * count
    for times, expected in before.items():
        for name, found in ask(tf.constant(times)).items():
            np.testing.assert_array_equal(found, expected[name])
            assert np.signbit(found).tolist() == np.signbit(expected[name]).tolist()
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many"):
        ask(tf.constant(9))


def test_every_constant_of_a_function_is_there_once_and_no_shape_is_noted(folder):
    slim(folder)
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for function in model.meta_graphs[0].graph_def.library.function:
        waited_for = {name for node in function.node_def for name in node.input if name.startswith("^")}
        contents = [
            node.attr["value"].SerializeToString()
            for node in function.node_def
            if node.op == "Const" and not node.input and f"^{node.name}" not in waited_for
        ]
        assert len(contents) == len(set(contents))
        assert not any("_output_shapes" in node.attr for node in function.node_def)


def test_a_second_time_changes_nothing(folder):
    slim(folder)
    once = {path.name: path.read_bytes() for path in folder.glob("*.pb")}
    slim(folder)
    assert (folder / "saved_model.pb").read_bytes() == once["saved_model.pb"]


def test_the_fingerprint_is_of_the_new_graph(folder):
    before = tf.saved_model.experimental.read_fingerprint(str(folder))
    slim(folder)
    after = tf.saved_model.experimental.read_fingerprint(str(folder))
    assert after.saved_model_checksum != before.saved_model_checksum
    assert after.signature_def_hash == before.signature_def_hash
