"""What do connections cost that are open and silent?

Measured: what a `StoreProcess` takes more from the machine, for itself alone (`/proc/PID/smaps_rollup`),
when `Scale.connections` producers have said hello, have been welcomed, and say nothing; for each of them.
And how fast another producer's `handle_lines` gets to its ack beside them, against one that has the store to
itself.

Not measured: what the kernel keeps for a socket, which is not the process's, and a connection that has sent.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from actorstore import StoreProcess
from benchmarks.bench_remote import lines_to_ack, small_run
from benchmarks.report import script
from benchmarks.rounds import Scale, alternate, streams
from benchmarks.table import Row, amount, faster, skipped

LAPS = 3
"""How often the stream is fed: 5 % are hard to see in a fifth of a second."""

SPARE_FILES = 200
"""Descriptors that a process has open besides its connections."""


class Turn(NamedTuple):
    """What one turn found."""

    seconds: float
    """An event."""
    kilobytes: float = 0.0
    """A connection."""


def measure(scale: Scale) -> Iterator[Row]:
    """Return the rows of this question."""
    idle = f"{scale.connections:,} idle connections"
    name, data = next(iter(streams(scale).items()))
    memory = f"{idle}: memory of the store, each"
    speed = f"handle_lines of RemoteStore to ack, {name}, beside {idle}: speed against without them"
    if not Path("/proc/self/smaps_rollup").exists():
        yield skipped(memory, "needs Linux")
        yield skipped(speed, "needs Linux", 0.95)
        return
    data *= LAPS
    count = data.count(b"\n")
    first = scale.connections // 5

    def alone() -> Turn:
        with StoreProcess() as store:
            return Turn(lines_to_ack(store, data) / count)

    def beside() -> Turn:
        process = StoreProcess()
        with process as store:
            store.handle_lines(small_run())
            store.flush()
            with _idle(store.address, first):
                before = _private(process.pid)
                with _idle(store.address, scale.connections):
                    kilobytes = (_private(process.pid) - before) / scale.connections
                    return Turn(lines_to_ack(store, data) / count, kilobytes)

    with _many_files(first + scale.connections + SPARE_FILES):
        turns = alternate(scale.rounds, {"beside": beside, "alone": alone})
    yield amount(memory, [turn.kilobytes for turn in turns["beside"]], "KB", 20)
    beside_them, without = ([turn.seconds for turn in turns[who]] for who in ("beside", "alone"))
    figures = f"beside them {min(beside_them) * 1e9:,.0f}, alone {min(without) * 1e9:,.0f} ns an event"
    yield faster(speed, beside_them, without, figures, 0.95)


@contextmanager
def _idle(address: str, count: int) -> Iterator[None]:
    """Hold so many connections open, each of them welcomed."""
    with ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(address)
            hello = {"hello": {"producer": f"{count:x}-{number:032x}", "protocol": 1}}
            connection.sendall(json.dumps(hello).encode() + b"\n")
            told = b""
            while not told.endswith(b"\n"):
                told += connection.recv(1 << 12) or b"\n"
            if b'"welcome"' not in told:
                raise RuntimeError(f"no welcome, but {told!r}")
        yield


@contextmanager
def _many_files(count: int) -> Iterator[None]:
    """Let this process and its children have so many descriptors open, as far as the system lets them."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _private(pid: int | None) -> float:
    """Return the kilobytes that a process takes from the machine and shares with nobody."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.findall(r"^Private_\w+:\s*(\d+) kB", rollup, re.MULTILINE)
    return 1.024 * sum(map(int, found))


if __name__ == "__main__":
    script(measure)
