"""How long does one wait for an answer?

Measured: the median of many calls from one thread, each against an empty question to a pykka actor: of
`snapshot()` where nothing is new, and of the next update of a subscription after ten units have changed and a
`flush` has been answered. One event and a `snapshot()` that holds it, against the lock. Then p99 of the
snapshots that a reader takes, 100 a second, while four threads feed the same events again and again at full
speed.

Not measured: an idle machine's time to wake a thread that has slept for long; each question here follows the
one before it. Under load, a fair share of the wait is Python's own: a thread that wants to run asks for the
interpreter, and is heard after 5 ms (`sys.setswitchinterval`).

The last row lets 65,536 events wait before a producer does, which is what `MAX_ITEMS` of
`actorstore/handover.py` is chosen against.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any

import pykka

from actorstore import Event, Store, handover, store
from benchmarks.crowd import Reader, feeding, split
from benchmarks.peers.lock import LockedStore
from benchmarks.report import script
from benchmarks.rounds import Scale, alternate, freeze, median_of, streams
from benchmarks.table import Row, amount, faster, slower

UNITS = 10
"""How many units change between two updates."""
MORE = 3
"""Times as many rounds, each short: where the system puts two threads, on one core or on two, doubles what a
question takes, and it may stay with that for a second."""
MANY_EVENTS = 1 << 16


class Empty(pykka.ThreadingActor):
    """Answers every question at once, with nothing."""

    def on_receive(self, message: Any) -> None:
        """Do nothing."""


def measure(scale: Scale) -> Iterator[Row]:
    """Return the rows of this question."""
    name, data = next(iter(streams(scale).items()))
    yield from _calls(name, data, scale)
    yield from _under_load(name, data, scale)


def _calls(name: str, data: bytes, scale: Scale) -> Iterator[Row]:
    actor = Empty.start()
    lock = LockedStore()
    lock.handle_lines(data)
    with Store() as ours:
        ours.handle_lines(data)
        ids = [unit.id for unit in ours.snapshot().units[:UNITS]]
        events = [Event.task_started(id) for id in ids]

        def ask() -> float:
            return median_of(lambda: actor.ask(None), scale.questions)

        def snapshot() -> float:
            ours.snapshot()
            return median_of(ours.snapshot, scale.questions)

        def event_and_snapshot() -> None:
            ours.handle_event(events[0])
            ours.snapshot()

        def lock_event_and_snapshot() -> None:
            lock.handle_event(events[0])
            lock.snapshot()

        def update() -> float:
            updates = ours.subscribe()
            next(updates)
            seconds = []
            freeze()
            for _ in range(scale.questions):
                for event in events:
                    ours.handle_event(event)
                ours.flush()
                began = perf_counter()
                changed = next(updates).units
                seconds.append(perf_counter() - began)
                if len(changed) != len(events):
                    raise RuntimeError(f"an update of {len(events)} units held {len(changed)}")
            return median(seconds)

        times = alternate(
            MORE * scale.rounds,
            {
                "an empty ask": ask,
                "snapshot": snapshot,
                "an event, snapshot": lambda: median_of(event_and_snapshot, scale.questions),
                "the lock": lambda: median_of(lock_event_and_snapshot, scale.questions),
                "update": update,
            },
        )
    actor.stop()

    def figures(*names: str) -> str:
        return ", ".join(f"{name} {min(times[name]) * 1e6:,.1f}" for name in names) + " µs"

    yield slower(
        f"snapshot(), {name}, nothing new: time against an empty pykka ask",
        times["snapshot"],
        times["an empty ask"],
        figures("snapshot", "an empty ask"),
        2.5,
    )
    yield faster(
        f"one event and a snapshot() that holds it, {name}: speed against the lock",
        times["an event, snapshot"],
        times["the lock"],
        figures("an event, snapshot", "the lock"),
        peer="the lock",
    )
    yield slower(
        f"an update of {len(events)} units, {name}: time against an empty pykka ask",
        times["update"],
        times["an empty ask"],
        figures("update", "an empty ask"),
        3,
    )


def _under_load(name: str, data: bytes, scale: Scale) -> Iterator[Row]:
    graph, parts = split(data)

    def ours() -> float:
        with Store() as ours:
            ours.handle_lines(graph)
            ours.snapshot()
            with feeding(ours.handle_event, parts):
                return slowest(Reader(ours.snapshot, scale.reads))

    def many() -> float:
        with _waiting_events(MANY_EVENTS):
            return ours()

    def lock() -> float:
        lock = LockedStore()
        lock.handle_lines(graph)
        with feeding(lock.handle_event, parts):
            return slowest(Reader(lock.snapshot, scale.reads))

    def slowest(reader: Reader) -> float:
        freeze()
        with reader:
            reader.wait()
        return sorted(reader.seconds)[len(reader.seconds) * 99 // 100]

    times = alternate(scale.rounds, {"ours": ours, "the lock": lock, "many": many})
    what = f"snapshot() p99, {name}, {len(parts)} threads feeding"
    yield amount(what, [1e3 * seconds for seconds in times["ours"]], "ms", 15)
    yield amount(f"{what}: the lock", [1e3 * seconds for seconds in times["the lock"]], "ms")
    yield amount(
        f"{what}: were {MANY_EVENTS:,} events let in", [1e3 * seconds for seconds in times["many"]], "ms"
    )


@contextmanager
def _waiting_events(most: int) -> Iterator[None]:
    """Let so many events wait before a producer does, where a store lets in `MAX_ITEMS`."""
    before = handover.MAX_ITEMS
    for module in (handover, store):
        vars(module)["MAX_ITEMS"] = most
    try:
        yield
    finally:
        for module in (handover, store):
            vars(module)["MAX_ITEMS"] = before


if __name__ == "__main__":
    script(measure)
