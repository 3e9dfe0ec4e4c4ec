"""The REST half of the local server: TensorFlow Serving's predict, status, metadata and monitoring addresses."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import Executor

import grpc
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis import get_model_metadata_pb2

from tfebr.errors import RequestError
from tfebr.servable.messages import first_line
from tfebr.servable.metrics import MEDIA_TYPE, PATH, Handled, Metrics, code_name
from tfebr.servable.tensors import from_json, parse_body, rows_of, to_json
from tfebr.servable.versions import NotServedError, Versions

_log = logging.getLogger(__name__)
_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_PREDICT = re.compile(f"{_MODEL}:predict", re.IGNORECASE)
_STATUS = re.compile(f"{_MODEL}(/metadata)?", re.IGNORECASE)
# TensorFlow Serving's translation of its status codes; all others are 500.
_HTTP = {
    tf.errors.INVALID_ARGUMENT: 400,
    tf.errors.FAILED_PRECONDITION: 400,
    tf.errors.OUT_OF_RANGE: 400,
    tf.errors.NOT_FOUND: 404,
    tf.errors.RESOURCE_EXHAUSTED: 429,
    tf.errors.UNIMPLEMENTED: 501,
    tf.errors.UNAVAILABLE: 503,
    tf.errors.DEADLINE_EXCEEDED: 504,
}
# A refused body is read on, and forgotten, up to so many times the limit: a client that is still sending would not see the answer.
_DRAINED = 4


class _TooLarge(Exception):
    pass


class _UnknownAddress(Exception):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def rest_app(
    versions: Versions, executor: Executor, max_body_bytes: int, metrics: Metrics, observe: Callable[[Handled], None]
) -> Starlette:
    """The ASGI application that answers for the models of `versions`.

    Args:
        versions: the loaded model.
        executor: runs reading, inference and writing of a request, so that the event loop only moves bytes.
        max_body_bytes: larger request bodies are refused with 413.
        metrics: what the monitoring page shows.
        observe: called with every request that was handled.
    """

    async def answer(request: Request) -> Response:
        handled = Handled("REST", "predict" if _PREDICT.fullmatch(request.url.path) else "")
        try:
            body = await _read(request, max_body_bytes)
        except _TooLarge:
            handled.status = grpc.StatusCode.RESOURCE_EXHAUSTED.name
            observe(handled)
            return _error(413, f"The body is larger than {max_body_bytes} bytes: send fewer rows in a request.")
        except ClientDisconnect:
            return Response(status_code=499)
        work = asyncio.get_running_loop().run_in_executor
        return await work(
            executor, _observed, handled, observe, lambda: _respond(versions, handled, request.method, request.url.path, body)
        )

    async def monitoring(request: Request) -> Response:
        return Response(metrics.page(versions.name, versions.loaded()), media_type=MEDIA_TYPE)

    everything = Route("/{path:path}", answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    return Starlette(routes=[Route(PATH, monitoring, methods=["GET"]), everything])


async def _read(request: Request, limit: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit * _DRAINED:
            break
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
    if size > limit:
        raise _TooLarge
    return b"".join(chunks)


def _observed(handled: Handled, observe: Callable[[Handled], None], respond: Callable[[], Response]) -> Response:
    start = time.perf_counter()
    response, handled.status = _guarded(respond)
    handled.microseconds = 1e6 * (time.perf_counter() - start)
    observe(handled)
    return response


def _guarded(respond: Callable[[], Response]) -> tuple[Response, str]:
    """The response and the status by its gRPC name."""
    try:
        return respond(), "OK"
    except _UnknownAddress as error:
        return _error(error.status, str(error)), "UNIMPLEMENTED"
    except NotServedError as error:
        return _error(404, str(error)), "NOT_FOUND"
    except RequestError as error:
        return _error(400, str(error)), "INVALID_ARGUMENT"
    except tf.errors.OpError as error:
        return _error(_HTTP.get(error.error_code, 500), first_line(error)), code_name(error)
    except FloatingPointError as error:
        return _error(500, f"The model's {error}."), "INTERNAL"
    except Exception as error:
        # The type alone: a message or a traceback may hold what a shop's customer typed.
        _log.error("a REST request failed with %s", type(error).__name__)
        return _error(500, "Internal error of the server."), "INTERNAL"


def _respond(versions: Versions, handled: Handled, method: str, path: str, body: bytes) -> Response:
    if method == "POST" and (match := _PREDICT.fullmatch(path)):
        return _predict(versions, handled, match[1], _version(match[2]), match[3], body)
    if method == "GET" and (match := _STATUS.fullmatch(path)):
        name, version, label = match[1], _version(match[2]), match[3]
        handled.api = "metadata" if match[4] else "status"
        return _json(_metadata(versions, name, version, label) if match[4] else _as_dict(versions.status(name, version, label)))
    known = (
        f"POST /v1/models/NAME[/versions/N|/labels/LABEL]:predict, GET /v1/models/NAME[/versions/N|/labels/LABEL][/metadata], GET {PATH}"
    )
    handled.api = ""
    status = 400 if path.lower().startswith("/v1/") else 404
    raise _UnknownAddress(status, f"Malformed request: {method} {path[:200]}. This server answers {known}.")


def _predict(versions: Versions, handled: Handled, name: str, version: int | None, label: str | None, body: bytes) -> Response:
    model = versions.get(name, version, label)
    handled.model, handled.version = name, model.version
    request = parse_body(body)
    signature = request.get("signature_name", "")
    if not isinstance(signature, str):
        raise RequestError('"signature_name" must be a string.')
    specs = model.inputs(signature)
    handled.signature = signature or "serving_default"
    inputs, row_form = from_json(request, specs)
    handled.rows = rows_of(inputs)
    return Response(to_json(model.run(signature, inputs), row_form), media_type="application/json")


def _metadata(versions: Versions, name: str, version: int | None, label: str | None) -> dict:
    response = versions.metadata(name, version, label)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    # TensorFlow Serving writes the signatures without the "@type" of the message that wraps them.
    return {"model_spec": _as_dict(response.model_spec), "metadata": {"signature_def": _as_dict(signatures)}}


def _version(digits: str | None) -> int | None:
    if digits is None:
        return None
    if len(digits) > 18:
        raise RequestError(f"Failed to convert version: {digits[:30]} to numeric.")
    return int(digits)


def _as_dict(message: Message) -> dict:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _json(value: dict) -> Response:
    return Response(json.dumps(value, indent=1, ensure_ascii=False) + "\n", media_type="application/json")


def _error(status: int, message: str) -> Response:
    # "replace": the path of a request may hold half of a surrogate pair.
    return Response(json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace"), status, media_type="application/json")
