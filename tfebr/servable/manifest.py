"""What a version folder says about itself: model, versions, operations and their libraries, index, signatures, content hashes."""

import functools
import hashlib
import importlib.util
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

import tfebr
from tfebr.errors import ArtifactError, TfebrError
from tfebr.infrastructure.files import read_json, write_json
from tfebr.servable.manifest_schema import problem_of

# TF Serving reads nothing in this folder but warm-up requests.
FOLDER = "assets.extra"
MANIFEST = f"{FOLDER}/manifest.json"
SIGNATURE = f"{FOLDER}/signature.txt"
FAULTS = {
    "missing": "missing, though the manifest lists it. Copy the whole folder again or export anew.",
    "damaged": "damaged: its content is not what the manifest lists. Copy it again or export anew.",
}
_LONGEST_PATH = 4096
# A manifest has some kilobytes.
_LARGEST = 64 * 2**20
# Where operations outside TensorFlow come from: package and the folder of its libraries.
_LIBRARY_FOLDERS = (("scann", "scann_ops/cc"), ("tensorflow_text", "python/ops"))


def write_manifest(folder: Path, about: dict[str, Any], index: dict[str, Any] | None, filter_columns: dict[str, str]) -> dict[str, Any]:
    """Writes `assets.extra/signature.txt` and `assets.extra/manifest.json` for the SavedModel in `folder`; call it last.

    Args:
        folder: holds `saved_model.pb`.
        about: the model's name and anything else worth keeping with it; plain JSON values.
        index: recipe and measured recall, `IndexReport.as_dict()`.
        filter_columns: what a filter can name, with its kind.

    Returns:
        The manifest. Its `content` is one hash of all files outside `assets.extra/`.

    Raises:
        ArtifactError: the graph uses an operation that neither TensorFlow, ScaNN nor TensorFlow Text has, or a file outside the folder.
    """
    graph = _graph(folder)
    _refuse_outside_files(graph)
    ops = {op: _libraries()[library] for op, library in _libraries_of(foreign_ops(graph)).items()}
    (folder / SIGNATURE).write_text(_signature_text(graph), encoding="utf-8")
    files: dict[str, dict[str, Any]] = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {
        "format": 1,
        "about": about,
        "versions": tfebr.versions(),
        "ops_outside_tensorflow": ops,
        "index": index,
        "filter_columns": filter_columns,
        "signatures": signatures_of(graph),
        "bytes": sum(file["bytes"] for file in files.values()),
        "content": _content(files),
        "files": files,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def _content(files: dict[str, dict[str, Any]]) -> str:
    """One hash of what answers requests: two exports of one run have the same, whatever was measured or written beside the model."""
    lines = [f"{about['sha256']} {name}\n" for name, about in sorted(files.items()) if not name.startswith(f"{FOLDER}/")]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a version folder.

    Raises:
        ArtifactError: naming the file: there is none, it cannot be read, or a field is missing or not of its type.
    """
    path = Path(folder, MANIFEST)
    if not path.exists():
        raise ArtifactError(f"{folder}: not a servable version folder: {MANIFEST} is missing. Write one with `tfebr export`.")
    try:
        if not path.is_file():
            problem: str | None = "it is no file"
        elif path.stat().st_size > _LARGEST:
            problem = f"it has {path.stat().st_size:,} bytes, more than any manifest"
        else:
            manifest = read_json(path)
            problem = problem_of(manifest)
    except RecursionError:
        problem = "it is nested too deeply"
    except (TfebrError, OSError) as error:
        problem = str(error).removeprefix(f"{path}: ").rstrip(".")
    if problem is not None:
        raise ArtifactError(f"{path}: damaged: not a manifest as `tfebr export` writes it: {problem}. Copy it again or export anew.")
    return manifest


def verify_files(folder: str | os.PathLike) -> None:
    """Raises ArtifactError naming the first file that is missing or is not what was written."""
    for name, expected in read_manifest(folder)["files"].items():
        path = Path(folder, name)
        state = file_state(path, expected)
        if state in FAULTS:
            raise ArtifactError(f"{path}: {FAULTS[state]}")


def file_state(path: Path, expected: dict[str, Any]) -> str:
    """ "ok", or one of `FAULTS`, of a file that the manifest lists with these `bytes` and this `sha256`."""
    try:
        return "ok" if path.stat().st_size == expected["bytes"] and _sha256(path) == expected["sha256"] else "damaged"
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        # Not asked beforehand: a version may be renamed away at any moment.
        return "missing"


def op_libraries(ops: Iterable[str]) -> list[Path]:
    """The shared libraries of the installed packages that register these operations; TensorFlow's own operations need none.

    Raises:
        ArtifactError: an operation outside TensorFlow is in none of them.
    """
    return sorted(set(_libraries_of(_foreign(ops)).values()))


def foreign_ops(graph: Any) -> list[str]:
    """The operations of a MetaGraphDef that TensorFlow itself does not have."""
    return _foreign(_ops(graph))


def op_package(op: str) -> str | None:
    """The installed package whose library registers this operation, None where none of them does."""
    library = _library_of(op)
    return None if library is None else _libraries()[library].split("/")[0]


def register_ops(folder: str | os.PathLike) -> None:
    """Loads the libraries that the model in `folder` needs, so that `tf.saved_model.load` finds their operations."""
    for library in op_libraries(read_manifest(folder)["ops_outside_tensorflow"]):
        tf.load_op_library(str(library))


def _graph(folder: Path) -> Any:
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((folder / "saved_model.pb").read_bytes())
    return saved_model.meta_graphs[0]


def _nodes(graph: Any) -> list[Any]:
    return [*graph.graph_def.node, *(node for function in graph.graph_def.library.function for node in function.node_def)]


def _ops(graph: Any) -> set[str]:
    return {node.op for node in _nodes(graph)} - {function.signature.name for function in graph.graph_def.library.function}


def _refuse_outside_files(graph: Any) -> None:
    """A path baked into the graph works where the model is written, in a fresh process too, and nowhere else."""
    for node in _nodes(graph):
        if node.op != "Const" or node.attr["dtype"].type != types_pb2.DT_STRING:
            continue
        for value in node.attr["value"].tensor.string_val:
            # Longer strings are no paths and cannot be looked for.
            if value.startswith(b"/") and len(value) < _LONGEST_PATH and os.path.isfile(value):
                raise ArtifactError(
                    f"The model would read {value.decode(errors='replace')} on the server. "
                    "Make the file a tf.saved_model.Asset that is an attribute of a tf.Module, so that it travels with the model."
                )


def _foreign(ops: Iterable[str]) -> list[str]:
    """Those that TensorFlow itself does not have: its raw_ops are listed when it is built."""
    return sorted(op for op in set(ops) if not hasattr(tf.raw_ops, op) and not op.startswith("_"))


def _libraries_of(ops: list[str]) -> dict[str, Path]:
    found = {}
    for op in ops:
        library = _library_of(op)
        if library is None:
            raise ArtifactError(
                f"The model uses the operation {op}, which neither TensorFlow, ScaNN nor TensorFlow Text has. No server could load it: "
                "build this part of the model from their operations."
            )
        found[op] = library
    return found


def _library_of(op: str) -> Path | None:
    return next((path for path in _libraries() if _mentions(path, op)), None)


@functools.cache
def _libraries() -> dict[Path, str]:
    """The libraries that may hold operations, each with its path from its package on, which is the same on every machine."""
    paths = {}
    for package, folder in _LIBRARY_FOLDERS:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            root = Path(spec.origin).parent
            paths.update({path: path.relative_to(root.parent).as_posix() for path in sorted(root.joinpath(folder).glob("*.so"))})
    return paths


def _mentions(library: Path, op: str) -> bool:
    """Whether the operation's registered name stands in the library as a whole C string."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"\0" + op.encode() + b"\0") >= 0


def signatures_of(graph: Any) -> dict[str, Any]:
    """Inputs and outputs of a MetaGraphDef's signatures, each with its `dtype` and `shape`."""
    return {
        name: {
            side: {key: {"dtype": _dtype(info), "shape": _shape(info)} for key, info in sorted(getattr(signature, side).items())}
            for side in ("inputs", "outputs")
        }
        for name, signature in sorted(graph.signature_def.items())
        if not name.startswith("__")
    }


def _signature_text(graph: Any) -> str:
    """Lines `input|output NAME TENSOR DTYPE DIMENSION...` of serving_default, for loaders without a protobuf parser; -1 is any size."""
    signature, lines = graph.signature_def["serving_default"], []
    for side, infos in (("input", signature.inputs), ("output", signature.outputs)):
        for name, info in sorted(infos.items()):
            lines.append(" ".join([side, name, info.name, _dtype(info), *map(str, _shape(info))]))
    return "\n".join(lines) + "\n"


def _dtype(info: Any) -> str:
    return types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()


def _shape(info: Any) -> list[int]:
    return [dimension.size for dimension in info.tensor_shape.dim]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
