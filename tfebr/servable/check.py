"""`python -m tfebr.servable.check FOLDER` loads a version folder, asks it the questions written beside it and prints one JSON line."""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfebr.errors import ArtifactError, RequestError, TfebrError
from tfebr.infrastructure.files import read_json
from tfebr.infrastructure.literal_paths import literal
from tfebr.infrastructure.messages import first_line
from tfebr.servable.input_arrays import SAME_ROWS
from tfebr.servable.manifest import FOLDER, read_manifest, register_ops, verify_files

QUESTIONS = f"{FOLDER}/check.json"
_REPEATS = 20
# Two processes may add in another order; ids may change places where scores are this close.
_TOLERANCE = 1e-3
_COMMON_IDS = 0.9


def load(folder: str | os.PathLike) -> Any:
    """Loads a version folder as `tf.saved_model.load` does, with every operation it needs; raises ArtifactError when it is not one."""
    register_ops(folder)
    try:
        with literal(folder) as path:
            return tf.saved_model.load(path)
    except (tf.errors.OpError, OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: TensorFlow cannot load it: {first_line(error)}. Copy the folder again or export anew.") from error


def complete_inputs(specs: Mapping[str, tf.TensorSpec], given: Mapping[str, list]) -> dict[str, tf.Tensor]:
    """A full batch from the inputs that a caller names.

    Args:
        specs: inputs of a signature by name, each with a leading batch dimension.
        given: rows by input name; rows of different lengths are padded with "", 0 or False. Inputs left out are all padding, and have no
            columns where the number of columns is free.

    Raises:
        RequestError: a name is not an input, two inputs differ in rows, or values do not fit the input's type.
    """
    unknown = sorted(set(given) - set(specs))
    if unknown:
        raise RequestError(f"`{unknown[0]}` is not an input. Inputs are: {', '.join(sorted(specs))}.")
    rows = {name: len(values) for name, values in given.items()}
    if len(set(rows.values())) > 1:
        received = ", ".join(f"{name}: {count}" for name, count in rows.items())
        raise RequestError(f"All inputs need the same number of rows. Received: {received}. {SAME_ROWS}")
    batch = next(iter(rows.values()), 1)
    return {name: _tensor(name, spec, given.get(name), batch) for name, spec in specs.items()}


def _tensor(name: str, spec: tf.TensorSpec, values: list | None, batch: int) -> tf.Tensor:
    filler = {tf.string: "", tf.bool: False}.get(spec.dtype, 0)
    if values is None:
        return tf.fill([batch, *(size or 0 for size in spec.shape[1:])], tf.constant(filler, spec.dtype))
    try:
        if spec.shape.rank > 1:
            return tf.ragged.constant(values, spec.dtype, ragged_rank=spec.shape.rank - 1).to_tensor(shape=spec.shape)
        tensor = tf.constant(values, spec.dtype)
        spec.shape.assert_is_compatible_with(tensor.shape)
        return tensor
    except (TypeError, ValueError) as error:
        raise RequestError(f"`{name}` should hold {spec.dtype.name} values of shape {spec.shape}: {first_line(error)}.") from error


def answers(outputs: Mapping[str, tf.Tensor]) -> dict[str, list]:
    """The outputs of `serving_default` or `search` as plain values for JSON."""
    ids = [[item_id.decode() for item_id in row] for row in outputs["ids"].numpy()]
    return {"ids": ids, "scores": outputs["scores"].numpy().tolist(), "num_results": outputs["num_results"].numpy().tolist()}


def check(folder: str | os.PathLike) -> dict[str, float]:
    """Verifies the hashes of a version folder, loads it and compares its answers with the ones expected.

    Returns:
        `load_seconds`, `first_query_ms`, `query_ms` (median) and, on Linux, `resident_mb` and `peak_mb`: memory that loading and the
        questions took beyond what TensorFlow had before.

    Raises:
        ArtifactError: a file is damaged, the model cannot be loaded, or an answer is another one.
    """
    verify_files(folder)
    _start_tensorflow()
    before = _restart_peak()
    start = time.perf_counter()
    model = load(folder)
    figures = {"load_seconds": time.perf_counter() - start}
    times = []
    for number, question in enumerate(read_json(Path(folder, QUESTIONS))):
        find = model.signatures[question.get("signature", "serving_default")]
        inputs = complete_inputs(find.structured_input_signature[1], question["inputs"])
        for _ in range(_REPEATS):
            start = time.perf_counter()
            outputs = find(**inputs)
            times.append(1000 * (time.perf_counter() - start))
        problem = _difference(question["expected"], answers(outputs))
        if problem:
            raise ArtifactError(f"{folder}: check question {number} has another answer after loading: {problem}")
    if times:
        figures |= {"first_query_ms": times[0], "query_ms": float(np.median(times))}
    if before is not None:
        figures |= {"resident_mb": _memory_mb("VmRSS") - before, "peak_mb": _memory_mb("VmHWM") - before}
    return {name: round(value, 3) for name, value in figures.items()}


def _difference(expected: dict[str, list], found: dict[str, list]) -> str:
    """What differs beyond the order of nearly equal scores, or ""."""
    if expected["num_results"] != found["num_results"]:
        return f"num_results {found['num_results']}, expected {expected['num_results']}."
    for row, (wanted, got) in enumerate(zip(expected["scores"], found["scores"], strict=True)):
        if not np.isfinite(got).all() or not np.allclose(wanted, got, rtol=_TOLERANCE, atol=_TOLERANCE):
            return f"row {row} has scores {got[:3]}..., expected {wanted[:3]}..."
    for row, (wanted, got) in enumerate(zip(expected["ids"], found["ids"], strict=True)):
        common = set(wanted) & set(got)
        if len(common) < _COMMON_IDS * len(set(wanted)):
            return f"row {row} has ids {got[:3]}..., expected {wanted[:3]}..."
    return ""


def _start_tensorflow() -> None:
    """Makes TensorFlow allocate what it needs for any model, so that it is not counted as this model's."""
    tf.function(lambda x: tf.matmul(x, x))(tf.ones([64, 64]))


def _restart_peak() -> float | None:
    """Resident memory in MB, from where a new peak is counted; None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _memory_mb("VmRSS")
    except OSError:
        return None


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def main(arguments: list[str] | None = None) -> int:
    """Prints `{"ok": true, figures}` or `{"ok": false, "problem": text}`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tfebr.servable.check", description=__doc__)
    parser.add_argument("folder", help="a version folder, servable/NAME/VERSION")
    folder = parser.parse_args(arguments).folder
    try:
        read_manifest(folder)
        result: dict[str, Any] = {"ok": True, **check(folder)}
    except TfebrError as error:
        result = {"ok": False, "problem": str(error)}
    print(json.dumps(result), flush=True)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
