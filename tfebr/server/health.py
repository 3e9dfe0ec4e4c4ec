"""grpc.health.v1, the health check that Kubernetes and load balancers ask over gRPC, under the names that TensorFlow Serving gives."""

from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

# The short names are TensorFlow Serving's own.
_SERVICES = (
    "",
    "PredictionService",
    "ModelService",
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
)


class _Servicer(health.HealthServicer):
    """Ends its streams when the server does, which would wait for them otherwise."""

    def __init__(self) -> None:
        self._streams: set[Callable[[Any], None]] = set()
        super().__init__(experimental_non_blocking=True)

    def Watch(self, request: Any, context: grpc.ServicerContext, send_response_callback: Callable[[Any], None]) -> None:
        self._streams.add(send_response_callback)
        context.add_callback(lambda: self._streams.discard(send_response_callback))
        super().Watch(request, context, send_response_callback)

    def end_streams(self) -> None:
        for send in list(self._streams):
            send(None)


class Health:
    """`Check` and `Watch` of the whole server, of its two services, and of the model by its name.

    Args:
        server: answers in its own threads; a `Watch` takes none.
        model: the name of the model.
    """

    def __init__(self, server: grpc.Server, model: str):
        self._model, self._loaded = model, True
        self._servicer = _Servicer()
        for service in _SERVICES:
            self._servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        self._servicer.set(model, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def set_loaded(self, loaded: bool) -> None:
        """Says whether any version of the model answers."""
        status = health_pb2.HealthCheckResponse
        # Those who watch are told of changes.
        if loaded != self._loaded:
            self._servicer.set(self._model, status.SERVING if loaded else status.NOT_SERVING)
        self._loaded = loaded

    def close(self) -> None:
        """Says that nothing is served any more, to those who watch, too."""
        self._servicer.enter_graceful_shutdown()
        self._servicer.end_streams()
