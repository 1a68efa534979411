"""Work beside others: done in short pieces, with a rest after each millisecond.

All threads share one interpreter. A thread that computes gives it back only
when another has asked for 5 ms, and an event takes half a dozen turns of it to
its ack; so whoever has long to compute rests in between. A rest is a real one:
a thread that merely lets go has the interpreter back before another is awake.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

WORK_SECONDS: Final = 0.0005
"""How long a thread works at a time, beside its last piece."""

REST_SECONDS: Final = 0.0001
"""How long it rests then; the machine makes twice that of it."""


def rested(pieces: Iterable[T]) -> Iterator[T]:
    """Yield what a work of many short pieces yields, and rest in between."""
    until = time.perf_counter() + WORK_SECONDS
    for piece in pieces:
        yield piece
        if time.perf_counter() >= until:
            time.sleep(REST_SECONDS)
            until = time.perf_counter() + WORK_SECONDS
