"""The recorded clock of a log that is replayed: lines become due as they once did, only faster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import msgspec

from actorstore.cli import eventlog

DUE_SECONDS: Final = 0.01
"""What is due so soon is due now: a tenth of a frame."""


class Pace:
    """The recorded clock, so many times faster; each file begins when it is its turn.

    Args:
        speed: Recorded seconds a second.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start: tuple[float, datetime] | None = None
        self._until: datetime | None = None

    def begin(self) -> None:
        """Set the clock anew: the first time it is shown is now."""
        self._start = self._until = None

    def parts(self, lines: bytes) -> Iterator[bytes]:
        """Yield lines when they are due; those without a time together with the one before."""
        due: list[bytes] = []
        for line in eventlog.split_lines(lines):
            recorded = _time_of(line)
            if recorded is not None:
                if self._start is None:
                    self._start = time.monotonic(), recorded
                if due and self._seconds_until(recorded) > DUE_SECONDS:
                    yield b"".join(due)
                    due.clear()
                self._until = max(self._until or recorded, recorded)
                while (seconds := self._seconds_until(recorded)) > DUE_SECONDS:
                    time.sleep(min(seconds, 60))
            due.append(line)
        if due:
            yield b"".join(due)

    def now(self) -> datetime | None:
        """Say what the recorded clock shows; it never runs past the event that is due next."""
        start, until = self._start, self._until
        if start is None or until is None:
            return None
        played = (time.monotonic() - start[0]) * self._speed
        return start[1] + timedelta(seconds=min(played, (until - start[1]).total_seconds()))

    def _seconds_until(self, recorded: datetime) -> float:
        if self._start is None:
            return 0.0
        since = (recorded - self._start[1]).total_seconds() / self._speed
        return self._start[0] + since - time.monotonic()


class _Stamped(msgspec.Struct, gc=False):
    time: datetime | None = None


_stamped: Final = msgspec.json.Decoder(_Stamped)


def _time_of(line: bytes) -> datetime | None:
    try:
        recorded = _stamped.decode(line).time
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return recorded if recorded is None or recorded.tzinfo else None
