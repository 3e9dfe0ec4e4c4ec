"""How a client reaches a server: the errors of both protocols, and TensorFlow Serving's REST API over kept connections."""

import base64
import collections
import http.client
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tfebr.errors import ConfigError, RequestError, TfebrError


class ServerError(TfebrError):
    """The server cannot be reached, does not answer in time or fails; the message says what to try."""


class Transport(Protocol):
    """One model on one server; may be used from several threads."""

    def signatures(self) -> Mapping[str, Any]:
        """The model's SignatureDefs by name, in protobuf's JSON form with the names of the .proto files."""

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, Any]:
        """Runs `signature` on arrays, strings as bytes; `outputs` come as arrays or lists, strings as str, bytes or {"b64": ...}."""

    def close(self) -> None:
        """Closes the connections."""


class RestTransport:
    """TensorFlow Serving's REST API; needs no TensorFlow."""

    def __init__(self, target: str, name: str, timeout: float):
        url = urllib.parse.urlsplit(target if "://" in target else f"http://{target}")
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        try:
            self._kind = kinds[url.scheme]
            self._port = url.port or {"http": 8501, "https": 443}[url.scheme]
        except (ValueError, KeyError):
            raise ConfigError(f"`target` must be host:port or http://host:port. Received: `target` = {target!r}.") from None
        self._host = url.hostname or "localhost"
        self._path = f"{url.path.rstrip('/')}/v1/models/{urllib.parse.quote(name, safe='')}"
        self._target, self._timeout = target, timeout
        self._idle: collections.deque[http.client.HTTPConnection] = collections.deque()

    def signatures(self) -> Mapping[str, Any]:
        return self._ask("GET", "/metadata", None)["metadata"]["signature_def"]["signature_def"]

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, Any]:
        columns = {name: value.tolist() for name, value in inputs.items()}
        request = json.dumps({"signature_name": signature, "inputs": columns}, default=_text).encode("utf-8")
        found = self._ask("POST", ":predict", request)["outputs"]
        return {outputs[0]: found} if len(outputs) == 1 else found

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _ask(self, method: str, suffix: str, body: bytes | None) -> Any:
        try:
            status, answer = self._exchange(method, self._path + suffix, body)
        except TimeoutError:
            raise no_answer(self._target, self._timeout) from None
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(self._target, "REST", str(error) or type(error).__name__) from error
        try:
            value = json.loads(answer)
        except ValueError:
            raise ServerError(f"{self._target}: the answer (HTTP {status}) is not JSON. Is this the REST port of a model server?") from None
        if status == 200:
            return value
        said = value.get("error", value) if isinstance(value, dict) else value
        raise (ServerError if status >= 500 else RequestError)(f"{self._target}: {said} (HTTP {status})")

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        while True:
            kept = bool(self._idle)
            try:
                connection = self._idle.pop()
            except IndexError:
                kept, connection = False, self._kind(self._host, self._port, timeout=self._timeout)
            try:
                connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
                response = connection.getresponse()
                status, answer = response.status, response.read()
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                # A server closes connections that idle for long, which shows only now; to ask again does no harm.
                if kept:
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            return status, answer


def unreachable(target: str, protocol: str, reason: str) -> ServerError:
    """The error for a server that is not there."""
    return ServerError(
        f"{target}: no server answers {protocol} there ({reason}). "
        "Start one with `tfebr serve FOLDER`, or give the address that a running one printed."
    )


def no_answer(target: str, timeout: float) -> ServerError:
    """The error for a server that takes too long."""
    return ServerError(f"{target}: no answer within {timeout:g} seconds. Allow more time, or send fewer rows in a request.")


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode("ascii")}
