"""The gRPC half of the local server: TensorFlow Serving's PredictionService and ModelService."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator

import grpc
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfebr.errors import RequestError
from tfebr.servable.messages import first_line
from tfebr.servable.metrics import Handled
from tfebr.servable.tensors import from_protos, rows_of, to_proto
from tfebr.servable.versions import NotServedError, Versions

_log = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def add_services(server: grpc.Server, versions: Versions, max_elements: int, observe: Callable[[Handled], None]) -> None:
    """Registers both services with a gRPC server.

    Args:
        server: answers in its own threads.
        versions: the loaded model.
        max_elements: largest input tensor that is accepted.
        observe: called with every request that was handled.
    """
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(versions, max_elements, observe), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(versions, observe), server)


def _not_offered(self: object, request: Message, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "This server offers Predict, GetModelMetadata and GetModelStatus only.")


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    Classify = Regress = MultiInference = _not_offered

    def __init__(self, versions: Versions, max_elements: int, observe: Callable[[Handled], None]):
        self._versions = versions
        self._max_elements = max_elements
        self._observe = observe

    def Predict(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> predict_pb2.PredictResponse:
        with _status_codes(context, "predict", self._observe) as handled:
            name, version, label = _spec(request)
            model = self._versions.get(name, version, label)
            handled.model, handled.version = name, model.version
            signature = request.model_spec.signature_name or "serving_default"
            specs = model.inputs(signature)
            handled.signature = signature
            inputs = from_protos(request.inputs, specs, self._max_elements)
            handled.rows = rows_of(inputs)
            wanted = _filtered(request.output_filter, model.outputs(signature))
            outputs = model.run(signature, inputs)
            response = predict_pb2.PredictResponse()
            response.model_spec.name, response.model_spec.signature_name = name, signature
            response.model_spec.version.value = model.version
            for output in wanted:
                response.outputs[output].CopyFrom(to_proto(outputs[output]))
        return response

    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        with _status_codes(context, "metadata", self._observe):
            if list(request.metadata_field) != ["signature_def"]:
                raise RequestError(f'`metadata_field` must be ["signature_def"]. Received: {list(request.metadata_field)[:3]}.')
            response = self._versions.metadata(*_spec(request))
        return response


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    HandleReloadConfigRequest = _not_offered

    def __init__(self, versions: Versions, observe: Callable[[Handled], None]):
        self._versions = versions
        self._observe = observe

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        with _status_codes(context, "status", self._observe):
            response = self._versions.status(*_spec(request))
        return response


@contextlib.contextmanager
def _status_codes(context: grpc.ServicerContext, api: str, observe: Callable[[Handled], None]) -> Iterator[Handled]:
    code, message = grpc.StatusCode.INTERNAL, "Internal error of the server."
    handled, start = Handled("GRPC", api), time.perf_counter()
    try:
        yield handled
        handled.microseconds = 1e6 * (time.perf_counter() - start)
        observe(handled)
        return
    except NotServedError as error:
        code, message = grpc.StatusCode.NOT_FOUND, str(error)
    except RequestError as error:
        code, message = grpc.StatusCode.INVALID_ARGUMENT, str(error)
    except tf.errors.OpError as error:
        code, message = _CODES.get(error.error_code, code), first_line(error)
    except Exception as error:
        # The type alone: a message or a traceback may hold what a shop's customer typed.
        _log.error("a gRPC request failed with %s", type(error).__name__)
    handled.status = code.name
    handled.microseconds = 1e6 * (time.perf_counter() - start)
    observe(handled)
    context.abort(code, message)


def _spec(
    request: predict_pb2.PredictRequest | get_model_metadata_pb2.GetModelMetadataRequest | get_model_status_pb2.GetModelStatusRequest,
) -> tuple[str, int | None, str | None]:
    spec: model_pb2.ModelSpec = request.model_spec
    if not spec.name:
        raise RequestError("Missing ModelSpec: `model_spec.name` must be the name of the model.")
    label = spec.version_label if spec.WhichOneof("version_choice") == "version_label" else None
    return spec.name, spec.version.value if spec.HasField("version") else None, label


def _filtered(output_filter: Iterable[str], outputs: list[str]) -> list[str]:
    wanted = list(output_filter) or outputs
    unknown = [name for name in wanted if name not in outputs]
    if unknown:
        raise RequestError(f"output tensor alias not found in signature: {unknown[0][:60]}. Outputs expected to be in {outputs}.")
    if len(set(wanted)) < len(wanted):
        raise RequestError(f"`output_filter` names an output twice: {wanted}.")
    return wanted
