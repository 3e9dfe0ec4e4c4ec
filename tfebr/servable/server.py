"""A local server that speaks TensorFlow Serving's REST and gRPC predict API for one servable."""

import os
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc
import uvicorn

from tfebr.errors import ConfigError, TfebrError
from tfebr.servable.grpc_service import add_services
from tfebr.servable.health import add_health
from tfebr.servable.metrics import Handled, Metrics
from tfebr.servable.request_log import log_request
from tfebr.servable.rest import rest_app
from tfebr.servable.versions import Versions

# Longer than the pauses of most clients, so that they keep their connection.
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 10
_SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


class Server:
    """Serves the newest version below a folder on REST and gRPC until it is closed; also a context manager.

    Newer versions are loaded beside the one that answers and take over between two requests. What TensorFlow Serving documents for
    predict, status and metadata holds here, except: an input that the signature lacks is refused in the column form too, and a NaN or an
    infinity is neither accepted nor printed, because JSON has none. Metrics are at /monitoring/prometheus/metrics, gRPC health is that of
    the whole server, of its two services and of the model by name. A request is logged at level INFO, without anything that it asked for.

    Args:
        base: `servable/<name>` with numeric version folders, or one version folder.
        name: what requests call the model; by default the folder's name.
        host: the address to listen on; by default nobody but this machine can connect.
        rest_port, grpc_port: 0 takes any free port.
        max_body_bytes: larger requests are refused (REST: 413, gRPC: RESOURCE_EXHAUSTED).
        poll_seconds: how often the folder is looked at for a newer version.
        labels: names for version numbers; these versions stay loaded beside the newest one.

    Raises:
        ArtifactError: there is no version, or it cannot be loaded, or one that a label names.
        ConfigError: a port is no port number.
        TfebrError: a port is taken or `host` is no address of this machine.
    """

    def __init__(
        self,
        base: str | os.PathLike,
        name: str | None = None,
        host: str = "127.0.0.1",
        rest_port: int = 8501,
        grpc_port: int = 8500,
        max_body_bytes: int = 64 * 2**20,
        poll_seconds: float = 2.0,
        labels: Mapping[str, int] | None = None,
    ):
        for setting, port in (("rest_port", rest_port), ("grpc_port", grpc_port)):
            if not 0 <= port <= 65_535:
                raise ConfigError(f"`{setting}` must be a port from 1 to 65535, or 0 for any free one. Received: `{setting}` = {port}.")
        # Ports before the model: a taken one should not cost the time of loading.
        listener = _listen(host, rest_port)
        self._pool = ThreadPoolExecutor(max(4, os.cpu_count() or 1), "tfebr-serve")
        self._grpc = grpc.server(
            self._pool,
            options=[
                ("grpc.max_receive_message_length", max_body_bytes),
                ("grpc.max_send_message_length", -1),
                # Otherwise a second server on the same port would silently get half of the requests.
                ("grpc.so_reuseport", 0),
            ],
        )
        try:
            bound_grpc_port = _bind_grpc(self._grpc, host, grpc_port)
            self.versions = Versions(base, name, poll_seconds, labels)
        except BaseException:
            listener.close()
            self._grpc.stop(None).wait()
            raise
        self.name = self.versions.name
        bracketed = f"[{host}]" if ":" in host else host
        self.rest_url = f"http://{bracketed}:{listener.getsockname()[1]}"
        self.grpc_target = f"{bracketed}:{bound_grpc_port}"
        self._closed = False
        self.metrics = Metrics()
        add_services(self._grpc, self.versions, max_body_bytes, self._observe)
        add_health(self._grpc, {*_SERVICES, self.name}, lambda: not self._closed)
        self._grpc.start()
        app = rest_app(self.versions, self._pool, max_body_bytes, self.metrics, self._observe)
        self._rest = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._rest_thread = threading.Thread(target=self._rest.run, args=([listener],), name="tfebr-rest-loop", daemon=True)
        self._rest_thread.start()

    def close(self) -> None:
        """Finishes the requests under way, then frees both ports; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        stopped = self._grpc.stop(_GRACE_SECONDS)
        self._rest.should_exit = True
        self._rest_thread.join()
        stopped.wait()
        self._pool.shutdown()
        self.versions.close()

    def _observe(self, handled: Handled) -> None:
        self.metrics.record(handled)
        log_request(handled)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Listening from here on: a client that comes before the event loop runs waits instead of being refused.
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise _not_bound("REST", host, port, str(error)) from error
    # Connections inherit it. Without it the body of an answer waits 40 ms for the client to acknowledge the header.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _bind_grpc(server: grpc.Server, host: str, port: int) -> int:
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise _not_bound("gRPC", host, port, "gRPC cannot bind it") from error
    if port and bound != port:
        raise _not_bound("gRPC", host, port, "gRPC cannot bind it")
    return bound


def _not_bound(protocol: str, host: str, port: int, reason: str) -> TfebrError:
    return TfebrError(
        f"{host}:{port}: {protocol} cannot listen there: {reason}. Choose another port (0 takes any free one) or stop what uses it."
    )
