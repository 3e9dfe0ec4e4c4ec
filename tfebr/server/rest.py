"""The REST half of the local server: TensorFlow Serving's addresses, forms and codes."""

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Executor
from typing import Any
from urllib.parse import unquote

import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from tensorflow_serving.apis import get_model_metadata_pb2

from tfebr.errors import RequestError
from tfebr.infrastructure.messages import first_line
from tfebr.servable.tensors import from_json, rows_of, to_json
from tfebr.server.bodies import TooLargeError, parse, read, uncompress
from tfebr.server.prometheus import MEDIA_TYPE, PATH, Handled, Metrics, code_name
from tfebr.server.versions import NotServedError, Versions
from tfebr.server.work import LeftError, Waiting, while_awaited

_log = logging.getLogger(__name__)
_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_PREDICTION = re.compile(f"{_MODEL}:(predict|classify|regress)", re.IGNORECASE)
_STATUS = re.compile(f"{_MODEL}(/metadata)?", re.IGNORECASE)
_LIST = re.compile("/v1/models/?", re.IGNORECASE)
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
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


class _UnknownAddress(Exception):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class RestApi:
    """Answers for the models of `versions`.

    Args:
        versions: the loaded model.
        executor: runs reading, inference and writing of a prediction. Everything else is answered by the event loop itself, so that it
            never waits behind predictions.
        max_body_bytes: larger request bodies are refused with 413, and compressed ones that would become larger.
        seconds: that a prediction may take from the moment when its body has arrived; 0 is any time.
        cors: whether answers allow scripts of other origins to read them, as TensorFlow Serving's `rest_api_enable_cors_support`.
        metrics: what the monitoring page shows.
        observe: called with every request that was handled.
    """

    def __init__(
        self,
        versions: Versions,
        executor: Executor,
        max_body_bytes: int,
        seconds: float,
        cors: bool,
        metrics: Metrics,
        observe: Callable[[Handled], None],
    ):
        self._versions, self._executor, self._limit = versions, executor, max_body_bytes
        self._seconds, self._headers = seconds, _CORS if cors else {}
        self._metrics, self._observe = metrics, observe

    async def __call__(self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
        """The ASGI application."""
        request = Request(scope, receive)
        # As it was sent: a name may hold an encoded slash or colon.
        path = scope["raw_path"].decode("ascii", "replace")
        response = await self._answer(request, path)
        response.headers.update(self._headers)
        await response(scope, receive, send)

    async def _answer(self, request: Request, path: str) -> Response:
        match = _PREDICTION.fullmatch(path) if request.method == "POST" else None
        handled = Handled("REST", match[4].lower() if match else "")
        try:
            body = await read(request, self._limit)
        except TooLargeError:
            return self._too_large(handled)
        except ClientDisconnect:
            return Response(status_code=499)
        if match is None:
            return self._observed(handled, lambda: self._look_up(handled, request.method, path))
        encoding = request.headers.get("content-encoding", "")
        model, version, label = unquote(match[1]), match[2], match[3] and unquote(match[3])
        waiting = Waiting()

        def predict() -> Response:
            return self._observed(handled, lambda: self._predict(handled, waiting, model, version, label, body, encoding), waiting)

        try:
            return await while_awaited(self._executor, predict, waiting, _left(request), self._seconds or None)
        except LeftError:
            response, status = Response(status_code=499), "CANCELLED"
        except TimeoutError:
            said = f"Timed out: no result within {self._seconds:g} seconds. Send fewer rows in a request."
            response, status = _error(504, said), "DEADLINE_EXCEEDED"
        if waiting.ends():
            self._observe(Handled("REST", handled.api, handled.model, handled.version, handled.signature, handled.rows, status))
        return response

    def _look_up(self, handled: Handled, method: str, path: str) -> Response:
        if method == "OPTIONS" and self._headers:
            return Response()
        if method == "GET" and path == PATH:
            return Response(self._metrics.page(self._versions.name, self._versions.loaded()), media_type=MEDIA_TYPE)
        if method == "GET" and _LIST.fullmatch(path):
            # TensorFlow Serving refuses this address; here it tells clients what the only model is called.
            return _json({"models": [{"name": self._versions.name}]})
        if method == "GET" and (match := _STATUS.fullmatch(path)):
            name, version, label = unquote(match[1]), _version(match[2]), match[3] and unquote(match[3])
            handled.api = "metadata" if match[4] else "status"
            if match[4]:
                return _json(_metadata(self._versions, name, version, label))
            return _json(_as_dict(self._versions.status(name, version, label)))
        known = (
            "POST /v1/models/NAME[/versions/N|/labels/LABEL]:predict, GET /v1/models, "
            f"GET /v1/models/NAME[/versions/N|/labels/LABEL][/metadata], GET {PATH}"
        )
        status = 400 if path.lower().startswith("/v1/") else 404
        raise _UnknownAddress(status, f"Malformed request: {method} {path[:200]}. This server answers {known}.")

    def _predict(
        self, handled: Handled, waiting: Waiting, name: str, version: str | None, label: str | None, body: bytes, encoding: str
    ) -> Response:
        model = self._versions.get(name, _version(version), label)
        handled.model, handled.version = name, model.version
        request = parse(uncompress(body, encoding, self._limit))
        signature = request.get("signature_name", "")
        if not isinstance(signature, str):
            raise RequestError('"signature_name" must be a string.')
        specs = model.inputs(signature)
        handled.signature = signature or "serving_default"
        if handled.api != "predict":
            raise RequestError(model.not_for(handled.api, signature))
        inputs, row_form = from_json(request, specs)
        handled.rows = rows_of(inputs)
        waiting.check()
        outputs = model.run(signature, inputs)
        waiting.check()
        return Response(to_json(outputs, row_form), media_type="application/json")

    def _observed(self, handled: Handled, respond: Callable[[], Response], waiting: Waiting | None = None) -> Response:
        start = time.perf_counter()
        try:
            response, handled.status = _guarded(respond)
        except TooLargeError:
            return self._too_large(handled)
        handled.microseconds = 1e6 * (time.perf_counter() - start)
        if (handled.api or response.status_code != 200) and (waiting is None or waiting.ends()):
            self._observe(handled)
        return response

    def _too_large(self, handled: Handled) -> Response:
        handled.status = "RESOURCE_EXHAUSTED"
        self._observe(handled)
        return _error(413, f"The body is larger than {self._limit} bytes: send fewer rows in a request.")


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _guarded(respond: Callable[[], Response]) -> tuple[Response, str]:
    """The response and the status by its gRPC name."""
    try:
        return respond(), "OK"
    except _UnknownAddress as error:
        return _error(error.status, str(error)), "UNIMPLEMENTED"
    except LeftError:
        return Response(status_code=499), "CANCELLED"
    except NotServedError as error:
        return _error(404, str(error)), "NOT_FOUND"
    except RequestError as error:
        return _error(400, str(error)), "INVALID_ARGUMENT"
    except tf.errors.OpError as error:
        return _error(_HTTP.get(error.error_code, 500), first_line(error)), code_name(error)
    except TooLargeError:
        raise
    except Exception as error:
        # The type alone: a message or a traceback may hold what a shop's customer typed.
        _log.error("a REST request failed with %s", type(error).__name__)
        return _error(500, "Internal error of the server."), "INTERNAL"


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
