"""Answers for coroutines: the receiver that an event loop waits with."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class LoopReply:
    """The receiver for a coroutine that awaits.

    The loop may be gone, or the coroutine cancelled, by the time of the answer.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[object] = self._loop.create_future()

    def set(self, value: object) -> bool:
        """Hand the answer over to the loop; `False`, because nobody knows when that runs again."""
        self._send(value, None)
        return False

    def fail(self, error: BaseException) -> None:
        """Hand an error over to the loop."""
        self._send(None, error)

    def _send(self, value: object, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._settle, value, error)

    def _settle(self, value: object, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(value)
