"""One version of a servable in memory, loaded the way TensorFlow Serving loads it: into a session of its own."""

import logging
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Importing these two registers the ops that a servable may hold.
import scann  # noqa: F401
import tensorflow as tf
import tensorflow_text  # noqa: F401
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2, saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from tfebr.errors import ArtifactError, RequestError
from tfebr.infrastructure.literal_paths import literal
from tfebr.infrastructure.messages import first_line
from tfebr.servable import shard_set
from tfebr.servable.manifest import FAULTS, FOLDER, MANIFEST, file_state, read_manifest
from tfebr.servable.tensors import Specs, Tensors
from tfebr.servable.warm_up import WARM_UP, read_requests

_log = logging.getLogger(__name__)


class UnknownSignatureError(RequestError):
    """The model has no signature of that name."""


class Model:
    """One loaded version; a request keeps hold of it, so that a newer version cannot pull it away.

    What it takes in memory, the index included, is given back with the last reference: everything belongs to its session.

    Args:
        folder: the version folder. Where it has a manifest, every file that is read here is checked against it before any is used.
        version: the number of its folder.

    Attributes:
        version: the number of its folder.
        signature_defs: the SavedModel's signatures as TensorFlow Serving reports them.

    Raises:
        ArtifactError: a file is missing or damaged, an op is needed that is not installed, or a recorded request fails.
    """

    def __init__(self, folder: Path, version: int):
        self.version = version
        shard = _verified(folder).get("about", {}).get("shard", {})
        self.signature_defs = _signature_defs(folder)
        if "set" in shard:
            shard_set.mark(self.signature_defs.signature_def, shard["set"])
        signatures = {name: about for name, about in self.signature_defs.signature_def.items() if not name.startswith("__")}
        if not signatures:
            raise ArtifactError(f"{folder}: the SavedModel has no signatures, so nothing can be asked of it. Write the servable again.")
        self._inputs: dict[str, Specs] = {name: _specs(about.inputs) for name, about in signatures.items()}
        self._outputs = {name: sorted(about.outputs) for name, about in signatures.items()}
        session = _load(folder)
        weakref.finalize(self, session.close)
        self._calls = {
            name: _Call(
                session,
                feeds=[about.inputs[key].name for key in self._inputs[name]],
                fetches=[about.outputs[key].name for key in self._outputs[name]],
            )
            for name, about in signatures.items()
        }
        self._warm_up(folder)

    def inputs(self, signature: str) -> Specs:
        """Name, dtype and shape of every input of `signature` ("": serving_default); raises UnknownSignatureError when there is none."""
        name = signature or "serving_default"
        if name not in self._inputs:
            raise UnknownSignatureError(
                f'Serving signature name: "{name[:60]}" not found. This model has: {", ".join(sorted(self._inputs))}.'
            )
        return self._inputs[name]

    def outputs(self, signature: str) -> list[str]:
        """Names of the outputs of a signature of this model."""
        return self._outputs[signature or "serving_default"]

    def not_for(self, api: str, signature: str) -> str:
        """Why a signature cannot be asked through "classify" or "regress", in TensorFlow Serving's words: its method is another one."""
        method = self.signature_defs.signature_def[signature or "serving_default"].method_name
        kind = {"classify": "classification", "regress": "regression"}[api]
        return (
            f"Expected {kind} signature method_name to be tensorflow/serving/{api}. Was: {method}. "
            "This server offers Predict; signatures of other methods are not run here."
        )

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> Tensors:
        """Runs a signature on inputs that fit its specs; TensorFlow's own errors pass through."""
        name = signature or "serving_default"
        values = self._calls[name](*(inputs[key] for key in self._inputs[name]))
        return {output: _array(value) for output, value in zip(self._outputs[name], values, strict=True)}

    def _warm_up(self, folder: Path) -> None:
        """Replays the recorded requests, as TensorFlow Serving does before it switches to a version."""
        recorded = folder / WARM_UP
        if not recorded.exists():
            return
        start = time.perf_counter()
        for signature, inputs in read_requests(recorded, self._inputs):
            try:
                self.run(signature, inputs)
            except tf.errors.OpError as error:
                raise ArtifactError(f"{recorded}: a recorded request fails: {first_line(error)}. Write the servable again.") from error
        _log.info("version %d: recorded requests replayed in %.0f ms", self.version, 1000 * (time.perf_counter() - start))


def _verified(folder: Path) -> dict[str, Any]:
    """The manifest, empty where there is none; refuses damaged files by name before an operation reads them: ScaNN may end the process."""
    if not (folder / MANIFEST).exists():
        return {}
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        path = folder / name
        # Configuration and clients beside the model are for people, who may change them; recorded requests may be left out.
        if name.startswith(f"{FOLDER}/") and not (name == WARM_UP and path.exists()):
            continue
        state = file_state(path, expected)
        if state in FAULTS:
            raise ArtifactError(f"{path}: {FAULTS[state]}")
    return manifest


def _signature_defs(folder: Path) -> get_model_metadata_pb2.SignatureDefMap:
    file = folder / "saved_model.pb"
    try:
        saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise ArtifactError(f"{file}: cannot be read as a SavedModel: {error}. Write the servable again.") from error
    graphs = [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags]
    if not graphs:
        raise ArtifactError(f'{file}: holds no graph with the tag "serve". Write the servable again.')
    return get_model_metadata_pb2.SignatureDefMap(signature_def=graphs[0].signature_def)


def _specs(infos: Mapping[str, Any]) -> Specs:
    return {name: tf.TensorSpec(tf.TensorShape(info.tensor_shape), info.dtype, name) for name, info in sorted(infos.items())}


def _load(folder: Path) -> tf.compat.v1.Session:
    graph = tf.Graph()
    config = tf.compat.v1.ConfigProto()
    # A second round of graph optimisation is a quarter of the time of a load, and queries are no faster for it.
    config.graph_options.rewrite_options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    session = tf.compat.v1.Session(graph=graph, config=config)
    logger = tf.get_logger()
    level = logger.level
    try:
        # It advises to load without a session.
        logger.setLevel(logging.ERROR)
        with graph.as_default(), literal(folder) as path:
            tf.compat.v1.saved_model.load(session, ["serve"], path)
    # A damaged SavedModel shows as nearly anything: ValueError, KeyError, AttributeError, DataLossError, NotFoundError.
    except Exception as error:
        session.close()
        missing = re.search(r"Op type not registered '([^']+)'", str(error))
        if missing:
            raise ArtifactError(
                f"{folder}: the servable needs the op `{missing[1]}`, which TensorFlow {tf.__version__}, tensorflow-text and scann do not "
                "have as installed here. Install the versions that the servable was written with, or write it again with these."
            ) from error
        raise ArtifactError(f"{folder}: cannot be loaded: {first_line(error)}. Write the servable again.") from error
    finally:
        logger.setLevel(level)
    return session


class _Call:
    """Feeds to fetches; the graph is optimised at the first call.

    `Session.make_callable` goes through `Session.run` where there are feeds, an eighth of a query more, all of it under Python's lock. The
    many small operations run in the thread that asks: handing each to a pool takes a third of the processor's time when many ask at once.
    """

    def __init__(self, session: tf.compat.v1.Session, feeds: list[str], fetches: list[str]):
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches, run_options=config_pb2.RunOptions(inter_op_thread_pool=-1))
        self._make = lambda: session._make_callable_from_options(options)
        self._lock = threading.Lock()
        self._made: Callable[..., list[Any]] | None = None

    def __call__(self, *values: np.ndarray) -> list[Any]:
        if self._made is None:
            with self._lock:
                self._made = self._made or self._make()
        return self._made(*values)


def _array(value: Any) -> np.ndarray:
    # A scalar comes out of a session as NumPy's or, of strings, as plain bytes.
    return value if isinstance(value, np.ndarray) else np.array(value, dtype=object if isinstance(value, bytes) else None)
