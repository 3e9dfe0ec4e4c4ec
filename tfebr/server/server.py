"""A local server that speaks TensorFlow Serving's REST and gRPC predict API for one servable."""

import contextlib
import os
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc
import uvicorn

from tfebr.errors import ConfigError, TfebrError
from tfebr.server.grpc_service import add_services
from tfebr.server.health import Health
from tfebr.server.prometheus import Handled, Metrics
from tfebr.server.request_log import log_request
from tfebr.server.rest import RestApi
from tfebr.server.versions import Versions

# Longer than the pauses of most clients, so that they keep their connection.
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 10
# For what takes no time: health, status, metadata.
_CONTROL_THREADS = 4
# TensorFlow Serving's default.
REST_TIMEOUT = 30.0


class Server:
    """Serves the newest version below a folder on REST and gRPC until it is closed; also a context manager.

    Newer versions are loaded beside the one that answers and take over between two requests. What TensorFlow Serving documents for
    predict, status and metadata holds here; the serving guide (export/README.md) lists what differs. Predictions run in threads of their
    own: health, status, metadata and metrics never wait behind them, and what waits for such a thread is dropped when its client leaves.
    Metrics are at /monitoring/prometheus/metrics. A request is logged at level INFO, without anything that it asked for.

    Args:
        base: `servable/<name>` with numeric version folders, or one version folder.
        name: what requests call the model; by default the folder's name.
        host: the address to listen on; by default nobody but this machine can connect.
        rest_port, grpc_port: 0 takes any free port.
        max_body_bytes: larger requests are refused (REST: 413, gRPC: RESOURCE_EXHAUSTED).
        poll_seconds: how often the folder is looked at for a newer version.
        labels: names for version numbers; these versions stay loaded beside the newest one.
        rest_timeout: seconds that a REST prediction may take, 0 for any time; gRPC has the deadline of the client.
        cors: whether REST answers allow scripts of web pages from elsewhere to read them.

    Raises:
        ArtifactError: there is no version, or it cannot be loaded, or one that a label names.
        ConfigError: a port is no port number, or no model can have that name.
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
        rest_timeout: float = REST_TIMEOUT,
        cors: bool = False,
    ):
        for setting, port in (("rest_port", rest_port), ("grpc_port", grpc_port)):
            if not 0 <= port <= 65_535:
                raise ConfigError(f"`{setting}` must be a port from 1 to 65535, or 0 for any free one. Received: `{setting}` = {port}.")
        if rest_timeout < 0:
            raise ConfigError(f"`rest_timeout` must be seconds, or 0 for any time. Received: `rest_timeout` = {rest_timeout}.")
        with contextlib.ExitStack() as undo:
            # Taken before the model, so that a port in use does not cost the time of loading; open only when there is an answer.
            listener = undo.enter_context(_taken("REST", host, rest_port))
            placeholder = undo.enter_context(_taken("gRPC", host, grpc_port))
            self.metrics, self._health = Metrics(), None
            self.versions = Versions(base, name, poll_seconds, labels, self._loaded)
            undo.callback(self.versions.close)
            self.name = self.versions.name
            self._pool = ThreadPoolExecutor(max(4, os.cpu_count() or 1), "tfebr-serve")
            self._control = ThreadPoolExecutor(_CONTROL_THREADS, "tfebr-control")
            options = [
                ("grpc.max_receive_message_length", max_body_bytes),
                ("grpc.max_send_message_length", -1),
                # Otherwise a second server on the same port would silently get half of the requests.
                ("grpc.so_reuseport", 0),
            ]
            self._grpc = grpc.server(self._control, options=options)
            undo.callback(lambda: self._grpc.stop(None).wait())
            add_services(self._grpc, self.versions, self._pool, max_body_bytes, self._observe)
            self._health = Health(self._grpc, self.name)
            bracketed = f"[{host}]" if ":" in host else host
            self.grpc_target = f"{bracketed}:{placeholder.getsockname()[1]}"
            _bind_grpc(self._grpc, host, placeholder)
            _listen(listener, host)
            self.rest_url = f"http://{bracketed}:{listener.getsockname()[1]}"
            self._grpc.start()
            undo.pop_all()
        self._closed = False
        api = RestApi(self.versions, self._pool, max_body_bytes, rest_timeout, cors, self.metrics, self._observe)
        self._rest = uvicorn.Server(
            uvicorn.Config(
                api,
                loop="asyncio",
                lifespan="off",
                ws="none",
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
        if self._health is not None:
            self._health.close()
        stopped = self._grpc.stop(_GRACE_SECONDS)
        self._rest.should_exit = True
        self._rest_thread.join()
        stopped.wait()
        self._pool.shutdown()
        self._control.shutdown()
        self.versions.close()

    def _loaded(self, loaded: bool) -> None:
        if self._health is not None:
            self._health.set_loaded(loaded)

    def _observe(self, handled: Handled) -> None:
        self.metrics.record(handled)
        log_request(handled)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _taken(protocol: str, host: str, port: int) -> socket.socket:
    """A socket on an address that is this server's from now on, and where nobody can connect yet."""
    taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # A port whose last connections are still being wound up is free; one that another socket listens on is not.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        raise _not_bound(protocol, host, port, str(error)) from error
    # Connections inherit it. Without it the body of an answer waits 40 ms for the client to acknowledge the header.
    taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return taken


def _listen(listener: socket.socket, host: str) -> None:
    try:
        # A client that comes before the event loop runs waits instead of being refused.
        listener.listen(2048)
    except OSError as error:
        raise _not_bound("REST", host, listener.getsockname()[1], str(error)) from error


def _bind_grpc(server: grpc.Server, host: str, placeholder: socket.socket) -> None:
    """Has gRPC, which listens from when it binds, take over the address of a socket."""
    port = placeholder.getsockname()[1]
    placeholder.close()
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise _not_bound("gRPC", host, port, "gRPC cannot bind it") from error
    if bound != port:
        raise _not_bound("gRPC", host, port, "gRPC cannot bind it")


def _not_bound(protocol: str, host: str, port: int, reason: str) -> TfebrError:
    return TfebrError(
        f"{host}:{port}: {protocol} cannot listen there: {reason}. Choose another port (0 takes any free one) or stop what uses it."
    )
