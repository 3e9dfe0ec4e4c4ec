"""grpc.health.v1, the health check that Kubernetes and load balancers ask over gRPC."""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "grpc.health.v1"
_UNKNOWN, _SERVING, _NOT_SERVING = 0, 1, 2


def _messages() -> tuple[Any, Any]:
    """HealthCheckRequest and HealthCheckResponse, in a pool of their own: the package of the same messages may be installed too."""
    file = descriptor_pb2.FileDescriptorProto(name="grpc/health/v1/health.proto", package=_PACKAGE, syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    status = response.enum_type.add(name="ServingStatus")
    for name, number in (("UNKNOWN", _UNKNOWN), ("SERVING", _SERVING), ("NOT_SERVING", _NOT_SERVING)):
        status.value.add(name=name, number=number)
    name = f".{_PACKAGE}.HealthCheckResponse.ServingStatus"
    response.field.add(name="status", number=1, type=field.TYPE_ENUM, type_name=name, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return tuple(message_factory.GetMessageClass(find(f"{_PACKAGE}.{name}")) for name in ("HealthCheckRequest", "HealthCheckResponse"))


HealthCheckRequest, HealthCheckResponse = _messages()


def add_health(server: grpc.Server, services: set[str], serving: Callable[[], bool]) -> None:
    """Registers `Check`; `Watch` answers UNIMPLEMENTED, by which clients know to go on without it.

    Args:
        server: answers in its own threads.
        services: names that may be asked about, beside "" for the whole server.
        serving: whether requests are answered.
    """

    def check(request: Any, context: grpc.ServicerContext) -> Any:
        if request.service and request.service not in services:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"There is no service {request.service[:60]}. Services: {', '.join(sorted(services))}."
            )
        return HealthCheckResponse(status=_SERVING if serving() else _NOT_SERVING)

    handler = grpc.unary_unary_rpc_method_handler(
        check, request_deserializer=HealthCheckRequest.FromString, response_serializer=HealthCheckResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{_PACKAGE}.Health", {"Check": handler}),))
