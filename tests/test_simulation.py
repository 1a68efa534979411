"""The whole store against a model of a few dicts, over random histories.

Reading order: `Model`, which is obviously right; `StoreMachine`, which does to a
store and to the model the same, and compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from actorstore import Event, StateSnapshot, Store, UnknownRunError
from tests.builders import Follower, check_snapshot
from tests.threads import SECONDS, in_actor

Fields = dict[str, Any]


class Model:
    """What a store must say: each run as the JSON of its snapshot, its units by id."""

    def __init__(self) -> None:
        self.runs: dict[str, Fields] = {}
        self.latest = ""
        self.started = False
        self.version = self.rejected = self.unknown = 0

    def apply(self, event: Fields) -> None:
        self.version += 1
        type, id, time = event["type"], event.get("run", ""), event.get("time")
        payload = event.get("payload") or {}
        if type.startswith("orch."):
            if type == "orch.started" or not (self.started or id in self.runs):
                self.latest, self.started = id, type == "orch.started"
            run = self.runs.setdefault(id, waiting())
            match type:
                case "orch.started":
                    self.runs[id] = run = waiting() | {"status": "running", "startedAt": time}
                    run["parallelism"] = payload.get("parallelism", 0)
                    if "graph" in payload:
                        run["nodes"], run["edges"] = [], list(payload["graph"]["edges"])
                        for node in payload["graph"]["nodes"]:
                            self.add(run, node["id"], node)
                case "orch.completed":
                    run |= {"status": "completed", "finishedAt": time}
                case "orch.failed":
                    run |= {"status": "failed", "finishedAt": time, "error": event.get("error") or None}
                case "orch.reset":
                    self.runs[id] = waiting()
        elif type == "unit.added" and id in self.runs:
            if event["unit"] not in self.runs[id]["units"]:
                edges = [{"from": event["unit"], "to": other} for other in payload.get("depends_on", [])]
                self.runs[id]["edges"] += edges
                self.add(self.runs[id], event["unit"], payload)
        elif type != "unit.danced":
            unit = self.runs.get(id, waiting())["units"].get(event["unit"])
            match unit and type:
                case None:
                    self.unknown += 1
                case "unit.queued":
                    unit |= {"status": "ready", "error": None}
                case "unit.started":
                    unit |= {"status": "in_progress", "startedAt": time, "error": None, "finishedAt": None}
                    unit["attempts"] += 1
                    unit["totalTasks"] = payload.get("total_tasks", unit["totalTasks"])
                    unit["currentTask"] = payload.get("completed_tasks", unit["currentTask"])
                case "task.started":
                    unit["currentTask"] = event.get("task") or unit["currentTask"] + 1
                case "unit.completed":
                    unit |= {"status": "complete", "finishedAt": time}
                case "unit.failed":
                    unit |= {"status": "failed", "finishedAt": time, "error": event.get("error") or None}
                case "unit.blocked":
                    unit["status"] = "blocked"

    def add(self, run: Fields, id: str, node: Fields) -> None:
        run["nodes"] = [*(run["nodes"] or []), id] if id not in run["units"] else run["nodes"]
        run["units"].setdefault(
            id,
            {
                "id": id,
                "status": node.get("status", "pending"),
                "currentTask": node.get("completed_tasks", 0),
                "totalTasks": node.get("tasks", 0),
                "attempts": 0,
            },
        )

    def snapshot(self, id: str, connected: bool) -> Fields:
        run = self.runs.get(id, waiting())
        units = [present(unit) for unit in run["units"].values()]
        statuses = [unit["status"] for unit in units]
        names = {"in_progress": "inProgress"}
        summary = {names.get(status, status): statuses.count(status) for status in STATUSES}
        said = {name: value for name, value in run.items() if name not in ("nodes", "edges")}
        said |= {"units": units, "summary": {"total": len(units), **summary}}
        return present(said | {"run": id, "version": self.version, "connected": connected})


STATUSES = ["pending", "ready", "in_progress", "complete", "failed", "blocked"]


def waiting() -> Fields:
    return {"status": "waiting", "parallelism": 0, "units": {}, "nodes": None, "edges": []}


def present(fields: Fields) -> Fields:
    """Leave out what has no value."""
    return {name: value for name, value in fields.items() if value is not None}


# Histories: few ids, so that things happen to the same unit.

RUNS = st.sampled_from(["", "", "", "", "", "one", "zwei"])
IDS = ["a", "b", "c", "\U0001f600"]
UNITS = st.sampled_from(IDS)
TIMES = st.sampled_from(["2026-01-02T12:00:00Z", "2026-01-02T12:00:01.500000Z", "2025-12-31T23:59:59Z", None])
COUNTS = st.integers(0, 5)


def fields(type: st.SearchStrategy[str], **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Fields]:
    """Events of some type."""
    return st.fixed_dictionaries({"type": type}, optional={"run": RUNS, "time": TIMES} | optional)


def about_a_unit(
    type: str, always: Mapping[str, st.SearchStrategy[Any]] = MappingProxyType({}), **optional: Any
) -> st.SearchStrategy[Fields]:
    """Events of some type which name a unit."""
    given = {"type": st.just(type), "unit": UNITS, "run": RUNS, "time": TIMES}
    return st.fixed_dictionaries(given | always, optional=optional)


NODES = st.fixed_dictionaries(
    {"id": UNITS},
    optional={"tasks": COUNTS, "status": st.sampled_from(STATUSES), "completed_tasks": COUNTS},
)
NEEDS = st.lists(UNITS, max_size=2)
EDGES = st.fixed_dictionaries({"from": UNITS, "to": UNITS})
GRAPHS = st.fixed_dictionaries(
    {"nodes": st.lists(NODES, max_size=5), "edges": st.lists(EDGES, max_size=5)},
)
STARTED = fields(
    st.just("orch.started"),
    payload=st.fixed_dictionaries({}, optional={"graph": GRAPHS, "parallelism": COUNTS}),
)
ENDED = fields(st.sampled_from(["orch.completed", "orch.failed", "orch.reset"]), error=st.just("boom"))
ADDED = about_a_unit(
    "unit.added",
    payload=st.fixed_dictionaries({}, optional={"tasks": COUNTS, "depends_on": NEEDS}),
)
CHANGED = st.one_of(
    about_a_unit(
        "unit.started",
        payload=st.fixed_dictionaries({}, optional={"total_tasks": COUNTS, "completed_tasks": COUNTS}),
    ),
    about_a_unit("task.started", task=st.integers(1, 9)),
    about_a_unit("unit.failed", {"error": st.sampled_from(["boom", "no", "", "\x1b[2J"])}),
    *map(about_a_unit, ["unit.queued", "unit.completed", "unit.blocked", "unit.danced"]),
)
BAD = st.sampled_from(
    [
        b"bad",
        b"[]",
        b'{"type":""}',
        b'{"type":"unit.queued","unit":"\xff"}',
        b'{"type":"unit.queued","unit":"a"}{"type":"unit.queued","unit":"a"}',
        b'{"type":"unit.started","unit":"a","payload":{"total_tasks":"x"}}',
        b'{"type":"orch.started","payload":{"graph":{"nodes":[{"id":"a","status":"odd"}]}}}',
    ]
)
BLANK = st.sampled_from([b"", b" \t\r"])


@st.composite
def good(draw: st.DrawFn) -> Fields:
    """An event, most of them about a unit: a run that is always made anew has no history."""
    which = draw(st.integers(1, 20))
    return draw(CHANGED if which <= 16 else ADDED if which <= 18 else STARTED if which == 19 else ENDED)


@st.composite
def good_or_bad(draw: st.DrawFn) -> Fields | bytes:
    """A line, as an event or as it is."""
    which = draw(st.integers(1, 8))
    return draw(good() if which <= 6 else BAD if which == 7 else BLANK)


ALL_UNITS = {"type": "orch.started", "payload": {"graph": {"nodes": [{"id": id} for id in IDS], "edges": []}}}
WRONG = Event("unit.started", unit="a", payload={"total_tasks": "x"})


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to the model, and compares what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.model = Model()
        self.connected = False
        self.followers: dict[str | None, Follower] = {}
        self.kept: list[tuple[Any, bytes]] = []

    @initialize(started=st.lists(STARTED, max_size=2), everything=st.booleans())
    def begin(self, started: list[Fields], everything: bool) -> None:
        self.hand_over(started)
        if everything:
            self.hand_over([ALL_UNITS, ALL_UNITS | {"run": "one"}])

    @rule(events=st.lists(good(), max_size=12), follow=st.booleans())
    def hand_over(self, events: list[Fields], follow: bool = False) -> None:
        for event in events:
            self.store.handle_event(Event(**event))
            self.model.apply(event)
            if follow:
                self.follow(event.get("run", ""))

    @rule(events=st.lists(good_or_bad(), max_size=12), ends=st.booleans())
    def hand_over_lines(self, events: list[Fields | bytes], ends: bool) -> None:
        lines = []
        for event in events:
            if isinstance(event, dict):
                lines.append(json.dumps(event).encode())
                self.model.apply(event)
            else:
                lines.append(event)
                self.model.rejected += bool(event.strip())
        self.store.handle_lines(b"\n".join(lines) + b"\n" * ends)

    @rule()
    def hand_over_what_is_wrong(self) -> None:
        self.store.handle_event(WRONG)
        self.model.rejected += 1

    @rule(run=st.sampled_from(["zwei", "zwei", "one", ""]))
    def reset(self, run: str) -> None:
        self.store.reset(run)
        self.model.apply({"type": "orch.reset", "run": run})

    @rule(connected=st.booleans())
    def connect(self, connected: bool) -> None:
        self.look(None)
        self.store.set_connected(connected)
        self.connected = connected
        self.look(None)

    @rule(run=st.none() | RUNS)
    def look(self, run: str | None) -> None:
        id = self.model.latest if run is None else run
        if run is not None and run not in self.model.runs:
            for ask in (self.store.snapshot, self.store.graph, self.store.subscribe):
                with pytest.raises(UnknownRunError):
                    ask(run)
            return
        snapshot = check_snapshot(self.store.snapshot(run))
        assert json.loads(snapshot.json()) == self.model.snapshot(id, self.connected)
        assert msgspec.msgpack.decode(snapshot.msgpack(), type=StateSnapshot) == snapshot
        for unit in snapshot.units:
            assert snapshot.unit(unit.id) is unit

    @rule(run=st.none() | RUNS)
    def look_at_the_graph(self, run: str | None) -> None:
        id = self.model.latest if run is None else run
        if run is None or run in self.model.runs:
            expected = self.model.runs.get(id, waiting())
            graph = self.store.graph(run)
            if expected["nodes"] is None:
                assert graph is None
                return
            assert [node.id for node in graph.nodes] == expected["nodes"]
            assert [{"from": edge.from_, "to": edge.to} for edge in graph.edges] == expected["edges"]
            assert sorted(id for level in graph.levels for id in level) == sorted(expected["nodes"])

    @rule(run=st.none() | RUNS)
    def follow(self, run: str | None) -> None:
        if run is not None and run not in self.model.runs:
            return
        follower = self.followers.setdefault(run, Follower())
        follower.take(next(self.store.subscribe(run, since=follower.last and follower.last.cursor)))
        id = self.model.latest if run is None else run
        assert json.loads(follower.snapshot().json()) == self.model.snapshot(id, self.connected)
        assert follower.graph == self.store.graph(run)

    @rule()
    def count(self) -> None:
        result, stats = self.store.flush(SECONDS), self.store.stats()
        assert (result.accepted, result.rejected) == (self.model.version, self.model.rejected)
        assert result.unknown_units == self.model.unknown
        assert (stats.accepted, stats.rejected) == (self.model.version, self.model.rejected)
        assert (stats.unknown_units, stats.faults, stats.pending) == (self.model.unknown, 0, 0)
        runs = [(info.run, info.status, info.summary.total) for info in self.store.runs()]
        assert runs == [(id, run["status"], len(run["units"])) for id, run in self.model.runs.items()]

    @rule()
    def keep(self) -> None:
        snapshot = self.store.snapshot()
        self.kept.append((snapshot, msgspec.json.encode(snapshot)))

    def teardown(self) -> None:
        try:
            self.count()
            for run in [None, *self.model.runs]:
                self.look(run)
                self.follow(run)
            for snapshot, told in self.kept:
                assert msgspec.json.encode(snapshot) == snapshot.json() == told
            assert in_actor(self.store, lambda actor: list(actor._waiting)) == []
        finally:
            self.store.close()


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=max(150, settings.default.max_examples), stateful_step_count=30)
