"""How many events a second does the store take from another process, and how many do the others?

Measured: bytes handed to `handle_lines` of a `RemoteStore`, or events to its `handle_event`, one at a time,
until the `flush` that acks the last of them; the store is a `StoreProcess`. Against the same with a store in
this process, and against three peers that keep the same state in another process, from the same bytes until
they say that all of it is applied. One thread feeds, and both cores are busy.

In chunks, everybody takes the whole stream in pieces of the same size, `orch.started` with its graph
included. Peers that take events one by one are slow, so they take the graph before their clock runs, and
then the first `Scale.part` events; the time an event is compared, which is in their favour, because ours
includes the graph. Their lines are split before the clock runs, too.

Every turn has fresh processes. Before its clock runs, each of them has taken a small run, or the graph:
started, connected, and its rules run once.

Not measured: several producers at once, and starting the processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

from actorstore import RemoteStore, Store, StoreProcess
from actorstore.wire import CHUNK_BYTES, chunks
from benchmarks.crowd import feed, split
from benchmarks.peers import redis_state
from benchmarks.peers.mp_manager import ManagerStore
from benchmarks.peers.mp_queue import QueueStore
from benchmarks.peers.redis_state import RedisStore
from benchmarks.report import script
from benchmarks.rounds import Scale, alternate, clock, laps, streams
from benchmarks.table import Bound, Row, faster, skipped
from benchmarks.workloads import stream

SIZE = f"{CHUNK_BYTES >> 10} KiB"

PEERS = (
    ("Manager", "Manager, a call an event", 30),
    ("Manager, chunks", f"Manager, a call for {SIZE}", None),
    ("Queue", "Queue, an item an event", 5),
    ("Queue, chunks", f"Queue, an item of {SIZE}", None),
    ("Redis", "Redis, HSET an event", 10),
    ("Redis, lean", "Redis, but task.completed merely counted", None),
    ("Redis, commands", "Redis, the commands made before the clock runs", None),
)
"""Whom `handle_lines` is compared with, in a word and in some, and what it must reach."""


def measure(scale: Scale) -> Iterator[Row]:
    """Return the rows of this question."""
    for number, (name, data) in enumerate(streams(scale).items()):
        yield from _lines(name, data, scale, peers=number == 0)
        yield _events(name, data, scale)


def _lines(name: str, data: bytes, scale: Scale, *, peers: bool) -> Iterator[Row]:
    fed = data * laps(data, scale)
    count = fed.count(b"\n")

    def ours() -> float:
        with StoreProcess() as store:
            return lines_to_ack(store, fed) / count

    def here() -> float:
        with Store() as store:
            return lines_to_ack(store, fed) / count

    turns = {"ours": ours, "here": here}
    if peers:
        turns |= _peers(data, scale)
    times = alternate(scale.rounds, turns)

    what = f"handle_lines of RemoteStore to ack, {name}: events a second against"
    yield faster(
        f"{what} a store in this process", times["ours"], times["here"], _figures(times, "ours", "here"), 0.6
    )
    for peer, words, least in PEERS if peers else ():
        if peer in times:
            row = partial(faster, f"{what} {words}", times["ours"], times[peer])
            yield row(_figures(times, "ours", peer), least, peer=peer)
        else:
            yield skipped(f"{what} {words}", redis_state.unavailable() or "", least)


def lines_to_ack(store: Store | RemoteStore, data: bytes) -> float:
    """Return the seconds until all of the lines are acked; a small run goes before them."""
    before = _taken(store, small_run())

    def work() -> None:
        store.handle_lines(data)
        store.flush()

    seconds = clock(work)
    return _checked(store, before + data.count(b"\n"), seconds)


@cache
def small_run() -> bytes:
    """Return what a store takes before a clock runs."""
    return stream(100)


def _peers(data: bytes, scale: Scale) -> dict[str, Callable[[], float]]:
    graph, *lines = data.splitlines(keepends=True)
    part = lines[: scale.part]
    pieces = [bytes(piece) for piece in chunks(data)]
    pieces_of_part = [bytes(piece) for piece in chunks(b"".join(part))]
    count = data.count(b"\n")

    def manager() -> float:
        store = ManagerStore()
        try:
            store.handle_line(graph)
            return clock(lambda: _each(store.handle_line, part)) / len(part)
        finally:
            store.close()

    def manager_chunks() -> float:
        store = ManagerStore()
        try:
            store.handle_lines(small_run())
            return clock(lambda: _each(store.handle_lines, pieces)) / count
        finally:
            store.close()

    def queue(first: bytes, items: list[bytes], events: int, *, chunks: bool) -> float:
        store = QueueStore(chunks=chunks)

        def work() -> None:
            _each(store.put, items)
            store.flush()

        try:
            store.put(first)
            store.flush()
            return clock(work) / events
        finally:
            store.close()

    def redis(*, lean: bool = False) -> float:
        store = RedisStore(lean=lean)
        try:
            store.handle_lines(graph)
            return clock(lambda: _each(store.handle_lines, pieces_of_part)) / len(part)
        finally:
            store.close()

    def redis_commands() -> float:
        store = RedisStore()
        try:
            store.handle_lines(graph)
            made = store.convert(b"".join(part))
            return clock(lambda: store.handle_commands(*made)) / len(part)
        finally:
            store.close()

    turns: dict[str, Callable[[], float]] = {
        "Manager": manager,
        "Manager, chunks": manager_chunks,
        "Queue": partial(queue, graph, part, len(part), chunks=False),
        "Queue, chunks": partial(queue, small_run(), pieces, count, chunks=True),
    }
    if redis_state.unavailable() is None:
        turns["Redis"] = redis
        turns["Redis, lean"] = partial(redis, lean=True)
        turns["Redis, commands"] = redis_commands
    return turns


def _events(name: str, data: bytes, scale: Scale) -> Row:
    graph, (events,) = split(data, 1)
    fed = events * laps(data, scale)

    def ours() -> float:
        with StoreProcess() as store:
            before = _taken(store, graph)

            def work() -> None:
                feed(store.handle_event, fed)
                store.flush()

            seconds = clock(work)
            return len(fed) / _checked(store, before + len(fed), seconds)

    rates = alternate(scale.rounds, {"ours": ours})["ours"]
    return Row(
        what=f"handle_event of RemoteStore to ack, one at a time, {name}",
        unit="events a second",
        best=max(rates),
        values=tuple(rates),
        bound=Bound(">=", 200_000),
        figures=f"{1e9 / max(rates):,.0f} ns an event",
    )


def _taken(store: Store | RemoteStore, data: bytes) -> int:
    """Have a store take these lines; returns how many events it has taken so far."""
    store.handle_lines(data)
    return store.flush().accepted


def _checked(store: Store | RemoteStore, count: int, seconds: float) -> float:
    """Believe no time of a store that has not taken all events."""
    accepted = store.flush().accepted
    if accepted != count:
        raise RuntimeError(f"{accepted} of {count} events were accepted")
    return seconds


def _each(handle: Callable[[bytes], object], items: list[bytes]) -> None:
    for item in items:
        handle(item)


def _figures(times: dict[str, list[float]], *names: str) -> str:
    return ", ".join(f"{name} {min(times[name]) * 1e9:,.0f}" for name in names) + " ns an event"


if __name__ == "__main__":
    script(measure)
