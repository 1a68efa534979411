"""The run as a careful engineer keeps it in plain Python: mutable units in a dict, one function a rule.

`lock.py` puts this behind a lock and `proxy.py` into an actor. Nothing here is safe for threads. It follows
the store's rule table for a single run. It leaves out: more than one run, a graph that is checked and
levelled (the payload is kept as it came), a change index for updates, kept bytes, and a check of what a raw
payload holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from actorstore import Event

Status = Literal["pending", "ready", "in_progress", "complete", "failed", "blocked"]


class Totals(msgspec.Struct, frozen=True):
    """What a peer ended up with, small enough to compare by eye."""

    accepted: int = 0
    total: int = 0
    pending: int = 0
    ready: int = 0
    in_progress: int = 0
    complete: int = 0
    failed: int = 0
    blocked: int = 0
    current_tasks: int = 0
    attempts: int = 0


class HasProgress(Protocol):
    """What `totals_of` reads of a unit; the store's own `UnitState` fits too."""

    @property
    def status(self) -> str: ...
    @property
    def current_task(self) -> int: ...
    @property
    def attempts(self) -> int: ...


def totals_of(units: Iterable[HasProgress], accepted: int) -> Totals:
    """Add up `units`, a snapshot's."""
    units = list(units)
    return Totals(
        accepted=accepted,
        total=len(units),
        current_tasks=sum(unit.current_task for unit in units),
        attempts=sum(unit.attempts for unit in units),
        **Counter(str(unit.status) for unit in units),
    )


class Unit:
    """One unit, changed in place; a `dataclass(slots=True)` is neither faster nor slower."""

    __slots__ = (
        "attempts",
        "current_task",
        "error",
        "finished_at",
        "id",
        "started_at",
        "status",
        "total_tasks",
    )

    def __init__(self, id: str, total_tasks: int, status: Status = "pending", current_task: int = 0) -> None:
        self.id = id
        self.status = status
        self.current_task = current_task
        self.total_tasks = total_tasks
        self.attempts = 0
        self.error: str | None = None
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None


class UnitCopy(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """A copy of a unit: made in C, in 65 ns, a quarter of what another `Unit` takes."""

    id: str
    status: Status
    current_task: int
    total_tasks: int
    attempts: int
    error: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A copy of the run between two events."""

    version: int
    status: str
    started_at: datetime | None
    finished_at: datetime | None
    parallelism: int
    error: str | None
    units: list[UnitCopy]


class Node(msgspec.Struct, frozen=True, gc=False):
    """A unit in the payload of `orch.started`."""

    id: str
    level: int = 0
    tasks: int = 0
    status: Status = "pending"
    completed_tasks: int = 0


class Edge(msgspec.Struct, frozen=True, gc=False, rename={"from_": "from"}):
    """`from_` depends on `to`."""

    from_: str
    to: str


class Graph(msgspec.Struct, frozen=True):
    """The graph as the payload of `orch.started` has it."""

    nodes: list[Node] = []
    edges: list[Edge] = []
    levels: list[list[str]] = []


class Started(msgspec.Struct, frozen=True):
    """The payload of `orch.started`."""

    unit_count: int = 0
    parallelism: int = 0
    graph: Graph | None = None


class Progress(msgspec.Struct, frozen=True, gc=False):
    """The payload of `unit.started`."""

    total_tasks: int | None = None
    completed_tasks: int | None = None


class Added(msgspec.Struct, frozen=True):
    """The payload of `unit.added`."""

    tasks: int = 0
    depends_on: list[str] = []


_started = msgspec.json.Decoder(Started | None)
_progress = msgspec.json.Decoder(Progress | None)
_added = msgspec.json.Decoder(Added | None)


class State:
    """One run, and the rules that change it."""

    def __init__(self) -> None:
        self.version = 0
        self.rejected = 0
        self.unknown_units = 0
        self.clear()

    def clear(self) -> None:
        """Go back to a run of which nothing is known; what was counted stays."""
        self.status = "waiting"
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.parallelism = 0
        self.error: str | None = None
        self.graph: Graph | None = None
        self.units: dict[str, Unit] = {}

    def apply(self, event: Event) -> None:
        """Apply one event.

        A payload that is wrong raises `msgspec.ValidationError` and has changed nothing.

        Two of three events in a run are about tasks, so the one rule of theirs stands here: 5 % faster than a
        table alone. A chain of `elif` for all rules is as fast as this.
        """
        kind = event.type
        if kind == "task.started":
            unit = self.units.get(event.unit)
            if unit is None:
                self.unknown_units += 1
            else:
                task = event.task
                unit.current_task = unit.current_task + 1 if task is None else task
        elif (rule := RULES.get(kind)) is not None:
            rule(self, event)
        self.version += 1

    def apply_all(self, events: Iterable[Event], rejected: int = 0) -> None:
        """Apply many events, and count those that are rejected; `apply` in a loop without the call.

        Args:
            events: What could be decoded.
            rejected: How many lines could not.
        """
        self.rejected += rejected
        units = self.units
        for event in events:
            kind = event.type
            if kind == "task.started":
                unit = units.get(event.unit)
                if unit is None:
                    self.unknown_units += 1
                else:
                    task = event.task
                    unit.current_task = unit.current_task + 1 if task is None else task
            elif (rule := RULES.get(kind)) is not None:
                try:
                    rule(self, event)
                except REJECTIONS:
                    self.rejected += 1
                    continue
                units = self.units
            self.version += 1

    def snapshot(self) -> Snapshot:
        """Copy every unit."""
        return Snapshot(
            self.version,
            self.status,
            self.started_at,
            self.finished_at,
            self.parallelism,
            self.error,
            [
                UnitCopy(
                    unit.id,
                    unit.status,
                    unit.current_task,
                    unit.total_tasks,
                    unit.attempts,
                    unit.error,
                    unit.started_at,
                    unit.finished_at,
                )
                for unit in self.units.values()
            ],
        )


REJECTIONS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a line or a payload that is wrong."""

_PIECE = 1 << 16
"""Bytes decoded at a time: some 700 events, which are still in the cache when they are applied."""


def decode_pieces(decoder: msgspec.json.Decoder[Event], data: bytes) -> Iterable[tuple[list[Event], int]]:
    """Yield the events of `data`, some 700 at a time, with how many lines among them were rejected.

    A piece with a bad line in it is decoded line by line. Lines that lie about being lines (two objects on
    one) go unnoticed.
    """
    start = 0
    with memoryview(data) as view:
        while start < len(data):
            end = data.rfind(b"\n", start, start + _PIECE) + 1 or data.find(b"\n", start) + 1 or len(data)
            try:
                yield decoder.decode_lines(view[start:end]), 0
            except REJECTIONS:
                yield _decode_each(decoder, data[start:end])
            start = end


def _decode_each(decoder: msgspec.json.Decoder[Event], data: bytes) -> tuple[list[Event], int]:
    events: list[Event] = []
    rejected = 0
    for line in data.split(b"\n"):
        if line.strip():
            try:
                events.append(decoder.decode(line))
            except REJECTIONS:
                rejected += 1
    return events, rejected


def _orch_started(state: State, event: Event) -> None:
    payload = (_started.decode(event.payload) if event.payload else None) or Started()
    graph = payload.graph or Graph()
    units: dict[str, Unit] = {}
    for node in graph.nodes:
        if node.id not in units:
            units[node.id] = Unit(node.id, node.tasks, node.status, node.completed_tasks)
    state.status = "running"
    state.started_at = event.time
    state.finished_at = None
    state.error = None
    state.parallelism = payload.parallelism
    state.graph = payload.graph
    state.units = units


def _unit_added(state: State, event: Event) -> None:
    payload = (_added.decode(event.payload) if event.payload else None) or Added()
    if state.status == "waiting":
        state.unknown_units += 1
    elif event.unit not in state.units:
        state.units[event.unit] = Unit(event.unit, payload.tasks)


def _unit_queued(state: State, event: Event) -> None:
    unit = state.units.get(event.unit)
    if unit is None:
        state.unknown_units += 1
        return
    unit.status = "ready"
    unit.error = None


def _unit_started(state: State, event: Event) -> None:
    payload = _progress.decode(event.payload) if event.payload else None
    unit = state.units.get(event.unit)
    if unit is None:
        state.unknown_units += 1
        return
    unit.status = "in_progress"
    unit.started_at = event.time
    unit.attempts += 1
    unit.error = None
    unit.finished_at = None
    if payload is not None:
        if payload.total_tasks is not None:
            unit.total_tasks = payload.total_tasks
        if payload.completed_tasks is not None:
            unit.current_task = payload.completed_tasks


def _unit_completed(state: State, event: Event) -> None:
    unit = state.units.get(event.unit)
    if unit is None:
        state.unknown_units += 1
        return
    unit.status = "complete"
    unit.finished_at = event.time


def _unit_failed(state: State, event: Event) -> None:
    unit = state.units.get(event.unit)
    if unit is None:
        state.unknown_units += 1
        return
    unit.status = "failed"
    unit.error = event.error
    unit.finished_at = event.time


def _unit_blocked(state: State, event: Event) -> None:
    unit = state.units.get(event.unit)
    if unit is None:
        state.unknown_units += 1
        return
    unit.status = "blocked"


def _orch_completed(state: State, event: Event) -> None:
    state.status = "completed"
    state.finished_at = event.time


def _orch_failed(state: State, event: Event) -> None:
    state.status = "failed"
    state.error = event.error
    state.finished_at = event.time


def _orch_reset(state: State, event: Event) -> None:
    state.clear()


RULES: dict[str, Callable[[State, Event], None]] = {
    "orch.started": _orch_started,
    "unit.added": _unit_added,
    "unit.queued": _unit_queued,
    "unit.started": _unit_started,
    "unit.completed": _unit_completed,
    "unit.failed": _unit_failed,
    "unit.blocked": _unit_blocked,
    "orch.completed": _orch_completed,
    "orch.failed": _orch_failed,
    "orch.reset": _orch_reset,
}
"""What each event does, but for `task.started`, which stands in `State.apply`."""
