"""The streams that every benchmark and every peer is fed with.

`stream` is synthetic: a layered graph of units, each with the same number of tasks, worked on in a window
of units at a time, no unit before what it depends on. Nothing fails, nothing is retried, and every id has
the same length, so it says nothing about failures or long ids. `instances` is the union of eight recorded
workflows, with the ids, fan-outs and chains that real graphs have; its times are scheduled, not recorded.

Both are NDJSON bytes and the same bytes for the same arguments. `decoded` makes events of them for benchmarks
that do not time the decoding.
"""

from __future__ import annotations

import heapq
import random
import sys
from datetime import UTC, datetime, timedelta
from math import isqrt
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from actorstore import Event

INSTANCES = Path(__file__).resolve().parents[2] / "shared" / "data" / "wfinstances"
"""Where the recorded workflows lie: beside the checkout, because they are data and not part of it."""

_START = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)


def stream(units: int = 10_000, tasks: int = 6, *, seed: int = 1, window: int = 64) -> bytes:
    """Return one run of `units` units, `tasks` tasks each, as NDJSON.

    The first line is `orch.started` with the graph, the last one `orch.completed`. Between them stand `3 +
    2 * tasks` events a unit: queued, started, then started and completed for each task, completed.
    `task.completed` is a type without a rule: it counts and changes nothing. With the default arguments
    that is 150,002 events in 14.4 MB, 96 bytes a line, the graph's line of 1 MB included.

    Args:
        units: How many units; at least 1.
        tasks: How many tasks each of them has.
        seed: What graph, interleaving and times are drawn from.
        window: How many units are worked on at a time.
    """
    rng = random.Random(seed)
    ids = [f"unit-{i:05d}" for i in range(units)]
    depends_on = _layered(units, rng)
    levels = _levels(depends_on)
    graph = {
        "nodes": [{"id": id, "level": levels[i], "tasks": tasks} for i, id in enumerate(ids)],
        "edges": [{"from": ids[i], "to": ids[j]} for i in range(units) for j in depends_on[i]],
        "levels": _grouped(ids, levels),
    }
    steps = [("unit.queued", ""), ("unit.started", "")]
    for number in range(1, tasks + 1):
        steps += [("task.started", f',"task":{number}'), ("task.completed", f',"task":{number}')]
    steps.append(("unit.completed", ""))

    now = _START
    payload = msgspec.json.encode({"unit_count": units, "parallelism": window, "graph": graph}).decode()
    lines = [f'{{"type":"orch.started","time":"{_rfc3339(now)}","payload":{payload}}}']
    progress = [0] * units
    active: list[int] = []
    completed: set[int] = set()
    admitted = 0
    while len(completed) < units:
        while len(active) < window and admitted < units and completed.issuperset(depends_on[admitted]):
            active.append(admitted)
            admitted += 1
        place = rng.randrange(len(active))
        unit = active[place]
        kind, extra = steps[progress[unit]]
        now += timedelta(microseconds=rng.randrange(200, 1800))
        lines.append(f'{{"type":"{kind}","time":"{_rfc3339(now)}","unit":"{ids[unit]}"{extra}}}')
        progress[unit] += 1
        if progress[unit] == len(steps):
            completed.add(unit)
            active[place] = active[-1]
            active.pop()
    lines.append(f'{{"type":"orch.completed","time":"{_rfc3339(now)}"}}')
    return "\n".join(lines).encode() + b"\n"


def instances(*, machines: int = 16) -> bytes | None:
    """Return the eight recorded workflows as one run; `None`, and a word on stderr, where they are missing.

    The union is one graph in one run, as every peer knows a single run only: each id is prefixed with the
    first word of its instance's name, and the eight go on at the same time, merged by the events' times.

    Args:
        machines: How many workers each instance is scheduled on.
    """
    paths = sorted(INSTANCES.glob("*.json"))
    if not paths:
        print(f"benchmarks: no instances in {INSTANCES}: skipped", file=sys.stderr)
        return None
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    levels: list[list[str]] = []
    running: list[list[Event]] = []
    for path in paths:
        prefix = path.stem.split("-")[0] + "/"
        rest: list[Event] = []
        for event in _converted(path, machines):
            if event.type == "orch.started":
                graph = msgspec.json.decode(event.payload)["graph"]
                nodes += [node | {"id": prefix + node["id"]} for node in graph["nodes"]]
                edges += [{end: prefix + edge[end] for end in ("from", "to")} for edge in graph["edges"]]
                for i, level in enumerate(graph.get("levels") or []):
                    levels += [[]] if i == len(levels) else []
                    levels[i] += [prefix + id for id in level]
            elif not event.type.startswith("orch."):
                rest.append(msgspec.structs.replace(event, run="", unit=prefix + event.unit))
        running.append(rest)
    merged = list(heapq.merge(*running, key=attrgetter("time")))
    graph = {"nodes": nodes, "edges": edges, "levels": levels}
    payload = {"unit_count": len(nodes), "parallelism": machines * len(paths), "graph": graph}
    first = {"type": "orch.started", "time": merged[0].time, "payload": payload}
    last = {"type": "orch.completed", "time": merged[-1].time}
    return msgspec.json.Encoder().encode_lines([first, *map(_fields, merged), last])


def decoded(data: bytes) -> list[Event]:
    """Return the events of `data`, as a producer in the same process would hand them over."""
    from actorstore import Event

    return msgspec.json.Decoder(Event).decode_lines(data)


def _converted(path: Path, machines: int) -> list[Event]:
    from actorstore.cli import wfformat

    return list(wfformat.events(path.read_bytes(), machines=machines))


def _fields(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": event.type, "time": event.time, "unit": event.unit}
    if event.task is not None:
        fields["task"] = event.task
    if event.payload:
        fields["payload"] = event.payload
    if event.error:
        fields["error"] = event.error
    return fields


def _layered(units: int, rng: random.Random) -> list[list[int]]:
    """What each unit depends on: one or two units of the layer before; 40 layers of 250 at 10,000 units."""
    width = max(1, isqrt(units) * 5 // 2)
    depends_on: list[list[int]] = []
    for i in range(units):
        before = range((i // width - 1) * width, i // width * width) if i >= width else range(0)
        depends_on.append(sorted(rng.sample(before, min(len(before), rng.choice((1, 1, 2))))))
    return depends_on


def _levels(depends_on: list[list[int]]) -> list[int]:
    levels: list[int] = []
    for before in depends_on:
        levels.append(max((levels[j] + 1 for j in before), default=0))
    return levels


def _grouped(ids: list[str], levels: list[int]) -> list[list[str]]:
    grouped: list[list[str]] = [[] for _ in range(max(levels, default=-1) + 1)]
    for id, level in zip(ids, levels, strict=True):
        grouped[level].append(id)
    return grouped


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"
