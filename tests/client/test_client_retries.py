"""What the client asks again and what it does not, and that no call lasts longer than its timeout."""

import concurrent.futures
import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
from threads import answering
from tiny_servable import joined, write_tiny

from tfebr.client import client as client_module
from tfebr.client.client import Client, Result
from tfebr.client.transports import ServerError, UnavailableError
from tfebr.errors import ConfigError, RequestError
from tfebr.server.server import Server

SCORE = float(np.float32(3.2))


class _Scripted(BaseHTTPRequestHandler):
    """A server of the tiny servable's metadata that answers a prediction with what the script says next; None is a broken connection."""

    protocol_version = "HTTP/1.1"
    signatures: ClassVar = {
        "half": {
            "inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}]}}},
            "outputs": {"y": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}]}}},
        }
    }

    def do_GET(self):
        self._answer(200, {"metadata": {"signature_def": {"signature_def": self.signatures}}})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(time.monotonic())
        status = self.server.script.pop(0)
        if status is None:
            # A length that does not come.
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b'{"outputs"')
            self.close_connection = True
        elif status == "slow":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            with contextlib.suppress(OSError):
                for self.server.dripped in range(100):
                    self.wfile.write(b" ")
                    time.sleep(0.05)
        else:
            self._answer(status, {"outputs": [0.5]} if status == 200 else {"error": "busy"})

    def _answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def scripted(script):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Scripted)
    server.script, server.asked, server.dripped = list(script), [], 99
    with answering(server):
        yield server


@pytest.mark.parametrize("script", [[503, 200], [503, 503, 503, 200], [None, 200], [None, 503, 200]])
def test_what_may_pass_is_asked_again(script):
    with scripted(script) as server, Client(f"127.0.0.1:{server.server_port}", "shop") as client:
        assert client.predict("half", x=[1.0])["y"].tolist() == [0.5]
        assert not server.script
        pauses = np.diff(server.asked)
        assert all(pause >= 0.05 * 2**number for number, pause in enumerate(pauses)), "each is longer than the last"


@pytest.mark.parametrize(
    ("status", "error", "message"), [(400, RequestError, "busy"), (429, RequestError, "busy"), (500, ServerError, "busy")]
)
def test_what_will_not_pass_is_asked_once(status, error, message):
    with scripted([status, 200]) as server, Client(f"127.0.0.1:{server.server_port}", "shop") as client:
        with pytest.raises(error, match=message):
            client.predict("half", x=[1.0])
        assert len(server.asked) == 1


@pytest.mark.parametrize(("retries", "asked"), [(0, 1), (2, 3)])
def test_attempts_are_counted(retries, asked):
    with scripted([503] * 9) as server, Client(f"127.0.0.1:{server.server_port}", "shop", retries=retries) as client:
        with pytest.raises(ServerError, match=r"busy \(HTTP 503\)"):
            client.predict("half", x=[1.0])
        assert len(server.asked) == asked


@pytest.mark.parametrize("script", [[503] * 99, [None] * 99, ["slow"]], ids=["unavailable", "broken", "drip"])
def test_attempts_and_pauses_end_with_the_timeout(script):
    with scripted(script) as server, Client(f"127.0.0.1:{server.server_port}", "shop", timeout=0.5, retries=50) as client:
        with pytest.raises(ServerError):
            client.predict("half", x=[1.0])
        # It was the client that gave up: there was more to come, and attempts were left.
        assert server.script or server.dripped < 99
        assert len(server.asked) < 50


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_server_that_starts_late_is_found(tmp_path, protocol, monkeypatch):
    base = tmp_path / "shop"
    write_tiny(base / "3", mark=3)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    failed, attempt = threading.Event(), client_module.Client._patiently

    def patiently(self, end, ask):
        def fail_loudly(left):
            try:
                return ask(left)
            except UnavailableError:
                failed.set()
                raise

        return attempt(self, end, fail_loudly)

    monkeypatch.setattr(client_module.Client, "_patiently", patiently)
    with Client(f"127.0.0.1:{port}", "shop", protocol, timeout=60, retries=100) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.query, "lamp")
        assert failed.wait(60)
        with Server(base, **({"rest_port": 0, "grpc_port": 0} | {f"{protocol}_port": port})):
            assert asked.result() == [Result([joined("lamp"), "mark 3"], [SCORE, SCORE])]


@pytest.mark.parametrize("retries", [-1, 1.5, "3", True])
def test_an_impossible_number_of_retries_is_refused(retries):
    with pytest.raises(ConfigError, match="`retries` must be a whole number of at least 0"):
        Client("127.0.0.1:8501", "shop", retries=retries)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), "3"])
def test_an_impossible_timeout_is_refused(timeout):
    with pytest.raises(ConfigError, match="`timeout` must be a finite number above 0"):
        Client("127.0.0.1:8501", "shop", timeout=timeout)
