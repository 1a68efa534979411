"""What does it cost that nothing acked is lost, and what does one get for it?

Measured, with every ack on disk: `handle_lines` to `flush`, in this process and through `RemoteStore` to a
`StoreProcess`, from one producer and from four threads with a connection each, against the same without a
journal; against Redis with an append-only file that is synced always; and against NATS JetStream, which keeps
a log and no state. Then a journal of `Scale.kept` events is made, opened with its checkpoints and without,
and its past is asked while a producer feeds.

The journal lies where `tempfile` puts it; a file system in memory would make all of this meaningless.

Not measured: other disks, and other durabilities than the default.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from time import perf_counter

from actorstore import RemoteStore, Store, StoreProcess
from actorstore.wire import chunks
from benchmarks.bench_remote import lines_to_ack, small_run
from benchmarks.crowd import PRODUCERS
from benchmarks.peers import nats_log, redis_state
from benchmarks.peers.nats_log import CHUNKS_IN_FLIGHT, EVENTS_IN_FLIGHT, NatsLog
from benchmarks.peers.redis_state import RedisStore
from benchmarks.report import script
from benchmarks.rounds import Scale, alternate, clock, laps, streams
from benchmarks.table import Bound, Row, amount, faster, skipped, slower

PLACES = (0.02, 0.31, 0.5, 0.77, 0.99)
"""Where the past is asked, as a share of the versions."""

REDIS_BATCH = 10_000
"""Commands in a pipeline where each of them is synced: 1,000 are slower."""


def measure(scale: Scale) -> Iterator[Row]:
    """Return the rows of this question."""
    for number, (name, data) in enumerate(streams(scale).items()):
        fed = data * laps(data, scale)
        yield _here(name, fed, scale)
        yield from _remote(name, data, fed, scale, peers=number == 0)
    yield from _crowd(next(iter(streams(scale).values())), scale)
    yield from _past(next(iter(streams(scale).values())), scale)


@contextmanager
def folder() -> Iterator[Path]:
    """A place for a journal."""
    made = tempfile.mkdtemp(prefix="journal-")
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _here(name: str, data: bytes, scale: Scale) -> Row:
    def plain() -> float:
        with Store() as store:
            return lines_to_ack(store, data) / data.count(b"\n")

    def durable() -> float:
        with folder() as place, Store(journal=place / "j") as store:
            return lines_to_ack(store, data) / data.count(b"\n")

    times = alternate(scale.rounds, {"journal": durable, "none": plain})
    what = f"handle_lines and flush in process, every ack on disk, {name}: events a second against no journal"
    return faster(what, times["journal"], times["none"], _figures(times), 0.6)


def _remote(name: str, data: bytes, fed: bytes, scale: Scale, *, peers: bool) -> Iterator[Row]:
    count = fed.count(b"\n")

    def plain() -> float:
        with StoreProcess() as store:
            return lines_to_ack(store, fed) / count

    def durable() -> float:
        with folder() as place, StoreProcess(journal=place / "j") as store:
            return lines_to_ack(store, fed) / count

    turns = {"journal": durable, "none": plain}
    if peers:
        turns |= _peers(data, scale)
    times = alternate(scale.rounds, turns)
    what = f"handle_lines of RemoteStore to ack, every ack on disk, {name}: events a second against"
    yield faster(
        f"{what} no journal", times["journal"], times["none"], _figures(times, "journal", "none"), 0.6
    )
    rows = (
        ("Redis", "Redis, HSET an event, appendfsync always", 8, redis_state.unavailable()),
        (
            "NATS, chunks",
            "NATS JetStream, a message a chunk, not synced, no state",
            None,
            nats_log.unavailable(),
        ),
        (
            "NATS, events",
            "NATS JetStream, a message an event, not synced, no state",
            None,
            nats_log.unavailable(),
        ),
    )
    for peer, words, least, missing in rows if peers else ():
        if missing is None:
            figures = _figures(times, "journal", peer)
            yield faster(f"{what} {words}", times["journal"], times[peer], figures, least, peer=peer)
        else:
            yield skipped(f"{what} {words}", missing, least)


def _peers(data: bytes, scale: Scale) -> dict[str, Callable[[], float]]:
    graph, *lines = data.splitlines(keepends=True)
    part = b"".join(lines[: scale.part])
    pieces = [bytes(piece) for piece in chunks(data)]

    def redis() -> float:
        store = RedisStore(durable=True, batch=REDIS_BATCH)
        try:
            store.handle_lines(graph)
            return clock(lambda: store.handle_lines(part)) / part.count(b"\n")
        finally:
            store.close()

    def nats(messages: list[bytes], count: int, in_flight: int) -> float:
        log = NatsLog()
        try:
            return clock(lambda: log.publish(messages, in_flight)) / count
        finally:
            log.close()

    turns: dict[str, Callable[[], float]] = {}
    if redis_state.unavailable() is None:
        turns["Redis"] = redis
    if nats_log.unavailable() is None:
        turns["NATS, chunks"] = lambda: nats(pieces, data.count(b"\n"), CHUNKS_IN_FLIGHT)
        turns["NATS, events"] = lambda: nats(lines[: scale.part], len(lines[: scale.part]), EVENTS_IN_FLIGHT)
    return turns


def _crowd(data: bytes, scale: Scale) -> Iterator[Row]:
    """Four producers at once, each with a connection and a run of its own."""
    shares: list[float] = []
    parts = [data.replace(b'{"type"', b'{"run":"%d","type"' % number) for number in range(PRODUCERS)]
    count = sum([part.count(b"\n") for part in parts])

    def turn(journal: Path | None) -> float:
        with StoreProcess(journal=journal) as store:
            others = [RemoteStore(store.address) for _ in parts]
            for other in others:
                other.handle_lines(small_run())
                other.flush()
            before = store.stats()

            def produce(remote: RemoteStore, part: bytes) -> None:
                remote.handle_lines(part)
                remote.flush()

            def work() -> None:
                threads = [Thread(target=produce, args=pair) for pair in zip(others, parts, strict=True)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

            seconds = clock(work)
            stats = store.stats()
            if stats.version - before.version != count:
                raise RuntimeError(f"{stats.version - before.version} of {count} events were accepted")
            if stats.journal is not None and before.journal is not None:
                shares.append(count / (stats.journal.batches - before.journal.batches))
            for other in others:
                other.close()
            return seconds / count

    def durable() -> float:
        with folder() as place:
            return turn(place / "j")

    times = alternate(scale.rounds, {"journal": durable, "none": lambda: turn(None)})
    what = f"the same, {PRODUCERS} producers at once"
    yield faster(
        f"{what}: events a second against no journal", times["journal"], times["none"], _figures(times), 0.6
    )
    yield Row(
        what=f"{what}: events in a transaction",
        unit="events",
        best=max(shares),
        values=tuple(shares),
        bound=Bound(">=", 500),
    )


def _past(data: bytes, scale: Scale) -> Iterator[Row]:
    times = max(1, scale.kept // data.count(b"\n"))
    count = times * data.count(b"\n")
    with folder() as place:
        path = place / "j"
        with Store(journal=path) as store:
            for _ in range(times):
                store.handle_lines(data)
            store.flush()
        size = os.path.getsize(path) / (times * len(data))
        yield amount(
            f"bytes on disk of {count:,} events against their lines",
            [size],
            "times",
            1.3,
            figures=f"{size:.3f}",
        )
        opened = [clock(lambda: _open(path, count)) for _ in range(min(3, scale.rounds))]
        yield amount(f"opening a journal of {count:,} events, with checkpoints", opened, "s", 2.0)
        bare = place / "bare"
        shutil.copyfile(path, bare)
        _forget_checkpoints(bare)
        without = [clock(lambda: _open(bare, count)) for _ in range(min(2, scale.rounds))]
        bare.unlink()
        fed = [clock(lambda: _feed(data, times)) for _ in range(min(2, scale.rounds))]
        figures = f"opened in {min(without):.1f} s, fed in {min(fed):.1f} s"
        yield slower(
            "the same without checkpoints, against feeding the same bytes", without, fed, figures, 2.0
        )
        yield from _asked(path, data, count)


def _open(path: Path, version: int) -> None:
    with Store(journal=path) as store:
        found = store.stats().version
    if found != version:
        raise RuntimeError(f"it is at version {found}, and has been fed {version}")


def _feed(data: bytes, times: int) -> None:
    with Store() as store:
        for _ in range(times):
            store.handle_lines(data)
        store.flush()


def _forget_checkpoints(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DELETE FROM checkpoint")
    connection.close()


def _asked(path: Path, data: bytes, count: int) -> Iterator[Row]:
    """Ask the past, alone and while a producer feeds, and see how fast that one is meanwhile."""
    with Store(journal=path) as store:
        places = [max(1, int(share * count)) for share in PLACES]
        alone = [_look(store, at) for at in places]
        enough = Flag()

        def produce() -> None:
            while not enough.is_set():
                store.handle_lines(data)

        def rate(work: Callable[[], object]) -> float:
            before, began = store.stats().version, perf_counter()
            work()
            return (store.stats().version - before) / (perf_counter() - began)

        feeding = Thread(target=produce)
        feeding.start()
        try:
            seconds: list[float] = []

            def look() -> None:
                seconds.extend([_look(store, at) for at in places])

            rates = alternate(
                3, {"asked": lambda: rate(look), "alone": lambda: rate(lambda: Flag().wait(2.0))}
            )
        finally:
            enough.set()
            feeding.join()
    what = f"snapshot(at=...) among {count:,} events"
    yield amount(f"{what}, nobody feeds: the slowest of {len(places)}", [max(alone)], "s")
    yield amount(f"{what}, a producer feeds: the slowest", [max(seconds)], "s", 3.0)
    figures = f"{max(rates['asked']):,.0f} and {max(rates['alone']):,.0f} events a second"
    yield Row(
        what="intake meanwhile, against intake alone",
        unit="times",
        best=max(rates["asked"]) / max(rates["alone"]),
        values=tuple(a / b for a, b in zip(rates["asked"], rates["alone"], strict=True)),
        bound=Bound(">=", 0.7),
        figures=figures,
    )


def _look(store: Store, at: int) -> float:
    return clock(lambda: store.snapshot("", at=at, timeout=60))


def _figures(times: dict[str, list[float]], *names: str) -> str:
    return ", ".join(f"{name} {min(times[name]) * 1e9:,.0f}" for name in names or times) + " ns an event"


if __name__ == "__main__":
    script(measure)
