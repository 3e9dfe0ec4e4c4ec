"""The graph of a written SavedModel without what costs memory and says nothing, and the same bytes for the same model."""

import hashlib
import re
from pathlib import Path

from google.protobuf.message import Message
from tensorflow.core.framework import function_pb2
from tensorflow.core.protobuf import fingerprint_pb2, meta_graph_pb2, saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from tfebr.servable.shard_set import mark

# What tracing knew of shapes; loading infers them again.
_SHAPES = "_output_shapes"
_NAME = "_user_specified_name"
_UNREAD = re.compile(r".*___redundant_placeholder")


def slim(folder: Path, shard_set: str | None = None) -> None:
    """Rewrites `saved_model.pb`: equal constants of a function are one, recorded shapes are left out, functions are counted anew, and the
    shard's set is in it.

    Nearly half of what Keras layers are traced to are constants, mostly the bounds of slices. A server keeps some ten copies of every
    function, about 10 kB for each of its nodes: without them a load takes a third less memory and time, and answers stay the same.

    Args:
        folder: holds the SavedModel.
        shard_set: which published set it is a shard of, for clients of any server; None where it is no shard.
    """
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in model.meta_graphs:
        if shard_set is not None:
            mark(graph.signature_def, shard_set)
        _count_functions(graph)
        for function in graph.graph_def.library.function:
            _share_constants(function)
            for node in function.node_def:
                node.attr.pop(_SHAPES, None)
    path.write_bytes(model.SerializeToString(deterministic=True))
    _write_fingerprint(folder)


def _count_functions(graph: meta_graph_pb2.MetaGraphDef) -> None:
    """Numbers the functions from 0 in the order of their making: TensorFlow goes on from what else the process has traced."""
    library = graph.graph_def.library
    made = sorted(library.function, key=lambda function: _numbered(function.signature.name)[1])
    names = {f.signature.name: f"{_numbered(f.signature.name)[0]}_{place}" for place, f in enumerate(made)}
    for function in made:
        function.signature.name = names[function.signature.name]
        # A loop's condition calls what it does not read after its own function, and what is captured has a number for a name.
        for argument in function.signature.input_arg:
            argument.name = _UNREAD.sub("unread", argument.name)
        for attributes in function.arg_attr.values():
            if _NAME in attributes.attr and attributes.attr[_NAME].s.isdigit():
                del attributes.attr[_NAME]
    library.ClearField("function")
    library.function.extend(made)
    for node in [*graph.graph_def.node, *(node for function in library.function for node in function.node_def)]:
        node.op = names.get(node.op, node.op)
        # A counter, too; gradients are not asked of what is served.
        node.attr.pop("_gradient_op_type", None)
        for value in node.attr.values():
            for called in [value.func] if value.HasField("func") else value.list.func:
                called.name = names.get(called.name, called.name)
    for gradient in library.gradient:
        gradient.function_name, gradient.gradient_func = (names.get(n, n) for n in (gradient.function_name, gradient.gradient_func))
    objects = graph.object_graph_def
    functions = {names[name]: function for name, function in objects.concrete_functions.items()}
    objects.ClearField("concrete_functions")
    for name, function in functions.items():
        objects.concrete_functions[name].CopyFrom(function)
    for held in objects.nodes:
        kind = held.WhichOneof("kind")
        if kind == "function":
            held.function.concrete_functions[:] = [names[name] for name in held.function.concrete_functions]
        elif kind == "captured_tensor":
            held.captured_tensor.concrete_function = names[held.captured_tensor.concrete_function]
        elif kind == "bare_concrete_function":
            held.bare_concrete_function.concrete_function_name = names[held.bare_concrete_function.concrete_function_name]


def _numbered(name: str) -> tuple[str, int]:
    """The words of a function's name and the number at its end."""
    words, _, number = name.rpartition("_")
    return (words, int(number)) if number.isdecimal() else (name, -1)


def _write_fingerprint(folder: Path) -> None:
    """Hashes of the graph as it is now, under an id that is made of them and not drawn: the same model is the same file."""
    fingerprinting_utils.write_fingerprint(str(folder))
    path = folder / "fingerprint.pb"
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.ClearField("uuid")
    fingerprint.uuid = str(int.from_bytes(hashlib.sha256(fingerprint.SerializeToString(deterministic=True)).digest()[:16], "big"))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))


def _share_constants(function: function_pb2.FunctionDef) -> None:
    first: dict[bytes, str] = {}
    shared: dict[str, str] = {}
    waited_for = {name.removeprefix("^") for node in function.node_def for name in node.input if name.startswith("^")}
    waited_for |= set(function.control_ret.values())
    repeated = []
    for number, node in enumerate(function.node_def):
        if node.op == "Const" and not node.input and node.name not in waited_for:
            shared[node.name] = first.setdefault(_content(node), node.name)
            if shared[node.name] != node.name:
                repeated.append(number)
    for number in reversed(repeated):
        del function.node_def[number]

    def renamed(source: str) -> str:
        # "node:output:index", or "^node".
        name, colon, output = source.partition(":")
        return shared.get(name, name) + colon + output

    for node in function.node_def:
        node.input[:] = [renamed(source) for source in node.input]
    for result, source in list(function.ret.items()):
        function.ret[result] = renamed(source)


def _content(node: Message) -> bytes:
    """What a constant is, whatever its name and what tracing noted beside it."""
    same = type(node).FromString(node.SerializeToString())
    same.ClearField("name")
    same.ClearField("experimental_debug_info")
    same.attr.pop(_SHAPES, None)
    return same.SerializeToString(deterministic=True)
