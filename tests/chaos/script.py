"""What a producer sends: each line says which one it is, so lost, doubled and misplaced ones all show.

Line n of a producer is the same whenever it is made, so a record need only hold
numbers. There are two vocabularies. `units` adds one unit in every two lines and
starts it: its number of attempts is how often that line counted, and its place
in the graph when. It needs a run that is there. `runs` makes one run a line and
needs nothing, so it suits stores that come and go.
"""

from __future__ import annotations

import json
import zlib
from typing import Final

START: Final = b'{"type":"orch.started"}\n'
"""What whoever starts a store for `units` sends first."""

BLANK_ONE_IN: Final = 23
BAD_ONE_IN: Final = 17


def kind(name: str, number: int) -> str:
    """Return what line `number` (from 1) of a producer is: `event`, `bad` or `blank`."""
    drawn = zlib.crc32(f"{name}:{number}".encode())
    if drawn % BLANK_ONE_IN == 0:
        return "blank"
    return "bad" if drawn % BAD_ONE_IN == 0 else "event"


def line(name: str, number: int, words: str = "units") -> bytes:
    """Return line `number` (from 1) of a producer, with its LF."""
    what = kind(name, number)
    if what == "blank":
        return b" \n"
    if what == "bad":
        return json.dumps({"type": "", "unit": f"{name}/{number}"}).encode() + b"\n"
    if words == "runs":
        event = {"type": "orch.started", "run": f"{name}/{number}"}
    else:
        event = {"type": "unit.started" if number % 2 else "unit.added", "unit": f"{name}/{number // 2}"}
    return json.dumps(event).encode() + b"\n"


def lines(name: str, first: int, last: int, words: str = "units") -> bytes:
    """Return the lines from one number to another, both included."""
    return b"".join(line(name, number, words) for number in range(first, last + 1))


def events(name: str, after: int, last: int) -> int:
    """Count the events among the lines behind one number, up to another."""
    return sum(kind(name, number) == "event" for number in range(after + 1, last + 1))


def bad(name: str, after: int, last: int) -> int:
    """Count the bad lines among the lines behind one number, up to another."""
    return sum(kind(name, number) == "bad" for number in range(after + 1, last + 1))


def units(name: str, after: int, last: int) -> dict[int, int]:
    """Return what these lines make of a run: the units, in order, and how often each was started."""
    made: dict[int, int] = {}
    for number in range(after + 1, last + 1):
        if kind(name, number) != "event":
            continue
        unit = number // 2
        if number % 2 == 0:
            made.setdefault(unit, 0)
        elif unit in made:
            made[unit] += 1
    return made


def runs(name: str, after: int, last: int) -> list[int]:
    """Return the runs that these lines make, in order."""
    return [number for number in range(after + 1, last + 1) if kind(name, number) == "event"]
