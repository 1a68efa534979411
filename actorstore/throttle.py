"""A throttle for logs: what happens a million times is told once a second."""

from __future__ import annotations

import time


class Throttle:
    """Lets one through a second, and counts the others; not safe from several threads at once."""

    def __init__(self) -> None:
        self._last = -1.0
        self._held_back = 0

    def lets_through(self, times: int = 1) -> str | None:
        """Return what to say about those held back before, or `None` where this one is held back too.

        Args:
            times: How often it has happened now; the last of them is the one to tell.
        """
        now = time.monotonic()
        if 0 <= now - self._last < 1:
            self._held_back += times
            return None
        before, self._held_back, self._last = self._held_back + times - 1, 0, now
        return f" ({before} more before it were not logged)" if before else ""
