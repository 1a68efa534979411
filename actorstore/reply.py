"""Where answers go: to a thread that waits here, to a coroutine elsewhere (`actorstore.aio`)."""

from __future__ import annotations

import threading
from typing import Final, Protocol

ANSWER_SECONDS: Final = 5.0
"""How long a question waits for its answer, unless it is told otherwise."""


class Receiver(Protocol):
    """Where an answer goes; called once, from the thread that has the answer, and must not wait."""

    def set(self, value: object) -> bool:
        """Hand the answer over; `False` where nobody is sure to take it."""

    def fail(self, error: BaseException) -> None:
        """Hand an error over."""


class Nobody:
    """The receiver of answers that no caller waits for."""

    def set(self, _: object) -> bool:
        """Drop it."""
        return False

    def fail(self, _: BaseException) -> None:
        """Drop it."""


NOBODY: Final = Nobody()
"""The one that serves all."""


class Reply:
    """The receiver for a thread that waits."""

    __slots__ = ("_done", "_error", "_value")

    def __init__(self) -> None:
        self._done = threading.Lock()
        self._done.acquire()
        self._value: object = None
        self._error: BaseException | None = None

    def set(self, value: object) -> bool:
        """Hand the answer over."""
        self._value = value
        self._done.release()
        return True

    def fail(self, error: BaseException) -> None:
        """Hand an error over."""
        self._error = error
        self._done.release()

    def wait(self, timeout: float = -1) -> bool:
        """Wait for the answer, at most so many seconds; say whether it is there, each time that is asked."""
        if not self._done.acquire(timeout=timeout):
            return False
        self._done.release()
        return True

    def result(self) -> object:
        """Return the answer, or raise the error; only after `wait` said that it is there."""
        if self._error is not None:
            raise self._error
        return self._value
