"""Threads of tests: they end with the block that started them, and what one of them raises is raised in the test."""

import concurrent.futures
import contextlib
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def in_thread(work: Callable[[threading.Event], object]) -> Iterator[concurrent.futures.Future]:
    """Runs `work` in a thread beside the block; it gets an event that is set when the block ends, and has to return then."""
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(work, stop)
        try:
            yield running
        finally:
            stop.set()
            running.result()


@contextlib.contextmanager
def answering(server: socketserver.BaseServer) -> Iterator[None]:
    """Lets a server of the standard library answer during the block; a connection that its client breaks off is no error."""
    errors: list[BaseException] = []

    def keep(*_: object) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            errors.append(error)

    server.handle_error = keep  # type: ignore[method-assign]
    with in_thread(lambda _: server.serve_forever(0.02)):
        try:
            yield
        finally:
            server.shutdown()
    server.server_close()
    for error in errors:
        raise error
