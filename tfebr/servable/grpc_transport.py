"""How a client reaches a server over TensorFlow Serving's gRPC API."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from tfebr.errors import ConfigError, RequestError
from tfebr.servable.tensors import to_proto
from tfebr.servable.transports import ServerError, unreachable

_REQUEST_CODES = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
_RECONNECT_MS = 100


class GrpcTransport:
    """PredictionService on one channel."""

    def __init__(self, target: str, name: str):
        if target.startswith(("http:", "https:")):
            raise ConfigError(f"`target` must be host:port for gRPC. Received: `target` = {target!r}.")
        self._target, self._name = target, name
        # Answers of any size; and a proxy in the environment is meant for the web, not for this server (REST ignores it too).
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
        # A server that comes back is found by the client's next attempt, not seconds later.
        options += [(f"grpc.{name}_reconnect_backoff_ms", _RECONNECT_MS) for name in ("initial", "min", "max")]
        self._channel = grpc.insecure_channel(target, options=options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def signatures(self, timeout: float) -> Mapping[str, Any]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._name
        described = get_model_metadata_pb2.SignatureDefMap()
        self._call(self._stub.GetModelMetadata, request, timeout).metadata["signature_def"].Unpack(described)
        return MessageToDict(described, preserving_proto_field_name=True)["signature_def"]

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], timeout: float) -> dict[str, Any]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._name, signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(to_proto(value))
        return {name: tf.make_ndarray(proto) for name, proto in self._call(self._stub.Predict, request, timeout).outputs.items()}

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            code, said = error.code(), error.details()
            if code == grpc.StatusCode.UNAVAILABLE:
                raise unreachable(self._target, "gRPC", said) from error
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from error
            kind = RequestError if code in _REQUEST_CODES else ServerError
            raise kind(f"{self._target}: {said} (gRPC {code.name})") from error
