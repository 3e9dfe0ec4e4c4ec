"""The graph of a written SavedModel without what costs memory and says nothing."""

from pathlib import Path

from google.protobuf.message import Message
from tensorflow.core.framework import function_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from tfebr.servable.shard_set import mark

# What tracing knew of shapes; loading infers them again.
_SHAPES = "_output_shapes"


def slim(folder: Path, shard_set: str | None = None) -> None:
    """Rewrites `saved_model.pb` so that equal constants of a function are one, recorded shapes are left out, and the shard's set is in it.

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
        for function in graph.graph_def.library.function:
            _share_constants(function)
            for node in function.node_def:
                node.attr.pop(_SHAPES, None)
    path.write_bytes(model.SerializeToString(deterministic=True))
    # It holds a hash of the graph.
    fingerprinting_utils.write_fingerprint(str(folder))


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
