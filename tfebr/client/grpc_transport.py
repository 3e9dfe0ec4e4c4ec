"""How a client reaches a server over TensorFlow Serving's gRPC API."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from tfebr.client.forks import CallGate, PerProcess
from tfebr.client.transports import Described, NotFoundError, ServerError, unnamed, unreachable
from tfebr.errors import ConfigError, RequestError
from tfebr.servable.tensors import to_proto

_REQUEST_CODES = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
_RECONNECT_MS = 100
# Seconds that a fork waits for calls under way at most.
_FORK_WAIT = 5.0
_GATE = CallGate(_FORK_WAIT)


class GrpcTransport:
    """PredictionService on one channel for each process."""

    def __init__(self, target: str):
        if target.startswith(("http:", "https:")):
            raise ConfigError(f"`target` must be host:port for gRPC. Received: `target` = {target!r}.")
        self._target = target
        self._connection = PerProcess(functools.partial(_Connection.to, target))

    def describe(self, name: str | None, timeout: float) -> Described:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = name or ""
        try:
            answer = self._call("GetModelMetadata", request, timeout)
        except RequestError:
            if name is None:
                raise unnamed(self._target) from None
            raise
        described = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(described)
        signatures = MessageToDict(described, preserving_proto_field_name=True).get("signature_def", {})
        return Described(answer.model_spec.name, answer.model_spec.version.value, signatures)

    def predict(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], model: Described, timeout: float
    ) -> dict[str, Any]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model.name, signature
        if model.number is not None:
            request.model_spec.version.value = model.number
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(to_proto(value))
        return {name: tf.make_ndarray(proto) for name, proto in self._call("Predict", request, timeout).outputs.items()}

    def close(self) -> None:
        connection = self._connection.made()
        if connection is not None:
            connection.channel.close()

    def _call(self, method: str, request: Any, timeout: float) -> Any:
        if _GATE.broken:
            raise ServerError(
                f"{self._target}: this process was forked while another thread was in a gRPC call, after which gRPC does not work here. "
                "Fork before the first call, start processes by `spawn`, or ask over REST."
            )
        try:
            with _GATE.call():
                return getattr(self._connection.get().stub, method)(request, timeout=timeout)
        except grpc.RpcError as error:
            code, said = error.code(), error.details()
            if code == grpc.StatusCode.UNAVAILABLE:
                raise unreachable(self._target, "gRPC", said) from error
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from error
            kind = NotFoundError if code == grpc.StatusCode.NOT_FOUND else RequestError if code in _REQUEST_CODES else ServerError
            raise kind(f"{self._target}: {said} (gRPC {code.name})") from error


@dataclasses.dataclass(frozen=True)
class _Connection:
    channel: grpc.Channel
    stub: Any

    @classmethod
    def to(cls, target: str) -> "_Connection":
        # Answers of any size; and a proxy in the environment is meant for the web, not for this server (REST ignores it too).
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
        # A server that comes back is found by the client's next attempt, not seconds later.
        options += [(f"grpc.{name}_reconnect_backoff_ms", _RECONNECT_MS) for name in ("initial", "min", "max")]
        channel = grpc.insecure_channel(target, options=options)
        return cls(channel, prediction_service_pb2_grpc.PredictionServiceStub(channel))
