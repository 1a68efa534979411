"""Waiting that an interruption of the caller leaves whole.

`threading.Event` and `Thread.join` are of no use for waiting here: interrupted in
the wrong place, the first keeps its lock for good, and the second takes the
thread for ended (CPython 3.11, bpo-45274).
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class Latch:
    """Something that happens once; takes no lock, so that finalizers may use it."""

    def __init__(self) -> None:
        self.is_set = False
        self._callbacks: deque[Callable[[], object]] = deque()

    def set(self) -> None:
        """Say that it has happened; saying so again does nothing."""
        self.is_set = True
        with suppress(IndexError):
            while True:
                self._callbacks.popleft()()

    def call(self, callback: Callable[[], object]) -> None:
        """Call something once, when it happens, in the thread that says so; at once where it has happened."""
        self._callbacks.append(callback)
        if self.is_set:
            self.set()  # whichever thread takes it from the deque calls it

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it happens, so many seconds at most; return whether it has."""
        if self.is_set:
            return True
        happened = allocate_lock()
        happened.acquire()
        callback = happened.release
        self.call(callback)
        try:
            happened.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        finally:
            with suppress(ValueError):
                self._callbacks.remove(callback)
        return self.is_set
