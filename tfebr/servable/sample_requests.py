"""One request as a line for the shell: curl for REST, grpcurl for gRPC, with the real inputs of a signature."""

import base64
import json
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import predict_pb2

from tfebr.servable.tensors import to_proto

_SERVICE = "tensorflow.serving.PredictionService"


def json_values(values: np.ndarray) -> Any:
    """A tensor as nested JSON lists the way TensorFlow Serving reads them; bytes that are no text become {"b64": ...}."""
    if values.dtype != object:
        return values.tolist()
    if values.shape:
        return [json_values(row if isinstance(row, np.ndarray) else np.array(row, object)) for row in values]
    try:
        return values.item().decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(values.item()).decode("ascii")}


def curl(model: str, signature: str, inputs: Mapping[str, np.ndarray], server: str = "http://127.0.0.1:8501") -> str:
    """A line for a POSIX shell; in column form, which every signature answers."""
    body = {"signature_name": signature, "inputs": {name: json_values(values) for name, values in sorted(inputs.items())}}
    return shlex.join(["curl", "-s", "-d", json.dumps(body, ensure_ascii=False), f"{server}/v1/models/{quote(model)}:predict"])


def grpcurl(model: str, signature: str, inputs: Mapping[str, np.ndarray], protoset: str | None, server: str = "127.0.0.1:8500") -> str:
    """A line for a POSIX shell; strings are base64, which is protobuf's JSON for bytes.

    Args:
        protoset: the file that `service_descriptors` makes; without it the line reads the protos of TensorFlow and TensorFlow Serving out
            of their repositories, cloned into the folders `tensorflow` and `serving`.
    """
    tensors = {name: MessageToDict(to_proto(values), preserving_proto_field_name=True) for name, values in sorted(inputs.items())}
    body = json.dumps({"model_spec": {"name": model, "signature_name": signature}, "inputs": tensors}, ensure_ascii=False)
    proto = "tensorflow_serving/apis/prediction_service.proto"
    known = ["-protoset", protoset] if protoset else ["-import-path", "serving", "-import-path", "tensorflow", "-proto", proto]
    return shlex.join(["grpcurl", "-plaintext", *known, "-d", body, server, f"{_SERVICE}/Predict"])


def service_descriptors() -> bytes:
    """TensorFlow Serving's Predict call as a FileDescriptorSet: the server has no reflection, and no package holds its .proto files."""
    files: dict[str, FileDescriptorProto] = {}

    def add(file: FileDescriptor) -> None:
        for needed in file.dependencies:
            add(needed)
        if file.name not in files:
            files[file.name] = FileDescriptorProto()
            file.CopyToProto(files[file.name])

    add(predict_pb2.DESCRIPTOR)
    # Written out: tensorflow-serving-api's own module of the service cannot be imported beside protobuf 6.
    name = "tensorflow_serving/apis/prediction_service.proto"
    file = FileDescriptorProto(name=name, package="tensorflow.serving", syntax="proto3", dependency=[predict_pb2.DESCRIPTOR.name])
    types = {"input_type": ".tensorflow.serving.PredictRequest", "output_type": ".tensorflow.serving.PredictResponse"}
    file.service.add(name="PredictionService").method.add(name="Predict", **types)
    return FileDescriptorSet(file=[*files.values(), file]).SerializeToString(deterministic=True)
