"""What loading a version costs beside the least that it could cost: reading its files and building ScaNN's searcher from them."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import scann  # noqa: F401  registers ScaNN's operations
import tensorflow as tf
from scann import scann_ops
from tensorflow.python.framework import op_def_registry

from benchmarks.serving_probe import _memory_mb
from tfebr.infrastructure.files import read_json
from tfebr.servable import manifest
from tfebr.servable.check import complete_inputs, load
from tfebr.servable.warm_up import WARM_UP
from tfebr.server.loaded import Model

_REPEATS = 3


def loading(folder: Path, query: str) -> dict[str, Any]:
    """Seconds and memory of a load in this process, with hashes verified and recorded requests replayed.

    Beside it: reading the bytes and building the searcher alone, which is what grows with the catalogue, and `tf.saved_model.load`, which
    does both and reads the graph, but verifies and replays nothing. A load once more leaves out what TensorFlow does once a process.
    """
    tf.function(lambda x: tf.matmul(x, x))(tf.ones([64, 64]))
    about = read_json(folder / manifest.MANIFEST)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    _read(files)
    before, start = _memory_mb("VmRSS"), time.perf_counter()
    model = Model(folder, 1)
    loaded = time.perf_counter() - start
    inputs = {name: value.numpy() for name, value in complete_inputs(model.inputs(""), {"query": [query]}).items()}
    model.run("", inputs)
    answered = time.perf_counter() - start
    resident = _memory_mb("VmRSS") - before
    reading = min(_timed(lambda: _read(files)) for _ in range(_REPEATS))
    searcher = min(_timed(lambda: _build_searcher(folder, about["index"]["items"])) for _ in range(_REPEATS))
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-", dir=folder.parent.parent) as scratch:
        bare = Path(scratch, "1")
        shutil.copytree(folder, bare, copy_function=os.link, ignore=shutil.ignore_patterns(Path(WARM_UP).name))
        without_replay = min(_timed(lambda: Model(bare, 1).run("", inputs)) for _ in range(_REPEATS))
    second = _timed(lambda: Model(folder, 1).run("", inputs))
    by_tensorflow = min(_timed(lambda: load(folder)) for _ in range(_REPEATS))
    index_mb = sum(path.stat().st_size for path in files if path.parent.name in ("assets", "variables")) / 2**20
    found = {
        "target": "load to first answer <= 1.5 x reading and building; resident <= 1.25 x index files",
        "recipe": about["index"]["recipe"],
        "index_files_mb": round(index_mb, 1),
        "load_seconds": round(loaded, 3),
        "load_to_first_answer_seconds": round(answered, 3),
        "second_load_to_first_answer_seconds": round(second, 3),
        "without_recorded_requests_seconds": round(without_replay, 3),
        "reading_seconds": round(reading, 3),
        "building_searcher_seconds": round(searcher, 3),
        "saved_model_load_seconds": round(by_tensorflow, 3),
        "relative_to_saved_model_load": round(second / by_tensorflow, 2),
        "without_recorded_requests_relative_to_saved_model_load": round(without_replay / by_tensorflow, 2),
        "relative_to_reading_and_building": round(answered / (reading + searcher), 2),
        "resident_mb": round(resident, 1),
        "resident_relative_to_index_files": round(resident / index_mb, 2),
    }
    print(f"{about['index']['items']:,} items: {answered:.2f} s to the first answer, {found['resident_mb']} MB", flush=True)
    return found


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _read(files: list[Path]) -> int:
    return sum(len(path.read_bytes()) for path in files)


def _build_searcher(folder: Path, items: int) -> None:
    """ScaNN's searcher from the version's assets, as the graph does it; nothing for an index without ScaNN."""
    op = op_def_registry.get("Scann>TensorsToScann")
    values = {}
    for argument in op.input_arg:
        # The operation calls its first input "x".
        name = "dataset" if argument.name == "x" else argument.name
        dtype, path = tf.as_dtype(argument.type), folder / "assets" / f"scann_{name}.bin"
        if not path.exists():
            values[argument.name] = tf.constant("") if dtype == tf.string else tf.zeros([], dtype)
        elif dtype == tf.string:
            values[argument.name] = tf.constant([path.read_bytes()])
        else:
            array = np.fromfile(path, dtype.as_numpy_dtype)
            rows = name in ("dataset", "hashed_dataset", "int8_dataset")
            values[argument.name] = tf.constant(array.reshape(items, -1) if rows else array)
    if (folder / "assets" / "scann_scann_config.bin").exists():
        handle = scann_ops.tensors_to_scann(**values, container="", shared_name="tfebr_bench_searcher")
        tf.raw_ops.DestroyResourceOp(resource=handle)
