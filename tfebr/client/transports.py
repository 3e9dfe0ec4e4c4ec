"""How a client reaches a server: the errors of both protocols, and TensorFlow Serving's REST API over kept connections."""

import base64
import collections
import dataclasses
import functools
import http.client
import json
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tfebr.client.forks import PerProcess
from tfebr.errors import ConfigError, RequestError, TfebrError
from tfebr.servable import shard_set

_NOT_FOUND, _UNAVAILABLE = 404, 503
_Idle = collections.deque[http.client.HTTPConnection]
# Bytes of an answer that are waited for at one time.
_PART = 2**16


class ServerError(TfebrError):
    """The server cannot be reached, does not answer in time or fails; the message says what to try."""


class UnavailableError(ServerError):
    """The server cannot be reached, or says that it cannot answer just now: the same request may succeed a moment later."""


class NotFoundError(RequestError):
    """The server has no such model, or not any more the version that was asked."""


@dataclasses.dataclass(frozen=True)
class Described:
    """The version of a model that a server answers with.

    Attributes:
        name: of the model.
        number: None where the server does not say.
        signatures: SignatureDefs by name, in protobuf's JSON form with the names of the .proto files.
    """

    name: str
    number: int | None
    signatures: Mapping[str, Any]

    @property
    def shard_set(self) -> str | None:
        """The published set that this shard belongs to, None where it is no shard."""
        return shard_set.read(self.signatures)


class Transport(Protocol):
    """One server; may be used from several threads and, with connections of its own, in every process that was forked from this one.

    A call that takes longer than `timeout` seconds raises TimeoutError. A model or version that is not there raises NotFoundError.
    """

    def describe(self, name: str | None, timeout: float) -> Described:
        """The newest version of a model; without a name, of the only model that `tfebr serve` has."""

    def predict(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], model: Described, timeout: float
    ) -> dict[str, Any]:
        """Runs `signature` on arrays, strings as bytes; `outputs` come as arrays or lists, strings as str, bytes or {"b64": ...}."""

    def close(self) -> None:
        """Closes the connections."""


class RestTransport:
    """TensorFlow Serving's REST API; needs no TensorFlow."""

    def __init__(self, target: str):
        url = urllib.parse.urlsplit(target if "://" in target else f"http://{target}")
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        try:
            port = url.port or {"http": 8501, "https": 443}[url.scheme]
            self._connect = functools.partial(kinds[url.scheme], url.hostname or "localhost", port)
        except (ValueError, KeyError):
            raise ConfigError(f"`target` must be host:port or http://host:port. Received: `target` = {target!r}.") from None
        self._models = f"{url.path.rstrip('/')}/v1/models"
        self._target = target
        self._idle: PerProcess[_Idle] = PerProcess(collections.deque, _close_all)

    def describe(self, name: str | None, timeout: float) -> Described:
        end = time.monotonic() + timeout
        if name is None:
            name = self._only_model(timeout)
        said = self._ask("GET", f"/{_quoted(name)}/metadata", None, end - time.monotonic())
        number = said.get("model_spec", {}).get("version")
        return Described(name, None if number is None else int(number), said["metadata"]["signature_def"]["signature_def"])

    def predict(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], model: Described, timeout: float
    ) -> dict[str, Any]:
        columns = {name: value.tolist() for name, value in inputs.items()}
        request = json.dumps({"signature_name": signature, "inputs": columns}, default=_text).encode("utf-8")
        version = "" if model.number is None else f"/versions/{model.number}"
        found = self._ask("POST", f"/{_quoted(model.name)}{version}:predict", request, timeout)["outputs"]
        return {outputs[0]: found} if len(outputs) == 1 else found

    def close(self) -> None:
        _close_all(self._idle.made() or collections.deque())

    def _only_model(self, timeout: float) -> str:
        try:
            names = [model["name"] for model in self._ask("GET", "", None, timeout)["models"]]
        except (RequestError, KeyError, TypeError):
            names = []
        if len(names) != 1:
            raise unnamed(self._target)
        return names[0]

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float) -> Any:
        try:
            status, answer = self._exchange(method, self._models + path, body, time.monotonic() + timeout)
        except TimeoutError:
            # An OSError, too, but not of a server that is not there.
            raise
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(self._target, "REST", str(error) or type(error).__name__) from error
        try:
            value = json.loads(answer)
        except ValueError:
            # A proxy before the server says so in HTML.
            if status == _UNAVAILABLE:
                raise UnavailableError(f"{self._target}: Service Unavailable (HTTP {status})") from None
            raise ServerError(f"{self._target}: the answer (HTTP {status}) is not JSON. Is this the REST port of a model server?") from None
        if status == 200:
            return value
        said = value.get("error", value) if isinstance(value, dict) else value
        kinds = {_UNAVAILABLE: UnavailableError, _NOT_FOUND: NotFoundError}
        kind = kinds.get(status, ServerError if status >= 500 else RequestError)
        raise kind(f"{self._target}: {said} (HTTP {status})")

    def _exchange(self, method: str, path: str, body: bytes | None, end: float) -> tuple[int, bytes]:
        idle = self._idle.get()
        while True:
            kept = True
            try:
                connection = idle.pop()
            except IndexError:
                kept, connection = False, self._connect()
            try:
                _limit(connection, end)
                connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
                _limit(connection, end)
                response, answer = connection.getresponse(), bytearray()
                # A part at a time: the socket's own timeout starts anew with everything that arrives.
                while part := response.read1(_PART):
                    answer += part
                    _limit(connection, end)
                if response.length:
                    raise http.client.IncompleteRead(bytes(answer), response.length)
                # All of it is read, but only then does the connection take another request.
                response.close()
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                # A server closes connections that idle for long, which shows only now; to ask again does no harm.
                if kept:
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            idle.append(connection)
            return response.status, bytes(answer)


def _close_all(idle: _Idle) -> None:
    while idle:
        idle.pop().close()


def _limit(connection: http.client.HTTPConnection, end: float) -> None:
    """Lets the next operation of the socket last until `end` at most; raises TimeoutError when that is past."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.timeout = left
    if connection.sock is not None:
        connection.sock.settimeout(left)


def unreachable(target: str, protocol: str, reason: str) -> UnavailableError:
    """The error for a server that is not there."""
    return UnavailableError(
        f"{target}: no server answers {protocol} there ({reason}). "
        "Start one with `tfebr serve FOLDER`, or give the address that a running one printed."
    )


def unnamed(target: str) -> RequestError:
    """The error for a server that does not say what its only model is."""
    return RequestError(f"{target}: the server does not tell its models, as `tfebr serve` does. Give the model's name.")


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode("ascii")}
