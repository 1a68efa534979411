"""What tests are built from: events at a fixed time, small graphs, lines, a folded state, a follower.

A test names only what it is about; everything else has a value here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from actorstore.answers import GraphData, StateSnapshot, StateSummary, UnitState, UnitStatus, Update
from actorstore.event import Event
from actorstore.payload import open_payload
from actorstore.state import State

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
"""When everything happens, where a test does not say otherwise."""

SUMMARY_FIELDS = tuple(str(status) for status in UnitStatus)
"""The fields of a summary that count units of one status."""

Graph = GraphData | Mapping[str, Iterable[str]]


def at(seconds: float) -> datetime:
    """The time so many seconds after `NOON`."""
    return NOON + timedelta(seconds=seconds)


# Graphs, as `graphlib.TopologicalSorter` takes them.


def units(*ids: str) -> dict[str, list[str]]:
    """Units that depend on nothing."""
    return {id: [] for id in ids}


def chain(size: int) -> dict[str, list[str]]:
    """`u0`, `u1`, ...: each depends on the one before."""
    return {f"u{number}": [f"u{number - 1}"] if number else [] for number in range(size)}


def circle(size: int) -> dict[str, list[str]]:
    """`u0`, `u1`, ...: each depends on the one before, and the first on the last."""
    return {f"u{number}": [f"u{(number - 1) % size}"] for number in range(size)}


def diamond() -> dict[str, list[str]]:
    """`a` at the bottom, `b` and `c` on it, `d` on both."""
    return {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


# Events, one builder a rule.


def orch_started(
    graph: Graph | None = None, *, parallelism: int | None = None, run: str = "", time: datetime = NOON
) -> Event:
    """The run began, or began anew."""
    return Event.orch_started(graph, parallelism=parallelism, run=run, time=time)


def orch_planned(
    *nodes: Mapping[str, object],
    edges: Iterable[tuple[str, str]] = (),
    levels: Iterable[Iterable[str]] = (),
    parallelism: int | None = None,
    run: str = "",
    time: datetime = NOON,
) -> Event:
    """The run began with nodes as the wire has them, for example `{"id": "a", "tasks": 3}`."""
    graph = {
        "nodes": list(nodes),
        "edges": [{"from": from_, "to": to} for from_, to in edges],
        "levels": [list(level) for level in levels],
    }
    payload = {"unit_count": len(nodes), "parallelism": parallelism, "graph": graph}
    return Event("orch.started", time=time, run=run, payload=payload)


def orch_completed(*, run: str = "", time: datetime = NOON) -> Event:
    """The run is done."""
    return Event.orch_completed(run=run, time=time)


def orch_failed(error: str = "it broke", *, run: str = "", time: datetime = NOON) -> Event:
    """The run failed."""
    return Event.orch_failed(error, run=run, time=time)


def orch_reset(*, run: str = "", time: datetime = NOON) -> Event:
    """The run goes back to waiting."""
    return Event.orch_reset(run=run, time=time)


def unit_added(
    unit: str,
    depends_on: Iterable[str] = (),
    *,
    tasks: int | None = None,
    run: str = "",
    time: datetime = NOON,
) -> Event:
    """A unit was found while the run was under way."""
    return Event.unit_added(unit, tasks=tasks, depends_on=depends_on, run=run, time=time)


def unit_queued(unit: str, *, run: str = "", time: datetime = NOON) -> Event:
    """The unit waits for a worker."""
    return Event.unit_queued(unit, run=run, time=time)


def unit_started(
    unit: str,
    *,
    total_tasks: int | None = None,
    completed_tasks: int | None = None,
    run: str = "",
    time: datetime = NOON,
) -> Event:
    """An attempt at the unit began."""
    return Event.unit_started(
        unit, total_tasks=total_tasks, completed_tasks=completed_tasks, run=run, time=time
    )


def task_started(unit: str, task: int | None = None, *, run: str = "", time: datetime = NOON) -> Event:
    """The unit is at this task, or at the next one."""
    return Event.task_started(unit, task, run=run, time=time)


def unit_completed(unit: str, *, run: str = "", time: datetime = NOON) -> Event:
    """The unit is done."""
    return Event.unit_completed(unit, run=run, time=time)


def unit_failed(unit: str, error: str = "it broke", *, run: str = "", time: datetime = NOON) -> Event:
    """The attempt at the unit failed."""
    return Event.unit_failed(unit, error, run=run, time=time)


def unit_blocked(unit: str, *, run: str = "", time: datetime = NOON) -> Event:
    """The unit cannot run."""
    return Event.unit_blocked(unit, run=run, time=time)


def lifecycle(unit: str, *, tasks: int = 0, run: str = "") -> list[Event]:
    """All events of a unit that goes well."""
    return [
        unit_queued(unit, run=run),
        unit_started(unit, total_tasks=tasks or None, run=run),
        *(task_started(unit, task, run=run) for task in range(1, tasks + 1)),
        unit_completed(unit, run=run),
    ]


def whole_run(graph: Graph, *, tasks: int = 0, run: str = "") -> list[Event]:
    """All events of a run that goes well, its units one after the other in the order of the graph."""
    events = [orch_started(graph, run=run)]
    for unit in [node.id for node in graph.nodes] if isinstance(graph, GraphData) else graph:
        events += lifecycle(unit, tasks=tasks, run=run)
    return [*events, orch_completed(run=run)]


# Lines.


def line(event: Event) -> bytes:
    """The event as a producer sends it."""
    return msgspec.json.encode(event) + b"\n"


def lines(*events: Event) -> bytes:
    """Several of them."""
    return b"".join(map(line, events))


# States, without any actor.


def apply(state: State, *events: Event) -> State:
    """Take the events in as a store does, and apply them."""
    state.apply([open_payload(event) for event in events])
    return state


def fold(*events: Event, store: str = "s") -> State:
    """A new state, after these events."""
    return apply(State(store), *events)


# What must always hold.


def check_summary(summary: StateSummary, seen: Iterable[UnitState]) -> None:
    """The summary counts these units, and its six counts add up."""
    statuses = [unit.status for unit in seen]
    assert summary.total == len(statuses)
    assert {name: getattr(summary, name) for name in SUMMARY_FIELDS} == {
        name: statuses.count(UnitStatus(name)) for name in SUMMARY_FIELDS
    }


def check_snapshot(snapshot: StateSnapshot) -> StateSnapshot:
    """Its ids are unique, and its summary is that of its units."""
    assert len({unit.id for unit in snapshot.units}) == len(snapshot.units)
    check_summary(snapshot.summary, snapshot.units)
    return snapshot


class Follower:
    """A subscriber as simple as it can be: it keeps a dict of units, and puts updates over it."""

    def __init__(self) -> None:
        self.units: dict[str, UnitState] = {}
        self.graph: GraphData | None = None
        self.last: Update | None = None

    def take(self, update: Update) -> Follower:
        """Follow one update."""
        if update.since is None:
            self.units = {}
            self.graph = None
        for unit in update.units:
            self.units[unit.id] = unit
        if update.graph is not None:
            self.graph = update.graph
        self.last = update
        return self

    def snapshot(self) -> StateSnapshot:
        """What the updates add up to; equal to the store's own snapshot, bytes included."""
        assert self.last is not None, "nothing was followed yet"
        last = self.last
        return StateSnapshot(
            last.connected,
            last.run,
            last.version,
            last.status,
            last.parallelism,
            tuple(self.units.values()),
            last.summary,
            last.started_at,
            last.finished_at,
            last.error,
        )
