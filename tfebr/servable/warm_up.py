"""Representative requests of every signature, recorded so that a server's first answer is as fast as its thousandth."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from tfebr.data.names import find_input
from tfebr.errors import ArtifactError, RequestError
from tfebr.infrastructure.messages import first_line
from tfebr.servable.manifest import FOLDER
from tfebr.servable.module import RetrievalServable
from tfebr.servable.tensors import Specs, Tensors, from_protos

WARM_UP = f"{FOLDER}/tf_serving_warmup_requests"
_LIST, _ROWS = 5, 4
# Ones for whole numbers: a stage, an age or a number of results that every model accepts.
_VALUES: dict[tf.DType, Any] = {tf.string: b"", tf.bool: True, tf.float32: 0.0, tf.float64: 0.0}


def samples_of(servable: RetrievalServable, check_inputs: Iterable[Mapping[str, list]]) -> dict[str, dict[str, list]]:
    """By signature, values by input name.

    Queries and filters are those of the check's inputs, ids and categories those of the first items, numbers as by default.
    """
    given = list(check_inputs)
    rows = tf.range(min(_LIST, len(servable.item_ids)))
    ids = servable.item_ids.decode(rows[None])[0].numpy().tolist()
    texts = [text for inputs in given for text in inputs.get("query", []) if text]
    asked = {"query": texts, "history_queries": texts, "history_items": ids, "exclude": ids, "item_ids": ids}
    asked["filter"] = next((clauses for inputs in given for clauses in inputs.get("filter", []) if clauses), [])
    asked |= {"k": [servable.default_k], "leaves_to_search": [0]}
    # Columns of the catalogue are called as they like: as inputs of other signatures, too.
    items, known = {"title": texts, "item_id": ids}, servable.item_encoder.input_signature
    for column, values in servable.attributes.values(rows).items() if servable.attributes is not None else ():
        name = find_input(column, known)
        if name is not None and values.dtype == tf.string:
            items[name] = values.numpy().tolist()
    return {name: items if name == "embed_items" else asked for name in servable.signature_functions()}


def representative_requests(signatures: Mapping[str, Specs], samples: Mapping[str, Mapping[str, Sequence]]) -> list[tuple[str, Tensors]]:
    """Three requests for each signature: one row with empty lists, one with filled ones, and a batch of both kinds.

    Other branches of the graph run with and without a history or a filter, so that both are needed. The first column of every list is
    padding: TensorFlow Serving's batching fills up short lists with a request's first element, and refuses lists without elements.

    Args:
        signatures: specs of the inputs by name, for each signature.
        samples: by signature, values that its inputs by these names may take; others are "", 0.0, 1 or True.

    Returns:
        (signature, inputs) pairs; the second one of a signature is a single row with every list filled.
    """
    kinds = ([False], [True], [row % 2 == 1 for row in range(_ROWS)])
    return [
        (signature, {name: _column(spec, samples.get(signature, {}).get(name, ()), filled) for name, spec in specs.items()})
        for signature, specs in sorted(signatures.items())
        for filled in kinds
    ]


def _column(spec: tf.TensorSpec, samples: Sequence, filled: list[bool]) -> np.ndarray:
    """The rows of one input: samples in turn, or lists of them where `filled`."""
    dtype = object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
    value = _VALUES.get(spec.dtype, 1)
    values: list[Any] = [text.encode() if isinstance(text, str) else text for text in samples]
    if spec.shape.rank == 0:
        return np.array((values or [value])[0], dtype)
    # A foreign model may want another number of rows.
    filled = [filled[row % len(filled)] for row in range(spec.shape[0] or len(filled))]
    if spec.shape.rank == 2 and spec.shape[1] is None:
        values = values[:_LIST] or [value] * _LIST
        width = 1 + (len(values) if any(filled) else 0)
        rows = np.full([len(filled), width], b"" if dtype is object else 0, dtype)
        rows[np.array(filled), 1:] = values[: width - 1]
        return rows
    if spec.dtype == tf.bool:
        values = list(filled)
    column = np.empty([len(filled), *(size or 1 for size in spec.shape[1:])], dtype)
    for row in range(len(filled)):
        column[row] = values[row % len(values)] if values else value
    return column


def write_requests(path: str | os.PathLike, model: str, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]]) -> None:
    """Records requests as `tf_serving_warmup_requests`: a TFRecord of PredictionLog messages.

    Args:
        model: TensorFlow Serving runs a record on the version that it lies beside and reads no more than its signature and inputs; the
            name is only the label under which its metrics count the latency.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name, request.model_spec.signature_name = model, signature
            for name, values in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
            writer.write(log.SerializeToString(deterministic=True))


def read_requests(path: str | os.PathLike, signatures: Mapping[str, Specs]) -> Iterator[tuple[str, Tensors]]:
    """The recorded (signature, inputs) pairs, checked against the specs; raises ArtifactError for one that does not fit its signature."""
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            signature = request.model_spec.signature_name or "serving_default"
            if signature not in signatures:
                raise RequestError(f"the model has no signature `{signature[:60]}`")
            yield signature, from_protos(request.inputs, signatures[signature], max_elements=len(record))
    except (tf.errors.OpError, DecodeError, RequestError) as error:
        raise ArtifactError(f"{path}: a recorded request fails: {first_line(error)}. Write the servable again.") from error
