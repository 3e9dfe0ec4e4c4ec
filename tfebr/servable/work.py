"""Predictions in threads of their own, which are dropped when nobody waits for them any more."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


class LeftError(Exception):
    """Who asked does not wait any more."""


async def while_awaited(executor: Executor, run: Callable[[], T], left: Coroutine[Any, Any, None], seconds: float | None) -> T:
    """What `run` returns or raises.

    Work that waits for a thread is dropped when the client leaves or the time is over. Work that has begun is finished, because
    a graph cannot be stopped, and its result forgotten.

    Args:
        executor: whose threads run the work, in the order in which it came.
        left: is done when the client has left.
        seconds: that it may take, waiting for a thread included; None is any time.

    Raises:
        LeftError: the client has left.
        TimeoutError: the time is over.
    """
    work = executor.submit(run)
    result: asyncio.Future[T] = asyncio.wrap_future(work)
    gone: asyncio.Future[Any] = asyncio.ensure_future(left)
    try:
        await asyncio.wait([result, gone], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        if gone.done():
            raise LeftError
        raise TimeoutError
    finally:
        # Nobody would look at what comes of them.
        gone.cancel()
        if not result.done():
            result.cancel()
            work.cancel()
