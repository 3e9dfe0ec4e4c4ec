"""The gRPC half of the local server: TensorFlow Serving's PredictionService and ModelService."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tfebr.errors import RequestError
from tfebr.infrastructure.messages import first_line
from tfebr.servable.tensors import from_protos, rows_of, to_proto
from tfebr.server.loaded import UnknownSignatureError
from tfebr.server.prometheus import Handled
from tfebr.server.version_policy import read_config
from tfebr.server.versions import NotServedError, UnavailableLabelError, Versions
from tfebr.server.work import LeftError

_log = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def add_services(
    server: grpc.Server, versions: Versions, executor: ThreadPoolExecutor, max_elements: int, observe: Callable[[Handled], None]
) -> None:
    """Registers both services with a gRPC server.

    Args:
        server: answers in its own threads, all but predictions.
        versions: the loaded model.
        executor: whose threads predict, so that nothing else waits behind predictions.
        max_elements: largest input tensor that is accepted.
        observe: called with every request that was handled.
    """
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(versions, executor, max_elements, observe), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(versions, observe), server)


class _InThreads:
    """A method with threads of its own, which gRPC for Python reads off this attribute.

    What was cancelled, or missed its deadline, while it waited for a thread is dropped by gRPC: a message is taken in only then.
    """

    def __init__(self, executor: ThreadPoolExecutor, method: Callable[[Any, grpc.ServicerContext], Message]):
        self.experimental_thread_pool, self._method = executor, method

    def __call__(self, request: Message, context: grpc.ServicerContext) -> Message:
        return self._method(request, context)


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, versions: Versions, executor: ThreadPoolExecutor, max_elements: int, observe: Callable[[Handled], None]):
        self._versions = versions
        self._max_elements = max_elements
        self._observe = observe
        self.Predict = _InThreads(executor, self._predict)

    def Classify(self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext) -> None:
        self._refuse(request.model_spec, "classify", context)

    def Regress(self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext) -> None:
        self._refuse(request.model_spec, "regress", context)

    def MultiInference(self, request: inference_pb2.MultiInferenceRequest, context: grpc.ServicerContext) -> None:
        task = request.tasks[0] if request.tasks else inference_pb2.InferenceTask()
        self._refuse(task.model_spec, "regress" if task.method_name.endswith("regress") else "classify", context)

    def _refuse(self, spec: model_pb2.ModelSpec, api: str, context: grpc.ServicerContext) -> None:
        with _status_codes(context, api, self._observe):
            model = self._versions.get(*_spec(spec))
            model.inputs(spec.signature_name)
            raise RequestError(model.not_for(api, spec.signature_name))

    def _predict(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> predict_pb2.PredictResponse:
        with _status_codes(context, "predict", self._observe) as handled:
            name, version, label = _spec(request.model_spec)
            model = self._versions.get(name, version, label)
            handled.model, handled.version = name, model.version
            signature = request.model_spec.signature_name or "serving_default"
            specs = model.inputs(signature)
            handled.signature = signature
            inputs = from_protos(request.inputs, specs, self._max_elements)
            handled.rows = rows_of(inputs)
            wanted = _filtered(request.output_filter, model.outputs(signature))
            _check_waiting(context)
            outputs = model.run(signature, inputs)
            _check_waiting(context)
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
            if not request.metadata_field:
                raise RequestError("GetModelMetadataRequest must specify at least one metadata_field.")
            unknown = [field for field in request.metadata_field if field != "signature_def"]
            if unknown:
                raise RequestError(f"Metadata field {unknown[0][:60]} is not supported: `metadata_field` must be signature_def.")
            name, version, label = _spec(request.model_spec, self._versions.name)
            response = self._versions.metadata(name, version, label)
        return response


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, versions: Versions, observe: Callable[[Handled], None]):
        self._versions = versions
        self._observe = observe

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        with _status_codes(context, "status", self._observe):
            if not request.HasField("model_spec"):
                raise RequestError("Missing ModelSpec.")
            response = self._versions.status(*_spec(request.model_spec, ""))
        return response

    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        with _status_codes(context, "reload", self._observe):
            self._versions.configure(*read_config(request.config, self._versions.name, self._versions.base))
        return model_management_pb2.ReloadConfigResponse()


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
    except (UnknownSignatureError, UnavailableLabelError) as error:
        code, message = grpc.StatusCode.FAILED_PRECONDITION, str(error)
        # TensorFlow Serving's Predict says so, while Classify and Regress call the same an invalid argument.
        if api in ("classify", "regress"):
            code = grpc.StatusCode.INVALID_ARGUMENT
    except RequestError as error:
        code, message = grpc.StatusCode.INVALID_ARGUMENT, str(error)
    except LeftError:
        code, message = grpc.StatusCode.CANCELLED, "The client has left."
    except tf.errors.OpError as error:
        code, message = _CODES.get(error.error_code, code), first_line(error)
    except Exception as error:
        # The type alone: a message or a traceback may hold what a shop's customer typed.
        _log.error("a gRPC request failed with %s", type(error).__name__)
    handled.status = code.name
    handled.microseconds = 1e6 * (time.perf_counter() - start)
    observe(handled)
    context.abort(code, message)


def _check_waiting(context: grpc.ServicerContext) -> None:
    """Raises LeftError when the client has cancelled or its deadline has passed: what is still to be done need not be."""
    if not context.is_active():
        raise LeftError


def _spec(spec: model_pb2.ModelSpec, unnamed: str | None = None) -> tuple[str, int | None, str | None]:
    """Name, version and label of a request; `unnamed` is the name where it gives none, which is refused by default."""
    name = spec.name or unnamed
    if name is None:
        raise RequestError("Missing ModelSpec: `model_spec.name` must be the name of the model.")
    label = spec.version_label if spec.WhichOneof("version_choice") == "version_label" else None
    return name, spec.version.value if spec.HasField("version") else None, label


def _filtered(output_filter: Iterable[str], outputs: list[str]) -> list[str]:
    wanted = list(output_filter) or outputs
    unknown = [name for name in wanted if name not in outputs]
    if unknown:
        raise RequestError(f"output tensor alias not found in signature: {unknown[0][:60]}. Outputs expected to be in {outputs}.")
    if len(set(wanted)) < len(wanted):
        raise RequestError(f"`output_filter` names an output twice: {wanted}.")
    return wanted
