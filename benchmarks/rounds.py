"""How everything here is timed: in one process, in turns, with no garbage of others left to collect.

Whoever is compared takes one turn a round, and the order rotates from round to round, so that a machine that
slows down for a while slows all of them down. Every turn starts from a fresh store or peer, which it makes
before its clock runs. Peers and ours go through the same `clock`.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

import msgspec

from benchmarks import workloads

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
"""The checkout, from which child processes import."""


class Scale(msgspec.Struct, frozen=True):
    """How much is measured."""

    units: int = 10_000
    """Units of the synthetic stream."""
    tasks: int = 6
    """Tasks of each of them."""
    recorded: bool = True
    """Whether the recorded workflows are fed as well."""
    rounds: int = 7
    """Turns that everybody takes."""
    questions: int = 500
    """Questions asked in a turn of which a median is taken."""
    reads: int = 200
    """Snapshots taken under load in a turn, 100 a second."""
    memory_units: int = 1_000_000
    """Units of the graph whose memory is measured."""
    processes: int = 3
    """Child processes of each kind where a turn is a process."""
    part: int = 40_000
    """Events of the stream that a peer takes in a turn which takes them one by one, across processes."""
    connections: int = 1_000
    """Idle connections at a store."""
    kept: int = 10_000_000
    """Events in the journal that is opened, and whose past is asked."""


FULL = Scale()
QUICK = Scale(
    units=200,
    rounds=3,
    questions=100,
    reads=20,
    memory_units=20_000,
    processes=2,
    part=1_000,
    connections=100,
    kept=200_000,
)
"""Shows that all of it runs; the numbers say nothing."""
SMALLEST = Scale(
    units=1,
    tasks=1,
    recorded=False,
    rounds=1,
    questions=2,
    reads=2,
    memory_units=1_000,
    processes=1,
    part=2,
    connections=2,
    kept=10,
)
"""For the smoke test."""


def freeze() -> None:
    """Collect garbage, and freeze what is left, so that no later collection walks through it."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def clock(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes; what it returns is let go after the clock has stopped."""
    freeze()
    began = perf_counter()
    result = work()
    seconds = perf_counter() - began
    del result
    return seconds


def median_of(work: Callable[[], object], times: int) -> float:
    """Return the median of the seconds that each of many calls of `work` takes."""
    freeze()
    seconds = []
    for _ in range(times):
        began = perf_counter()
        work()
        seconds.append(perf_counter() - began)
    return median(seconds)


def alternate(rounds: int, turns: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Let everybody take a turn in each round; return what each of them measured, round by round."""
    names = list(turns)
    measured: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            measured[name].append(turns[name]())
    return measured


@cache
def streams(scale: Scale) -> Mapping[str, bytes]:
    """Return what is fed, each with the name that it has in the table."""
    streams = {f"{scale.units:,} units": workloads.stream(scale.units, scale.tasks)}
    recorded = workloads.instances() if scale.recorded else None
    if recorded is not None:
        streams["8 instances"] = recorded
    return streams


def laps(data: bytes, scale: Scale) -> int:
    """Return how often a stream is fed in one turn, so that short ones are timed as long as the longest."""
    longest = max(stream.count(b"\n") for stream in streams(scale).values())
    return max(1, round(longest / data.count(b"\n")))


def child(*arguments: str, bytecode: str | None = None) -> list[float]:
    """Run this Python in the checkout, and return the numbers that it prints, a JSON array.

    Args:
        arguments: Those of Python.
        bytecode: Where compiled modules are written and found; where others find them, if not given.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if bytecode is not None:
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
    )
    return msgspec.json.decode(done.stdout, type=list[float])
