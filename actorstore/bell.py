"""A bell: wakes a thread that waits for a socket."""

from __future__ import annotations

import select
import socket
from contextlib import suppress


class Bell:
    """Rung by any thread, heard by the one that polls it."""

    def __init__(self) -> None:
        self._heard, self._rope = socket.socketpair()
        self._heard.setblocking(False)
        self._rope.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._heard.fileno()

    def ring(self) -> None:
        """Wake the one that waits."""
        with suppress(OSError):  # it is full, so there is enough to hear, or it is closed
            self._rope.send(b"\0")

    def hear(self) -> None:
        """Take note, so that it may ring again."""
        with suppress(OSError):
            self._heard.recv(4096)

    def wait(self, seconds: float) -> None:
        """Wait until it rings, or so long."""
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        if poll.poll(seconds * 1000):
            self.hear()

    def close(self) -> None:
        """Let go of both ends."""
        self._heard.close()
        self._rope.close()
