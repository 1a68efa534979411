"""How much memory does a unit take?

Measured, each time in a fresh process: how much more memory is in use after one line of `orch.started`, and
after the first snapshot, which is kept, than before both. The graph has a million units of 6 tasks and no
edges; the ids have 12 characters. The line is read from a file, and let go before the memory is looked at.
Before the line, a small run has been through the store, so that what is made once is not counted.

Two measures. *Held*: the bytes in use in Python's small-object allocator (`sys._debugmallocstats`) and in
malloc (`mallinfo2`); the bounds are for this one, because it is the same on every run. *RSS*: what the
process takes from the machine (`/proc/self/smaps_rollup`), the free pages that the line has left behind
included; this is what the machine's owner sees.

Not measured: edges, the text of errors, longer ids, and units that have started, each of which holds one
or two times of 48 bytes that its events brought.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from actorstore import Store
from benchmarks.peers.lock import LockedStore
from benchmarks.report import script
from benchmarks.rounds import Scale, alternate, child
from benchmarks.table import Row, amount, faster, skipped

_ROLLUP = Path("/proc/self/smaps_rollup")


def measure(scale: Scale) -> Iterator[Row]:
    """Return the rows of this question."""
    what = f"memory a unit, {scale.memory_units:,} units, no edges"
    if not _ROLLUP.exists() or not hasattr(ctypes.CDLL(None), "mallinfo2"):
        yield skipped(what, "needs Linux with glibc 2.33 or newer")
        return
    with tempfile.NamedTemporaryFile(suffix=".ndjson") as file:
        file.write(_line(scale.memory_units))
        file.flush()
        turns = {
            who: partial(child, "-m", "benchmarks.bench_memory", who, file.name, str(scale.memory_units))
            for who in ("ours", "the lock")
        }
        measured = alternate(scale.processes, turns)
    held, held_after, resident, resident_after = zip(*measured["ours"], strict=True)
    peer_held, peer_held_after, *_ = zip(*measured["the lock"], strict=True)
    yield amount(f"{what}, before the first snapshot", held, "bytes", 320)
    yield amount(f"{what}, after it", held_after, "bytes", 420)
    yield amount(f"{what}, before the first snapshot, as RSS", resident, "bytes")
    yield amount(f"{what}, after it, as RSS", resident_after, "bytes")
    for when, ours, theirs in (
        ("before the first snapshot", held, peer_held),
        ("after it", held_after, peer_held_after),
    ):
        figures = f"ours {min(ours):.0f}, the lock {min(theirs):.0f} bytes"
        yield faster(f"{what}, {when}: the lock's over ours", ours, theirs, figures, peer="the lock")


def _line(units: int) -> bytes:
    nodes = [{"id": f"unit-{number:07d}", "level": 0, "tasks": 6} for number in range(units)]
    payload = {"unit_count": units, "parallelism": 64, "graph": {"nodes": nodes}}
    event = {"type": "orch.started", "time": "2026-01-05T06:00:00Z", "payload": payload}
    return msgspec.json.encode(event) + b"\n"


# The child's side.


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def _child(who: str, path: str, units: int) -> list[float]:
    if who == "ours":
        with Store() as store:

            def feed(data: bytes) -> None:
                store.handle_lines(data)
                store.flush()

            return _growth(feed, store.snapshot, path, units)
    peer = LockedStore()
    return _growth(peer.handle_lines, peer.snapshot, path, units)


def _growth(
    feed: Callable[[bytes], None], snapshot: Callable[[], object], path: str, units: int
) -> list[float]:
    feed(_line(1))
    snapshot()
    before = _held(), _resident()
    feed(Path(path).read_bytes())
    fed = _held(), _resident()
    kept = snapshot()
    seen = _held(), _resident()
    del kept
    return [(after[measure] - before[measure]) / units for measure in (0, 1) for after in (fed, seen)]


def _held() -> int:
    """Return the bytes that somebody uses."""
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _MallInfo
    large = libc.mallinfo2()
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        file.seek(0)
        small = re.search(rb"# bytes in allocated blocks\s*=\s*([\d,]+)", file.read())
    if small is None:
        raise RuntimeError("Python does not use its own allocator; unset PYTHONMALLOC")
    return int(small[1].replace(b",", b"")) + int(large.uordblks) + int(large.hblkhd)


def _resident() -> int:
    """Return the bytes that the process takes from the machine."""
    found = re.search(r"^Rss:\s*(\d+) kB", _ROLLUP.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(msgspec.json.encode(_child(sys.argv[1], sys.argv[2], int(sys.argv[3]))).decode())
    else:
        script(measure)
