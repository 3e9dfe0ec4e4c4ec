"""What a client keeps must not cross a fork: two processes on one connection read each other's answers, and threads stay behind."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value that each process makes for itself; pickling keeps how it is made, not the value.

    Compared by the process' id: that needs no lock, which another thread might hold at the moment of a fork, and holds for forks that
    Python's own hooks do not see.

    Args:
        make: called once in each process, or twice when two threads ask first; a class or a function that can be pickled.
        close: what a child does with a value that it inherited; by default nothing, not even to let it go.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], None] | None = None):
        self._make, self._close = make, close
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """The value of this process."""
        found = self.made()
        if found is not None:
            return found
        inherited = list(self._made) if self._close else []
        # `setdefault` and `pop` are one step each: all threads get the same value, and one of them what is to be closed.
        made = self._made.setdefault(os.getpid(), self._make())
        for process in inherited:
            value = self._made.pop(process, None) if process != os.getpid() else None
            if value is not None and self._close:
                self._close(value)
        return made

    def made(self) -> T | None:
        """The value of this process, None when it has made none."""
        return self._made.get(os.getpid())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._make, self._close)


class CallGate:
    """Lets a fork wait for calls under way: a library with threads of its own can start again in a child only when none was inside it.

    Args:
        seconds: how long a fork waits at most.

    Attributes:
        broken: whether this process is a child that was forked while a call was under way.
    """

    def __init__(self, seconds: float):
        self._seconds, self.broken = seconds, False
        self._changed, self._calls, self._forks = threading.Condition(), 0, 0
        os.register_at_fork(before=self._before, after_in_parent=self._after_in_parent, after_in_child=self._after_in_child)

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """A call, which begins when no fork is under way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._forks)
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def _before(self) -> None:
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: not self._calls, self._seconds)

    def _after_in_parent(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    def _after_in_child(self) -> None:
        # Another thread may have held the lock, and it is not there to let it go.
        self.broken = self.broken or self._calls > 0
        self._changed, self._calls, self._forks = threading.Condition(), 0, 0
