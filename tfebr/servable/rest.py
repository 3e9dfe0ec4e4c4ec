"""The REST half of the local server: TensorFlow Serving's predict, status and metadata addresses."""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from concurrent.futures import Executor

import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis import get_model_metadata_pb2

from tfebr.errors import RequestError
from tfebr.servable.tensors import from_json, parse_body, to_json
from tfebr.servable.versions import NotServedError, Versions, first_line

_log = logging.getLogger(__name__)
_PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", re.IGNORECASE)
_STATUS = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(/metadata)?", re.IGNORECASE)
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


def rest_app(versions: Versions, executor: Executor, max_body_bytes: int) -> Starlette:
    """The ASGI application that answers for the models of `versions`.

    Args:
        versions: the loaded model.
        executor: runs reading, inference and writing of a request, so that the event loop only moves bytes.
        max_body_bytes: larger request bodies are refused with 413.
    """

    async def answer(request: Request) -> Response:
        try:
            body = await _read(request, max_body_bytes)
        except _TooLarge:
            return _error(413, f"The body is larger than {max_body_bytes} bytes: send fewer rows in a request.")
        except ClientDisconnect:
            return Response(status_code=499)
        work = asyncio.get_running_loop().run_in_executor
        return await work(executor, _guarded, lambda: _respond(versions, request.method, request.url.path, body))

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])])


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


def _guarded(respond: Callable[[], Response]) -> Response:
    try:
        return respond()
    except NotServedError as error:
        return _error(404, str(error))
    except RequestError as error:
        return _error(400, str(error))
    except tf.errors.OpError as error:
        return _error(_HTTP.get(error.error_code, 500), first_line(error))
    except FloatingPointError as error:
        return _error(500, f"The model's {error}.")
    except Exception as error:
        # The type alone: a message or a traceback may hold what a shop's customer typed.
        _log.error("a REST request failed with %s", type(error).__name__)
        return _error(500, "Internal error of the server.")


def _respond(versions: Versions, method: str, path: str, body: bytes) -> Response:
    if method == "POST" and (match := _PREDICT.fullmatch(path)):
        return _predict(versions, match[1], _version(match[2]), body)
    if method == "GET" and (match := _STATUS.fullmatch(path)):
        name, version = match[1], _version(match[2])
        return _json(_metadata(versions, name, version) if match[3] else _as_dict(versions.status(name, version)))
    known = "POST /v1/models/NAME[/versions/N]:predict, GET /v1/models/NAME[/versions/N][/metadata]"
    return _error(
        400 if path.lower().startswith("/v1/") else 404, f"Malformed request: {method} {path[:200]}. This server answers {known}."
    )


def _predict(versions: Versions, name: str, version: int | None, body: bytes) -> Response:
    model = versions.get(name, version)
    request = parse_body(body)
    signature = request.get("signature_name", "")
    if not isinstance(signature, str):
        raise RequestError('"signature_name" must be a string.')
    inputs, row_form = from_json(request, model.inputs(signature))
    return Response(to_json(model.run(signature, inputs), row_form), media_type="application/json")


def _metadata(versions: Versions, name: str, version: int | None) -> dict:
    response = versions.metadata(name, version)
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
