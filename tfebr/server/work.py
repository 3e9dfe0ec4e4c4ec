"""Predictions in threads of their own, which are dropped when nobody waits for them any more."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


class LeftError(Exception):
    """Who asked does not wait any more."""


class Waiting:
    """Whether somebody still waits for a piece of work, and who tells how it ended: its thread, or the one that gave it up."""

    def __init__(self) -> None:
        self._ends, self._left = iter((True,)), False

    def leave(self) -> None:
        """Nobody waits from now on."""
        self._left = True

    def check(self) -> None:
        """Raises LeftError when nobody waits: what is still to be done need not be."""
        if self._left:
            raise LeftError

    def ends(self) -> bool:
        """True for the first who asks and for no other."""
        return next(self._ends, False)


async def while_awaited(
    executor: Executor, run: Callable[[], T], waiting: Waiting, left: Coroutine[Any, Any, None], seconds: float | None
) -> T:
    """What `run` returns or raises.

    Work that waits for a thread is dropped when the client leaves or the time is over. Of work that has begun the step is finished that is
    under way, because a graph cannot be stopped, and its result forgotten.

    Args:
        executor: whose threads run the work, in the order in which it came.
        waiting: is told when nobody waits any more.
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
            waiting.leave()
            result.cancel()
            work.cancel()
