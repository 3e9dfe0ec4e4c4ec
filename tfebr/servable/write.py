"""Publishing a servable: written aside, checked in a fresh process, then renamed to the next version number."""

import datetime
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

import tfebr
from tfebr.errors import ArtifactError, ConfigError
from tfebr.index.index_report import IndexReport
from tfebr.index.recall_picture import draw_report
from tfebr.infrastructure.disk import tensorflow_disk_errors
from tfebr.infrastructure.files import TakenError, atomic_folder, remove_abandoned, write_json
from tfebr.infrastructure.literal_paths import literal
from tfebr.infrastructure.messages import first_line
from tfebr.infrastructure.native_logs import is_noise
from tfebr.servable import check, kit, manifest, warm_up
from tfebr.servable.module import RetrievalServable
from tfebr.servable.slim import slim
from tfebr.servable.tensors import Tensors
from tfebr.servable.version_folders import next_version, version_folders

PICTURE = "recall.png"


def write(
    servable: RetrievalServable,
    base: str | os.PathLike,
    about: dict[str, Any],
    check_inputs: Sequence[Mapping[str, list]],
    report: IndexReport | None = None,
) -> Path:
    """Writes `<base>/<next version>/`, a SavedModel with its manifest, warm-up requests and serving kit, and returns its path.

    Nothing is seen under the new number before a fresh process has loaded the model and given the expected answers. On any failure the
    earlier versions stay as they were and nothing of the new one is left. What a killed export left behind is removed by the next one.

    Args:
        servable: what to write.
        base: `servable/<name>`; created when missing. It may hold versions only.
        about: model name and what else the manifest should say; plain JSON values.
        check_inputs: batches of raw inputs by name, as `check.complete_inputs` takes them, whose answers must be the same after loading;
            with an input that only `search` has they are for that, else for `serving_default`.
        report: of the index, for the manifest; its picture of recall and latency lies beside it.

    Raises:
        ConfigError: `check_inputs` holds a filter, but the servable takes none.
        ArtifactError: `base` holds something else than versions, the graph has operations that no server knows, a warm-up request fails, or
            the check does.
        TfebrError: the disk is full or not writable.
    """
    base = Path(base)
    name = base.resolve().name
    target = base / str(next_version(base))
    if base.is_dir():
        remove_abandoned(base)
    functions = servable.signature_functions()
    questions = []
    for given in check_inputs:
        signature = "search" if given.keys() - servable.query_encoder.input_signature.keys() else "serving_default"
        if "filter" in given and servable.attributes is None:
            raise ConfigError("`check_inputs` holds a filter, but the servable has no attributes.")
        specs = functions[signature].structured_input_signature[1]
        outputs = functions[signature](**check.complete_inputs(specs, given))
        questions.append({"signature": signature, "inputs": dict(given), "expected": check.answers(outputs)})
    columns = servable.attributes.columns if servable.attributes else {}
    requests = _warm_up_requests(functions, warm_up.samples_of(servable, check_inputs))
    try:
        with atomic_folder(target, replace=False) as partial:
            _save(servable, functions, partial, target, about.get("shard", {}).get("set"))
            (partial / manifest.FOLDER).mkdir()
            write_json(partial / check.QUESTIONS, questions)
            with tensorflow_disk_errors(target):
                warm_up.write_requests(partial / warm_up.WARM_UP, name, requests)
            kit.write_kit(partial, name, next(inputs for signature, inputs in requests if signature == "search"))
            if report is not None:
                draw_report(report, partial / manifest.FOLDER / PICTURE)
            said = about | {"results": {"default": servable.default_k, "most": servable.max_k}}
            written = manifest.write_manifest(partial, said, report.as_dict() if report else None, columns)
            written["checked"] = _check_in_fresh_process(partial)
            written["created"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            write_json(partial / manifest.MANIFEST, written)
    except TakenError as error:
        raise ArtifactError(f"{target}: another export published this version meanwhile. Export again to get the next one.") from error
    return target


def latest(base: str | os.PathLike) -> Path:
    """The newest version folder under `base`; raises ArtifactError when there is none."""
    versions = version_folders(base)
    if not versions:
        raise ArtifactError(f"{base}: holds no servable version yet. Write one with `tfebr export`.")
    return versions[max(versions)]


def _save(servable: RetrievalServable, functions: dict[str, Any], folder: Path, target: Path, shard_set: str | None) -> None:
    # The list is an assertion: an operation of any other library would be refused by every server.
    options = tf.saved_model.SaveOptions(namespace_whitelist=["Scann", "TFText"])
    absl = logging.getLogger("absl")
    level = absl.level
    try:
        with tensorflow_disk_errors(target), literal(folder) as path:
            tf.saved_model.save(servable, path, signatures=functions, options=options)
            slim(Path(path), shard_set)
    finally:
        # TensorFlow sets it while it looks at attributes, and does not put back what was there.
        absl.setLevel(level)


def _warm_up_requests(functions: dict[str, Any], samples: Mapping[str, Mapping[str, Sequence]]) -> list[tuple[str, Tensors]]:
    """Requests that have been answered once: a server refuses a version for a single recorded request that fails."""
    requests = warm_up.representative_requests({name: f.structured_input_signature[1] for name, f in functions.items()}, samples)
    for signature, inputs in requests:
        try:
            functions[signature](**{name: tf.constant(values) for name, values in inputs.items()})
        except tf.errors.OpError as error:
            raise ArtifactError(f"The signature `{signature}` fails on a representative request: {first_line(error)}.") from error
    return requests


def _check_in_fresh_process(folder: Path) -> dict[str, Any]:
    package = str(Path(tfebr.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "tfebr.servable.check", str(folder.resolve())]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = ended.stdout.strip().splitlines()
    try:
        result = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        last_words = ["no message", *(line for line in ended.stderr.splitlines() if line.strip() and not is_noise(line, gpu=True))][-1]
        result = {"ok": False, "problem": f"the process ended with code {ended.returncode}: {last_words}"}
    if not result.pop("ok"):
        raise ArtifactError(f"The new version failed its check in a fresh process and is not published: {result['problem']}")
    return result
