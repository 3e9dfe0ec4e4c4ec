"""What asks the server in `serving_stress`: clients that check every answer, clients that leave early, bad requests, and a watch on health.

Each function runs in a process of its own. None needs TensorFlow but for gRPC predictions, so that the processes start at once.
"""

import json
import os
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tfebr.client.client import Client
from tfebr.errors import TfebrError

NAME = "shop"
ECHO = "bare_echo"
# Of one query, as many as one search may give; and so many queries in one request: about a second of work, a megabyte for each row.
HEAVY_K, HEAVY_ROWS = 10_000, 16
TOLERANCE = 1e-4
_LEAVE_AFTER = 0.02
_PROBE_EVERY = 0.02
_FORK_EVERY = 2.0
_IN_A_CHILD = 5

Expected = dict[str, dict[int, tuple[list[str], list[float]]]]


class Tally:
    """Counts of all threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: dict[str, int] = {}
        self.examples: list[str] = []

    def add(self, what: str, example: str = "") -> None:
        """One more; what went wrong leaves an example."""
        with self._lock:
            self.counts[what] = self.counts.get(what, 0) + 1
            if example and len(self.examples) < 5:
                self.examples.append(f"{what}: {example}")

    def result(self) -> dict[str, Any]:
        """Plain values."""
        return {"counts": self.counts, "examples": self.examples}


def clients(protocol: str, rest: str, target: str, asking: int, leaving: int, expected: Expected, stop: Any) -> dict[str, Any]:
    """Threads that ask and compare, threads that leave before their answer, and forks from among them, until `stop`."""
    tally = Tally()
    ended = threading.Event()
    with Client(rest if protocol == "rest" else target, NAME, protocol, timeout=30) as client:
        leave = _leave_rest(rest) if protocol == "rest" else _leave_grpc(target)
        threads = [threading.Thread(target=_ask, args=(client, expected, seed, tally, ended)) for seed in range(asking)]
        threads += [threading.Thread(target=_again, args=(leave, tally, ended)) for _ in range(leaving)]
        threads.append(threading.Thread(target=_again, args=(_bad(rest), tally, ended)))
        for thread in threads:
            thread.start()
        while not stop.wait(_FORK_EVERY):
            _fork(client, expected, tally)
        ended.set()
        for thread in threads:
            thread.join()
    return tally.result()


def echo(port: Any, stop: Any) -> None:
    """Sends back what comes on one connection: what a look at it takes is the machine's own delay at that time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port.value = server.getsockname()[1]
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not stop.is_set() and (said := connection.recv(64)):
                connection.sendall(said)


def watch(rest: str, target: str, echo_port: int, stop: Any) -> dict[str, list[float]]:
    """Milliseconds of every look at status, metadata, metrics, gRPC health and, for comparison, at a process that only echoes.

    Each is on a connection that is kept.
    """
    import http.client

    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    address = urllib.parse.urlsplit(rest)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    bare = socket.create_connection(("127.0.0.1", echo_port))
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found: dict[str, list[float]] = {}
    with bare, grpc.insecure_channel(target) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check

        def get(path: str) -> None:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise RuntimeError(f"GET {path}: {response.status}")

        looks: dict[str, Callable[[], Any]] = {
            "status": lambda: get(f"/v1/models/{NAME}"),
            "metadata": lambda: get(f"/v1/models/{NAME}/metadata"),
            "metrics": lambda: get("/monitoring/prometheus/metrics"),
            "grpc_health": lambda: check(health_pb2.HealthCheckRequest(service=NAME), timeout=60),
            ECHO: lambda: (bare.sendall(b"?"), bare.recv(64)),
        }
        while not stop.wait(_PROBE_EVERY):
            for name, look in looks.items():
                start = time.perf_counter()
                look()
                found.setdefault(name, []).append(1000 * (time.perf_counter() - start))
    return found


def _ask(client: Client, expected: Expected, seed: int, tally: Tally, ended: threading.Event, times: int | None = None) -> None:
    random = np.random.default_rng(seed)
    texts = sorted(expected)
    while not ended.is_set() and times != 0:
        text = texts[int(random.integers(len(texts)))]
        times = None if times is None else times - 1
        try:
            (result,) = client.query(text)
        except TfebrError as error:
            tally.add("failed", str(error))
            continue
        version = int(result.ids[0][1 : result.ids[0].index("-")]) if result.ids else 0
        ids, scores = expected[text].get(version, ([], []))
        if _same(result.ids, result.scores, ids, scores):
            tally.add("right")
        else:
            tally.add("wrong", f"{text!r}, version {version}: {result.ids[:3]} for {ids[:3]}")


def _same(ids: list[str], scores: list[float], wanted: list[str], wanted_scores: list[float]) -> bool:
    """Whether results are those that the version gives alone: equal scores within the tolerance, and items that differ only in ties."""
    if len(ids) != len(wanted) or not np.allclose(scores, wanted_scores, rtol=TOLERANCE, atol=TOLERANCE):
        return False
    places = {item: place for place, item in enumerate(wanted)}
    last = wanted_scores[-1]
    return all(
        abs(score - (wanted_scores[places[item]] if item in places else last)) <= 2 * TOLERANCE * max(abs(score), 1)
        for item, score in zip(ids, scores, strict=True)
    )


def _fork(client: Client, expected: Expected, tally: Tally) -> None:
    """A child asks through the client that was made before it, as a worker of a web server that loads the application first."""
    child = os.fork()
    if child == 0:
        found = Tally()
        try:
            _ask(client, expected, os.getpid(), found, threading.Event(), _IN_A_CHILD)
            os._exit(0 if found.counts == {"right": _IN_A_CHILD} else 1)
        except BaseException:
            os._exit(2)
    end = time.monotonic() + 60
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            tally.add("forks" if code == 0 else "forks_failed", f"exit code {code}" if code else "")
            return
        if time.monotonic() > end:
            os.kill(child, 9)
        time.sleep(0.02)


def _again(act: Callable[[Tally], None], tally: Tally, ended: threading.Event) -> None:
    while not ended.is_set():
        act(tally)
        ended.wait(0.2)


def _heavy_columns() -> dict[str, list[Any]]:
    rows = HEAVY_ROWS
    return {"query": ["led bulb"] * rows, "k": [HEAVY_K] * rows, "exclude": [[""]] * rows, "leaves_to_search": [0] * rows}


def _leave_rest(rest: str) -> Callable[[Tally], None]:
    address = urllib.parse.urlsplit(rest)
    body = json.dumps({"signature_name": "search", "inputs": _heavy_columns()}).encode()
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def leave(tally: Tally) -> None:
        with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
            connection.sendall(head + body)
            time.sleep(_LEAVE_AFTER)
        tally.add("left_early")

    return leave


def _leave_grpc(target: str) -> Callable[[Tally], None]:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = NAME, "search"
    for name, column in _heavy_columns().items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(column, tf.int32 if isinstance(column[0], int) else tf.string))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]))

    def leave(tally: Tally) -> None:
        call = stub.Predict.future(request, timeout=60)
        time.sleep(_LEAVE_AFTER)
        call.cancel()
        tally.add("left_early")

    return leave


def _bad(rest: str) -> Callable[[Tally], None]:
    """Requests that no client should send, each of which must be refused as the client's mistake."""
    url = f"{rest}/v1/models/{NAME}"
    bodies: list[tuple[str, bytes, dict[str, str]]] = [
        (":predict", b"{", {}),
        (":predict", b"[" * 5_000, {}),
        (":predict", b'{"instances": [{"query": 7}]}', {}),
        (":predict", b'{"signature_name": "none", "inputs": {"query": ["a"]}}', {}),
        (":predict", json.dumps({"signature_name": "search", "inputs": {**_heavy_columns(), "k": [1]}}).encode(), {}),
        (":predict", b"not gzip", {"Content-Encoding": "gzip"}),
        (":predict", zlib.compress(b" " * 2**22 + b"}"), {"Content-Encoding": "deflate"}),
        (":classify", b'{"examples": [{"query": "a"}]}', {}),
        ("/versions/99:predict", b'{"inputs": {"query": ["a"]}}', {}),
    ]
    turn = [0]

    def ask(tally: Tally) -> None:
        path, body, headers = bodies[turn[0] % len(bodies)]
        turn[0] += 1
        try:
            urllib.request.urlopen(urllib.request.Request(url + path, body, headers), timeout=60).read()
            tally.add("bad_accepted", f"{path} {body[:40]!r}")
        except urllib.error.HTTPError as error:
            error.read()
            good = error.code in (400, 404, 413)
            tally.add("bad_refused" if good else "bad_failed", "" if good else f"{path} {body[:40]!r}: {error.code}")

    return ask
