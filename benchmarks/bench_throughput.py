"""How many events a second does the store take, and how many do the others?

Measured: bytes handed to `handle_lines`, or events handed to `handle_event`, until the final `flush` has
answered. `handle_lines` takes the whole stream, `orch.started` with its graph included. `handle_event` takes
the events of units, with the graph there before the clock runs: Celery has no graph, and what the graph costs
is a row of its own. From four threads, each unit's events belong to one of them; the one thread that they are
measured by is fed the same four lists one after the other.

Not measured: making the events, and what producers do between them. Four threads that do nothing but hand
over are the worst case for whatever they share.

`decode_lines` is msgspec's, of the same bytes and type, and nothing else. In pieces it is faster than as a
whole, because the events of one piece are gone from the processor's cache before the next one comes. The
store decodes in pieces of `CHUNK_BYTES` of `actorstore/wire.py` too, so these are its floor, not the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from actorstore import Event, Store
from actorstore.wire import CHUNK_BYTES
from benchmarks.crowd import PRODUCERS, Reader, feed, feed_at_once, split
from benchmarks.peers import go_store
from benchmarks.peers.lock import LockedStore
from benchmarks.peers.proxy import ProxyStore
from benchmarks.report import script
from benchmarks.rounds import Scale, alternate, clock, laps, streams
from benchmarks.table import Row, faster, skipped, slower
from benchmarks.workloads import decoded

PEERS = (("the lock", 0.95), ("the proxy", 15), ("Celery", 20), ("Celery, lean", None))
"""Whom one thread is compared with, and what it must reach; lean is a Celery that merely counts
`task.completed`, where as a rule it is told of tasks that are done."""

GO_ROUNDS = 3
"""In one process of Go's, the best of which counts: its first one pays for the growing heap."""


def measure(scale: Scale) -> Iterator[Row]:
    """Return the rows of this question."""
    for name, data in streams(scale).items():
        yield from _lines(name, data, scale)
        yield from _graph(name, data, scale)
        yield from _one_thread(name, data, scale)
        yield from _four_threads(name, data, scale)
    yield from _pieces(*next(iter(streams(scale).items())), scale)


def _lines(name: str, data: bytes, scale: Scale) -> Iterator[Row]:
    data *= laps(data, scale)
    count = data.count(b"\n")
    decoder = msgspec.json.Decoder(Event)

    def ours() -> float:
        with Store() as store:

            def work() -> None:
                store.handle_lines(data)
                store.flush()

            return _checked(store, count, clock(work))

    def lock() -> float:
        store = LockedStore()
        return clock(lambda: store.handle_lines(data))

    turns: dict[str, Callable[[], float]] = {
        "ours": ours,
        "decode_lines": lambda: clock(lambda: decoder.decode_lines(data)),
        "in pieces": lambda: clock(lambda: _decode_in_pieces(data, CHUNK_BYTES)),
        "the lock": lock,
    }
    go = go_store.unavailable()
    if go is None:
        turns["Go"] = lambda: min(go_store.run(data, GO_ROUNDS).feed_seconds)
    times = alternate(scale.rounds, turns)

    what = f"handle_lines, {name}"
    figures = partial(_figures, times, count=count)
    yield slower(
        f"{what}: time against decode_lines alone",
        times["ours"],
        times["decode_lines"],
        figures("ours", "decode_lines"),
        1.9,
    )
    yield slower(
        f"{what}: time against decode_lines alone, in pieces of {CHUNK_BYTES >> 10} KiB",
        times["ours"],
        times["in pieces"],
        figures("ours", "in pieces"),
    )
    for peer, least in (("Go", 2.7), ("the lock", None)):
        row = f"{what}: events a second against {peer}"
        if peer in times:
            yield faster(row, times["ours"], times[peer], figures("ours", peer), least, peer=peer)
        else:
            yield skipped(row, go or "", least)


def _graph(name: str, data: bytes, scale: Scale) -> Iterator[Row]:
    line, _ = split(data)

    def ours() -> float:
        with Store() as store:

            def work() -> None:
                store.handle_lines(line)
                store.flush()

            return _checked(store, 1, clock(work))

    def lock() -> float:
        store = LockedStore()
        return clock(lambda: store.handle_lines(line))

    times = alternate(scale.rounds, {"ours": ours, "the lock": lock})
    yield faster(
        f"orch.started with its graph, {name}: speed against the lock, which does not check it",
        times["ours"],
        times["the lock"],
        ", ".join(f"{who} {1e3 * min(times[who]):.2f}" for who in times) + " ms",
        peer="the lock",
    )


def _one_thread(name: str, data: bytes, scale: Scale) -> Iterator[Row]:
    graph, (events,) = split(data, 1)
    fed = events * laps(data, scale)

    def ours() -> float:
        with Store() as store:
            store.handle_lines(graph)
            store.flush()

            def work() -> None:
                feed(store.handle_event, fed)
                store.flush()

            return _checked(store, len(fed) + 1, clock(work)) / len(fed)

    def lock() -> float:
        store = LockedStore()
        store.handle_lines(graph)
        return clock(lambda: feed(store.handle_event, fed)) / len(fed)

    def proxy() -> float:
        store = ProxyStore()
        store.handle_lines(graph)
        store.flush()

        def work() -> None:
            feed(store.handle_event, fed)
            store.flush()

        try:
            return clock(work) / len(fed)
        finally:
            store.close()

    def celery(*, lean: bool = False) -> float:
        store = CeleryStore(lean)
        _, *converted = store.convert(decoded(graph) + events)  # a second lap would be more events for Celery
        return clock(lambda: store.handle_events(converted)) / len(events)

    turns = {"ours": ours, "the lock": lock, "the proxy": proxy}
    try:
        from benchmarks.peers.celery_state import CeleryStore
    except ImportError:
        pass
    else:
        turns["Celery"] = celery
        turns["Celery, lean"] = partial(celery, lean=True)
    times = alternate(scale.rounds, turns)
    for peer, least in PEERS:
        row = f"handle_event, one thread, {name}: events a second against {peer}"
        if peer in times:
            yield faster(row, times["ours"], times[peer], _figures(times, "ours", peer), least, peer=peer)
        else:
            yield skipped(row, "celery is not installed", least)


def _four_threads(name: str, data: bytes, scale: Scale) -> Iterator[Row]:
    graph, parts = split(data)
    parts = [part * laps(data, scale) for part in parts]
    everything = [event for part in parts for event in part]
    rates: dict[str, float] = {}

    def ours(*, at_once: bool = True, read: bool = False) -> float:
        with Store() as store:
            store.handle_lines(graph)
            store.flush()

            def work() -> None:
                if at_once:
                    feed_at_once(store.handle_event, parts)
                else:
                    feed(store.handle_event, everything)
                store.flush()

            seconds = timed_beside("ours", store.snapshot, work) if read else clock(work)
            return _checked(store, len(everything) + 1, seconds)

    def lock(*, read: bool = False) -> float:
        store = LockedStore()
        store.handle_lines(graph)

        def work() -> None:
            feed_at_once(store.handle_event, parts)

        return timed_beside("the lock", store.snapshot, work) if read else clock(work)

    def timed_beside(who: str, snapshot: Callable[[], object], work: Callable[[], None]) -> float:
        taken = 0

        def counted() -> None:
            nonlocal taken
            before = len(reader.seconds)
            work()
            taken = len(reader.seconds) - before

        with Reader(snapshot) as reader:
            seconds = clock(counted)
        rates[who] = max(rates.get(who, 0.0), taken / seconds)
        return seconds

    turns: dict[str, Callable[[], float]] = {
        "one thread": partial(ours, at_once=False),
        "ours": ours,
        "the lock": lock,
        "ours, read": partial(ours, read=True),
        "the lock, read": partial(lock, read=True),
    }
    times = alternate(scale.rounds, turns)
    what = f"handle_event, {PRODUCERS} threads, {name}: events a second"
    figures = partial(_figures, times, count=len(everything))
    yield faster(
        f"{what} against one thread",
        times["ours"],
        times["one thread"],
        figures("ours", "one thread"),
        0.75,
    )
    yield faster(
        f"{what} against the lock",
        times["ours"],
        times["the lock"],
        figures("ours", "the lock"),
        peer="the lock",
    )
    read = ", ".join(f"{who} {rate:.0f}" for who, rate in rates.items())
    yield faster(
        f"{what} against the lock, with a reader at 100 snapshots a second beside them",
        times["ours, read"],
        times["the lock, read"],
        f"{figures('ours, read', 'the lock, read')}; most snapshots a second: {read}",
        1.2,
        peer="the lock",
    )


def _pieces(name: str, data: bytes, scale: Scale) -> Iterator[Row]:
    """What `CHUNK_BYTES` was chosen by."""
    sizes = {f"{size >> 10} KiB": size for size in (1 << 14, 1 << 16, 1 << 18, 1 << 20)}
    turns = {label: partial(clock, partial(_decode_in_pieces, data, size)) for label, size in sizes.items()}
    turns["the whole"] = partial(clock, partial(msgspec.json.Decoder(Event).decode_lines, data))
    times = alternate(scale.rounds, turns)
    for label in sizes:
        yield slower(
            f"decode_lines alone, {name}: time in pieces of {label} against the whole",
            times[label],
            times["the whole"],
            _figures(times, label, "the whole", count=data.count(b"\n")),
        )


def _decode_in_pieces(data: bytes, size: int) -> None:
    """Decode pieces that end at the last LF of `size` bytes, or at the next one."""
    decoder = msgspec.json.Decoder(Event)
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + size) + 1 or data.index(b"\n", start + size) + 1
        decoder.decode_lines(data[start:end])
        start = end


def _checked(store: Store, count: int, seconds: float) -> float:
    """Believe no time of a store that has not taken all events."""
    accepted = store.flush().accepted
    if accepted != count:
        raise RuntimeError(f"{accepted} of {count} events were accepted")
    return seconds


def _figures(times: dict[str, list[float]], *names: str, count: int = 1) -> str:
    return ", ".join(f"{name} {min(times[name]) / count * 1e9:,.0f}" for name in names) + " ns an event"


if __name__ == "__main__":
    script(measure)
