"""Several threads at one store: producers that feed it at full speed, and a reader beside them.

A unit belongs to one producer, as in real life, and each producer holds its events as one list, decoded in
one go. Events that were picked out of one long list lie far apart in memory, and would slow every store down
by a third before it has done anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event as Flag
from threading import Thread
from time import perf_counter
from typing import TypeAlias

from actorstore import Event
from benchmarks.workloads import decoded

PRODUCERS = 4
READS_PER_SECOND = 100

Handle: TypeAlias = Callable[[Event], object]


def split(data: bytes, producers: int = PRODUCERS) -> tuple[bytes, list[list[Event]]]:
    """Return a stream's first line, which brings the graph, and its units' events, a list a producer."""
    first, *rest = data.rstrip(b"\n").split(b"\n")
    owners: dict[str, int] = {}
    lines: list[list[bytes]] = [[] for _ in range(producers)]
    for line, event in zip(rest, decoded(b"\n".join(rest)), strict=True):
        if event.unit:
            lines[owners.setdefault(event.unit, len(owners) % producers)].append(line)
    return first + b"\n", [decoded(b"\n".join(part)) for part in lines]


def feed(handle: Handle, events: list[Event]) -> None:
    """Hand events over, one after the other."""
    for event in events:
        handle(event)


def feed_at_once(handle: Handle, parts: list[list[Event]]) -> None:
    """Hand over each part from a thread of its own; return when all have handed over."""
    threads = [Thread(target=feed, args=(handle, part)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def feeding(handle: Handle, parts: list[list[Event]]) -> Iterator[None]:
    """Feed from a thread a part, again and again, for as long as the block runs."""
    enough = Flag()

    def go_on(part: list[Event]) -> None:
        while not enough.is_set():
            feed(handle, part)

    threads = [Thread(target=go_on, args=(part,)) for part in parts if part]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()


class Reader:
    """A thread that takes snapshots, 100 a second, while the block runs; one that is late catches up.

    Args:
        snapshot: What it calls.
        most: How many it takes at the most.
    """

    def __init__(self, snapshot: Callable[[], object], most: int | None = None) -> None:
        self.seconds: list[float] = []
        """How long each snapshot took."""
        self._snapshot = snapshot
        self._most = most
        self._enough = Flag()
        self._thread = Thread(target=self._read)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def wait(self) -> None:
        """Wait until it has taken as many as it takes at the most."""
        self._thread.join()

    def _read(self) -> None:
        due = perf_counter()
        while len(self.seconds) != self._most and not self._enough.wait(max(0.0, due - perf_counter())):
            began = perf_counter()
            self._snapshot()
            self.seconds.append(perf_counter() - began)
            due += 1 / READS_PER_SECOND
