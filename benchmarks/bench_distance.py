"""How long does one wait for a store in another process?

Measured, through a `RemoteStore` to a `StoreProcess` that nobody else uses, which holds the whole synthetic
run:

- one event, handed over alone, to its ack: `handle_event` and `flush`; and without the pause, too;
- `snapshot()`, where nothing is new, and where ten units have changed and are acked; the copies are looked
  at;
- one event, handed over, to its `Update` in a third process that follows the run. That process says when
  each version came, by the clock that all processes on Linux share; the next event waits for that, and for a
  pause;
- a whole process of `actorstore emit` with one event, from its start to its end, beside a Python that does
  nothing.

p50 and p99 are those of one turn, with the best turn first, as everywhere here. Between two events everybody
sleeps for `PAUSE_SECONDS`, so that what is measured includes waking up.

Not measured: a store under load, a busy machine, and Python's first start from a cold disk.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter, sleep
from typing import NamedTuple

from actorstore import Event, RemoteStore, StoreProcess, connect
from benchmarks.bench_latency import UNITS
from benchmarks.report import script
from benchmarks.rounds import ROOT, Scale, alternate, clock, freeze, streams
from benchmarks.table import Bound, Row, amount

PAUSE_SECONDS = 0.002
"""Long enough for every thread to be asleep."""

LATE_SECONDS = 30.0
"""When an update will not come any more."""


class Waits(NamedTuple):
    """What one turn found, in milliseconds."""

    middle: float
    slowest: float
    """p99."""


def measure(scale: Scale) -> Iterator[Row]:
    """Return the rows of this question."""
    name, data = next(iter(streams(scale).items()))
    with StoreProcess() as store:
        store.handle_lines(data)
        store.flush()
        yield from _waits(name, store, scale)
        yield _start(store, scale)


def _waits(name: str, store: RemoteStore, scale: Scale) -> Iterator[Row]:
    ids = [unit.id for unit in store.snapshot().units]
    event = Event.task_started(ids[0])

    def ack(pause: float) -> Waits:
        seconds = []
        freeze()
        for _ in range(scale.questions):
            if pause:
                sleep(pause)
            began = perf_counter()
            store.handle_event(event)
            store.flush()
            seconds.append(perf_counter() - began)
        return _of(seconds)

    def snapshot(units: int) -> Waits:
        store.snapshot()
        seconds = []
        freeze()
        for number in range(scale.questions):
            changed = [ids[(number * units + place) % len(ids)] for place in range(units)]
            for id in changed:
                store.handle_event(Event.unit_failed(id, f"{number}"))
            store.flush()
            began = perf_counter()
            seen = store.snapshot()
            seconds.append(perf_counter() - began)
            if any(seen.unit(id).error != f"{number}" for id in changed):
                raise RuntimeError("a snapshot does not hold the events before it")
        return _of(seconds)

    def update() -> Waits:
        with _follower(store.address) as arrivals:
            version = store.snapshot().version
            _wait_for(arrivals, version)
            seconds = []
            freeze()
            for _ in range(scale.questions):
                sleep(PAUSE_SECONDS)
                version += 1
                began = perf_counter()
                store.handle_event(event)
                seconds.append(_wait_for(arrivals, version) - began)
            return _of(seconds)

    times = alternate(
        scale.rounds,
        {
            "ack": lambda: ack(PAUSE_SECONDS),
            "ack, awake": lambda: ack(0),
            "nothing": lambda: snapshot(0),
            "changed": lambda: snapshot(UNITS),
            "update": update,
        },
    )
    one = "one event, alone, to its ack"
    yield amount(f"{one}: p50", [of.middle for of in times["ack"]], "ms", 0.5)
    yield amount(f"{one}: p99", [of.slowest for of in times["ack"]], "ms", 3)
    one = "one event to its ack, right after the ack of the one before"
    yield amount(f"{one}: p50", [of.middle for of in times["ack, awake"]], "ms")
    yield amount(f"{one}: p99", [of.slowest for of in times["ack, awake"]], "ms")
    what = f"snapshot() of RemoteStore, {name}"
    yield amount(f"{what}, nothing new", [of.middle for of in times["nothing"]], "ms", 0.3)
    yield amount(f"{what}, {UNITS} units changed", [of.middle for of in times["changed"]], "ms", 1.5)
    one = f"one event to its Update in another process, {name}"
    yield amount(f"{one}: p50", [of.middle for of in times["update"]], "ms", 2)
    yield amount(f"{one}: p99", [of.slowest for of in times["update"]], "ms", 10)


def _of(seconds: Sequence[float]) -> Waits:
    return Waits(1e3 * median(seconds), 1e3 * sorted(seconds)[len(seconds) * 99 // 100])


@contextmanager
def _follower(address: str) -> Iterator[Connection]:
    """Have another process follow the run, and tell when which version came."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_follow, args=(address, there), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.terminate()
        process.join()
        process.close()
        here.close()


def _follow(address: str, there: Connection) -> None:
    with connect(address) as store:
        for update in store.subscribe():
            arrived = perf_counter()
            there.send((update.version, arrived))


def _wait_for(arrivals: Connection, version: int) -> float:
    """Return when this version came, or one that holds it."""
    while arrivals.poll(LATE_SECONDS):
        came, arrived = arrivals.recv()
        if came >= version:
            return float(arrived)
    raise RuntimeError(f"no update brought version {version}")


def _start(store: RemoteStore, scale: Scale) -> Row:
    what = "actorstore emit, one event, a whole process"
    if importlib.util.find_spec("actorstore.cli.emit") is None:
        return Row(what=what, unit="", bound=Bound("<=", 120), skipped="there is no such command")
    with tempfile.TemporaryDirectory() as bytecode:
        environment = dict(os.environ) | {"ACTORSTORE_SOCKET": store.address}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        line = b'{"type":"unit.started","unit":"a"}\n'

        def run(*arguments: str) -> float:
            def process() -> None:
                command = [sys.executable, *arguments]
                subprocess.run(command, input=line, stdout=subprocess.DEVNULL, check=True, env=environment)

            return 1e3 * clock(process)

        turns: dict[str, Callable[[], float]] = {
            "emit": lambda: run("-m", "actorstore", "emit"),
            "python -c pass": lambda: run("-c", "pass"),
        }
        for turn in turns.values():
            turn()
        times = alternate(5 * scale.processes, turns)
    figures = ", ".join(f"{who} {min(of_one):.1f}" for who, of_one in times.items()) + " ms"
    return amount(what, times["emit"], "ms", 120, figures=figures)


if __name__ == "__main__":
    script(measure)
