"""What is in an exported version, which servers can run it and whether it is whole: read from its files, without loading the model."""

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tfebr.errors import ArtifactError
from tfebr.servable import manifest
from tfebr.servable.folders import only_servable
from tfebr.servable.kit import PROTOSET
from tfebr.servable.sample_requests import curl, grpcurl
from tfebr.servable.tensors import Specs, Tensors
from tfebr.servable.warm_up import WARM_UP, read_requests, representative_requests

# A SavedModel that was not written here says nothing of what its inputs mean.
_UNKNOWN_SAMPLES = {"query": ["your query"]}
_LARGEST_EXAMPLE = 1_000


def inspect(folder: str | os.PathLike) -> dict[str, Any]:
    """Describes one version as plain values for JSON.

    Args:
        folder: a version folder, a servable's folder with versions in it (the newest is taken), or a run folder with one servable.

    Returns:
        `folder`, `name` and `version` (None where the folder's name is no number);
        `model`, `config`, `versions`, `index`, `results` (of one query: `default` and `most`), `filter_columns`,
        `inputs` (columns whose names are not plain, by the names of their inputs), `content` (one hash of what answers requests),
        `checked`: of the manifest, empty or None for a foreign SavedModel;
        `tensorflow`: the version that wrote the graph;
        `signatures`: `inputs` and `outputs` by signature, each a dict from name to `dtype` and `shape` (-1: any size);
        `ops_outside_tensorflow`: package by operation, None where it is unknown;
        `servers`: a list of `server`, `runs` and `advice`;
        `files`: `bytes` and `state` by path: "ok", "damaged", "missing", "unlisted", or "list" for the manifest, which lists all others;
        `bytes`: their sum on disk;
        `damage`: what is wrong with the files, one sentence each;
        `warm_up`: number of recorded requests by signature, None without a file that can be read;
        `requests`: `curl` and `grpcurl` lines by signature, for a server on this machine.

    Raises:
        ArtifactError: there is no version, or its graph or its manifest cannot be read.
    """
    path = version_folder(folder)
    try:
        return _inspect(path)
    except OSError as error:
        raise ArtifactError(f"{error.filename or path}: cannot be read: {error.strerror or error}.") from error


def version_folder(folder: str | os.PathLike) -> Path:
    """The version that a version folder, a servable's folder or a run folder stands for; raises ArtifactError when there is none."""
    base = only_servable(folder, "inspect")
    if (base / "saved_model.pb").is_file():
        return base
    if not base.is_dir():
        raise ArtifactError(f"{folder}: no such folder. Name a version folder, a servable's folder or a run folder.")
    versions = {int(path.name): path for path in base.iterdir() if _is_number(path.name) and (path / "saved_model.pb").is_file()}
    if not versions:
        raise ArtifactError(
            f"{folder}: holds no version: neither saved_model.pb nor a folder with a number for a name that has one. "
            "Name a version folder, a servable's folder or a run folder, or write a version with `tfebr export`."
        )
    return versions[max(versions)]


def _inspect(path: Path) -> dict[str, Any]:
    graph = _graph(path)
    written = _manifest(path)
    numbered = _is_number(path.resolve().name)
    name = path.resolve().parent.name if numbered else path.resolve().name
    ops = {op: manifest.op_package(op) for op in manifest.foreign_ops(graph)}
    files = _files(path, written)
    damage = [f"{path / file}: {manifest.FAULTS[about['state']]}" for file, about in files.items() if about["state"] in manifest.FAULTS]
    specs = _specs(graph)
    recorded: list[tuple[str, Tensors]] | None = None
    if files.get(WARM_UP, {}).get("state") in ("ok", "unlisted"):
        try:
            recorded = list(read_requests(path / WARM_UP, specs))
        except ArtifactError as error:
            damage.append(str(error))
    about = written.get("about", {})
    version = graph.meta_info_def.tensorflow_version
    return {
        "folder": str(path),
        "name": name,
        "version": int(path.resolve().name) if numbered else None,
        "model": about.get("model"),
        "config": about.get("config", {}),
        "versions": written.get("versions", {}),
        "tensorflow": version,
        "index": written.get("index"),
        "results": about.get("results", {}),
        "filter_columns": written.get("filter_columns", {}),
        "inputs": about.get("inputs", {}),
        "content": written.get("content"),
        "checked": written.get("checked") or {},
        "signatures": manifest.signatures_of(graph),
        "ops_outside_tensorflow": ops,
        "servers": servers(ops, version),
        "files": files,
        "bytes": sum(file["bytes"] for file in files.values() if file["state"] != "missing"),
        "damage": damage,
        "warm_up": None if recorded is None else _counts(recorded),
        "requests": _requests(path, name, specs, recorded or []),
    }


def servers(ops: Mapping[str, str | None], tensorflow: str) -> list[dict[str, Any]]:
    """Which servers have these operations, and what to do about those that have not.

    Args:
        ops: package by operation outside TensorFlow, None where it is unknown.
        tensorflow: version that wrote the graph.
    """
    unknown = sorted(op for op, package in ops.items() if package is None)
    lacking = sorted(op for op, package in ops.items() if package == "scann")
    newer = f"Version {tensorflow.rpartition('.')[0] or tensorflow} or newer."
    nowhere = f"No server known here has {', '.join(unknown)}: build one with the library it comes from, or write the model without it."
    stock = f"It lacks ScaNN's operations ({', '.join(lacking)}): `tfebr export RUN --server stock`, or use one of the servers below."
    linked = (
        "Every operation is in the stock image." if not (lacking or unknown) else f"{newer} Build it with scann's operations; see export/."
    )
    return [
        {
            "server": "tensorflow/serving, the stock image",
            "runs": not (unknown or lacking),
            "advice": nowhere if unknown else stock if lacking else newer,
        },
        {
            "server": "tensorflow/serving with ScaNN's operations linked in",
            "runs": not unknown,
            "advice": nowhere if unknown else linked,
        },
        {
            "server": "tfebr serve",
            "runs": not unknown,
            "advice": nowhere if unknown else "With the versions that it was written with.",
        },
    ]


def _is_number(name: str) -> bool:
    # Longer than any version: TensorFlow Serving's are 64-bit.
    return name.isascii() and name.isdecimal() and len(name) < 20


def _graph(path: Path) -> Any:
    file = path / "saved_model.pb"
    try:
        saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except DecodeError as error:
        raise ArtifactError(f"{file}: damaged: not a SavedModel's graph. Copy it again or export anew.") from error
    served = [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags]
    if not served:
        raise ArtifactError(f'{file}: holds no graph with the tag "serve", so no server can run it. Export anew.')
    return served[0]


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest; empty for a foreign SavedModel."""
    return manifest.read_manifest(path) if (path / manifest.MANIFEST).is_file() else {}


def _files(path: Path, written: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    listed = written.get("files", {})
    files = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            name, size = file.relative_to(path).as_posix(), file.stat().st_size
            if name in listed:
                files[name] = {"bytes": size, "state": manifest.file_state(file, listed[name])}
            else:
                files[name] = {"bytes": size, "state": "list" if written and name == manifest.MANIFEST else "unlisted"}
    return files | {name: {"bytes": about["bytes"], "state": "missing"} for name, about in listed.items() if name not in files}


def _counts(requests: list[tuple[str, Tensors]]) -> dict[str, int]:
    signatures = [signature for signature, _ in requests]
    return {signature: signatures.count(signature) for signature in sorted(set(signatures))}


def _specs(graph: Any) -> dict[str, Specs]:
    """Inputs of each signature whose values can be written down: a foreign SavedModel may take resources or tensors of any rank."""
    found: dict[str, Specs] = {}
    for signature, definition in sorted(graph.signature_def.items(), key=lambda item: (item[0] != "serving_default", item[0])):
        if not signature.startswith("__"):
            with contextlib.suppress(TypeError, ValueError):
                specs = {name: tf.TensorSpec(info.tensor_shape, info.dtype) for name, info in definition.inputs.items()}
                if all(map(_writable, specs.values())):
                    found[signature] = specs
    return found


def _writable(spec: tf.TensorSpec) -> bool:
    if spec.shape.rank is None or math.prod(size or 1 for size in spec.shape) > _LARGEST_EXAMPLE:
        return False
    return spec.dtype == tf.string or np.dtype(spec.dtype.as_numpy_dtype).kind in "biuf"


def _requests(path: Path, model: str, signatures: Mapping[str, Specs], recorded: list[tuple[str, Tensors]]) -> dict[str, dict[str, str]]:
    """A request for each signature: the recorded one with every list filled, or one made up from the specs."""
    protoset = str(path / PROTOSET) if (path / PROTOSET).is_file() else None
    lines = {}
    for signature, specs in signatures.items():
        known = [inputs for used, inputs in recorded if used == signature]
        inputs = (known or [inputs for _, inputs in representative_requests({signature: specs}, {signature: _UNKNOWN_SAMPLES})])[:2][-1]
        lines[signature] = {"curl": curl(model, signature, inputs), "grpcurl": grpcurl(model, signature, inputs, protoset)}
    return lines
