"""Answers: names on the wire, nothing that can change, one line to look at, encoded once a version."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Iterator
from datetime import datetime

import msgspec
import pytest

from actorstore import answers
from actorstore.answers import (
    Answer,
    Cursor,
    FlushResult,
    GraphData,
    GraphEdge,
    GraphNode,
    GraphProblem,
    JournalStats,
    Rejection,
    RunInfo,
    RunStatus,
    StateSnapshot,
    StateSummary,
    StoreStats,
    UnitState,
    UnitStatus,
    UnknownUnit,
    Update,
)
from actorstore.errors import InvalidEventError, UnknownUnitError
from actorstore.event import Event
from actorstore.wire import decode_line
from tests.builders import (
    NOON,
    apply,
    at,
    chain,
    circle,
    diamond,
    fold,
    orch_failed,
    orch_planned,
    orch_started,
    unit_added,
    unit_failed,
    unit_queued,
    unit_started,
    units,
    whole_run,
)

SUMMARY = StateSummary(1, 0, 0, 1, 0, 0, 0)
BARE_UNIT = UnitState("a", UnitStatus.IN_PROGRESS, 2, 3, 1)
GRAPH = GraphData((GraphNode("a", 0, 3),), (), (("a",),), ())
BARE = {
    UnitState: BARE_UNIT,
    StateSummary: SUMMARY,
    StateSnapshot: StateSnapshot(False, "r", 7, RunStatus.RUNNING, 2, (BARE_UNIT,), SUMMARY),
    GraphNode: GraphNode("a", 0, 3),
    GraphEdge: GraphEdge("b", "a"),
    GraphProblem: GraphProblem("self_edge", ("a", "a")),
    GraphData: GRAPH,
    RunInfo: RunInfo("r", RunStatus.RUNNING, SUMMARY),
    Update: Update("r", 7, Cursor("s.1.7"), False, RunStatus.RUNNING, 2, SUMMARY, (BARE_UNIT,)),
    Rejection: Rejection("not valid UTF-8", "…"),
    StoreStats: StoreStats(7, 7, 1, 0, 0, 0, (Rejection("not valid UTF-8", "…"),)),
    JournalStats: JournalStats("/j", "lose-nothing", 0, 3, 4096),
    FlushResult: FlushResult(7, 1),
    UnknownUnit: UnknownUnit("unit.started", "r", "x", "run 'r' has no unit 'x'"),
}
"""One of each answer, as little of it as there can be."""

FULL_UNIT = msgspec.structs.replace(BARE_UNIT, error="boom", started_at=NOON, finished_at=at(1))
ENDED = {"started_at": NOON, "finished_at": at(1)}
FULL = {
    **BARE,
    UnitState: FULL_UNIT,
    StateSnapshot: msgspec.structs.replace(
        BARE[StateSnapshot], connected=True, units=(FULL_UNIT,), error="boom", **ENDED
    ),
    GraphNode: GraphNode("a", 0, 3, UnitStatus.COMPLETE, 3),
    GraphData: GraphData(
        (GraphNode("a", 0, 3),), (GraphEdge("a", "a"),), (("a",),), (GraphProblem("self_edge", ("a", "a")),)
    ),
    RunInfo: msgspec.structs.replace(BARE[RunInfo], **ENDED),
    Update: msgspec.structs.replace(BARE[Update], since=3, error="boom", graph=GRAPH, **ENDED),
    Rejection: Rejection("not valid UTF-8", "…", 12),
    StoreStats: msgspec.structs.replace(
        BARE[StoreStats],
        connections=3,
        journal=JournalStats("/j", "lose-nothing", 0, 3, 4096, "no room"),
        last_unknown=(UnknownUnit("unit.started", "r", "x", "run 'r' has no unit 'x'"),),
    ),
    JournalStats: JournalStats("/j", "lose-nothing", 0, 3, 4096, "no room"),
}
"""One of each answer, with all that it may hold."""

OPTIONAL = {
    "error",
    "startedAt",
    "finishedAt",
    "since",
    "graph",
    "line",
    "completedTasks",
    "connections",
    "journal",
    "trouble",
    "lastUnknown",
}
every_answer = pytest.mark.parametrize("kind", BARE, ids=lambda kind: kind.__name__)


def names(value: object) -> Iterator[str]:
    match value:
        case dict():
            for name, inner in value.items():
                yield name
                yield from names(inner)
        case list():
            for inner in value:
                yield from names(inner)


def leaves(value: object) -> Iterator[object]:
    match value:
        case Answer():
            for name in value.__struct_fields__:
                yield from leaves(getattr(value, name))
        case tuple():
            for inner in value:
                yield from leaves(inner)
        case _:
            yield value


def test_every_answer_is_tested_here():
    kinds = {kind for kind in vars(answers).values() if isinstance(kind, type) and issubclass(kind, Answer)}
    assert kinds - {Answer} == BARE.keys() == FULL.keys()


# Names and values on the wire.


@every_answer
def test_names_on_the_wire_are_camel_case_and_those_of_the_fields(kind: type[Answer]):
    written = json.loads(FULL[kind].json())
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names(written))
    fields = {re.sub("_([a-z])", lambda match: match[1].upper(), name) for name in kind.__struct_fields__}
    assert {name.rstrip("_") for name in fields} == written.keys()


@every_answer
def test_optional_fields_without_a_value_are_left_out(kind: type[Answer]):
    written = json.loads(BARE[kind].json())
    assert None not in written.values()
    left_out = json.loads(FULL[kind].json()).keys() - written.keys()
    assert left_out <= OPTIONAL | {"status"}
    assert OPTIONAL.isdisjoint(written)


@every_answer
@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_what_is_written_reads_back_equal(kind: type[Answer], form: str):
    codec = msgspec.json if form == "json" else msgspec.msgpack
    for answer in (BARE[kind], FULL[kind]):
        assert codec.decode(getattr(answer, form)(), type=kind) == answer


@every_answer
def test_messagepack_has_the_names_of_the_json(kind: type[Answer]):
    written = msgspec.msgpack.decode(FULL[kind].msgpack())
    assert list(names(written)) == list(names(json.loads(FULL[kind].json())))


def test_a_whole_snapshot_looks_like_this_on_the_wire():
    state = fold(
        orch_planned({"id": "a", "tasks": 2}, {"id": "ü"}, edges=[("ü", "a")], parallelism=3),
        unit_started("a", completed_tasks=1, time=at(1)),
        unit_failed("a", "boom", time=at(2)),
    )
    assert json.loads(state.snapshot(connected=True).json()) == {
        "connected": True,
        "run": "",
        "version": 3,
        "status": "running",
        "parallelism": 3,
        "units": [
            {
                "id": "a",
                "status": "failed",
                "currentTask": 1,
                "totalTasks": 2,
                "attempts": 1,
                "error": "boom",
                "startedAt": "2026-01-02T12:00:01Z",
                "finishedAt": "2026-01-02T12:00:02Z",
            },
            {"id": "ü", "status": "pending", "currentTask": 0, "totalTasks": 0, "attempts": 0},
        ],
        "summary": {
            "total": 2,
            "pending": 1,
            "ready": 0,
            "inProgress": 0,
            "complete": 0,
            "failed": 1,
            "blocked": 0,
        },
        "startedAt": "2026-01-02T12:00:00Z",
    }


def test_a_whole_graph_looks_like_this_on_the_wire():
    state = fold(
        orch_planned(
            {"id": "a", "tasks": 2, "status": "complete", "completed_tasks": 2},
            {"id": "b"},
            edges=[("b", "a"), ("b", "b")],
        )
    )
    assert json.loads(state.graph().data().json()) == {
        "nodes": [
            {"id": "a", "level": 0, "tasks": 2, "status": "complete", "completedTasks": 2},
            {"id": "b", "level": 1, "tasks": 0},
        ],
        "edges": [{"from": "b", "to": "a"}, {"from": "b", "to": "b"}],
        "levels": [["a"], ["b"]],
        "problems": [{"kind": "self_edge", "ids": ["b", "b"]}],
    }


@pytest.mark.parametrize("status", [*RunStatus, *UnitStatus])
def test_a_status_is_equal_to_its_string_and_looks_like_it(status: RunStatus | UnitStatus):
    assert status == status.value
    assert hash(status) == hash(status.value)
    assert f"{status}" == str(status) == status.value


def test_these_are_the_statuses():
    assert list(RunStatus) == ["waiting", "running", "completed", "failed"]
    assert list(UnitStatus) == ["pending", "ready", "in_progress", "complete", "failed", "blocked"]
    assert [status for status in RunStatus if status.ended] == ["completed", "failed"]


# Nothing can change.


@every_answer
def test_an_answer_is_frozen(kind: type[Answer]):
    for answer in (BARE[kind], FULL[kind]):
        for name in kind.__struct_fields__:
            with pytest.raises(AttributeError):
                setattr(answer, name, None)
            with pytest.raises(AttributeError):
                delattr(answer, name)
        with pytest.raises(AttributeError):
            answer.something = 1


def test_answers_hold_immutable_values_all_the_way_down():
    state = fold(
        orch_planned({"id": "a", "status": "ready"}, edges=[("a", "a")], levels=[["a"]], run="r"),
        unit_added("b", ["a"], run="r"),
        unit_failed("a", run="r"),
        orch_failed(run="r"),
    )
    live = [
        state.snapshot("r"),
        state.graph("r").data(),
        state.infos(),
        state.update("r").finish(),
        *BARE.values(),
        *FULL.values(),
    ]
    kinds = {type(leaf) for answer in live for leaf in leaves(answer)}
    assert kinds <= {str, int, bool, type(None), datetime, RunStatus, UnitStatus}


@every_answer
def test_an_answer_can_be_a_key_and_survives_pickling_and_copying(kind: type[Answer]):
    answer = FULL[kind]
    answer.json()
    for back in (pickle.loads(pickle.dumps(answer)), copy.copy(answer), copy.deepcopy(answer)):
        assert back == answer
        assert hash(back) == hash(answer)
        assert back.json() == answer.json()


def test_a_pickled_snapshot_does_not_carry_the_bytes_that_were_kept():
    snapshot = fold(orch_started(chain(100))).snapshot()
    before = len(pickle.dumps(snapshot))
    snapshot.json(), snapshot.msgpack(), snapshot.unit("u7")
    assert len(pickle.dumps(snapshot)) == before


def test_a_flush_says_all_its_counts_so_that_a_script_need_not_guess_at_one_that_is_0():
    assert FlushResult(3, 0).json() == b'{"accepted":3,"rejected":0,"unknownUnits":0}'


# Looks.


def test_a_repr_is_one_short_line_at_any_size():
    state = fold(*whole_run(chain(2_000)), orch_started(chain(2_000)), orch_failed("it broke"))
    stats = StoreStats(1, 1, 16, 0, 0, 0, tuple(Rejection("x" * 120, "y" * 120, n) for n in range(16)))
    snapshot, update = state.snapshot(), state.update().finish()
    assert repr(snapshot) == (
        "<StateSnapshot of run '' at version 6004: failed, 2000 units (2000 pending), error='it broke'>"
    )
    assert repr(update) == (
        "<Update of run '' to version 6004, the whole run: failed, 2000 of 2000 units, graph>"
    )
    assert repr(state.graph().data()) == "<GraphData: 2000 nodes, 1999 edges, 2000 levels, 0 problems>"
    for answer in (snapshot, update, state.graph().data(), stats, *state.infos()):
        assert len(repr(answer)) < 400
        assert len(repr(answer).splitlines()) == 1


def test_an_update_says_in_its_repr_what_it_starts_from():
    state = fold(orch_started(diamond()))
    cursor = state.update().finish().cursor
    apply(state, unit_queued("a"))
    assert repr(state.update(None, cursor).finish()) == (
        "<Update of run '' to version 2, from version 1: running, 1 of 4 units>"
    )


def test_a_repr_stays_on_one_line_whatever_the_text():
    nasty = "a\nb\r\x1b[31m\u2028c\x85"
    state = fold(
        orch_started(units(nasty), run=nasty),
        unit_failed(nasty, nasty, run=nasty),
        orch_failed(nasty, run=nasty),
    )
    problem = GraphProblem("self_edge", (nasty, nasty))
    for answer in (
        state.snapshot(),
        *state.snapshot().units,
        state.update().finish(),
        *state.infos(),
        problem,
    ):
        assert len(repr(answer).splitlines()) == 1
        assert "\x1b" not in repr(answer)
    assert len(str(problem).splitlines()) == 1


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (GraphProblem("cycle", ("a", "b")), "units depend on each other in a circle: 'a', 'b'"),
        (GraphProblem("self_edge", ("a", "a")), "unit 'a' depends on itself"),
        (
            GraphProblem("dangling_edge", ("a", "x")),
            "unit 'a' depends on 'x', and one of the two is no unit of the graph",
        ),
        (GraphProblem("duplicate_id", ("a",)), "two nodes have the id 'a'; the first one counts"),
        (
            GraphProblem("levels", ()),
            "the levels do not hold each node once, above all it depends on; they were computed",
        ),
    ],
)
def test_a_problem_of_a_graph_is_a_sentence(problem: GraphProblem, sentence: str):
    assert str(problem) == sentence


# Looking a unit up.


def test_a_unit_is_found_by_its_id():
    snapshot = fold(orch_started(diamond(), run="r"), unit_failed("c", "boom", run="r")).snapshot()
    assert [snapshot.unit(id) for id in "abcd"] == list(snapshot.units)
    assert snapshot.unit("c").error == "boom"


def test_a_unit_that_is_not_there_is_named_with_its_run():
    snapshot = fold(orch_started(diamond(), run="r")).snapshot()
    with pytest.raises(UnknownUnitError) as caught:
        snapshot.unit("x")
    assert (caught.value.unit, caught.value.run) == ("x", "r")


def test_a_snapshot_from_before_a_unit_was_added_does_not_find_it():
    state = fold(orch_started(units("a")))
    before = state.snapshot()
    assert before.unit("a").id == "a"
    after = apply(state, unit_added("b")).snapshot()
    assert after.unit("b").id == "b"
    with pytest.raises(UnknownUnitError):
        before.unit("b")


def test_a_snapshot_of_a_run_made_anew_finds_its_own_units():
    state = fold(orch_started(units("a", "b")))
    before = state.snapshot()
    before.unit("a")
    after = apply(state, orch_started(units("b", "a"))).snapshot()
    assert after.unit("a") is after.units[1]
    assert before.unit("a") is before.units[0]


def test_a_snapshot_made_by_hand_finds_its_units_too():
    assert BARE[StateSnapshot].unit("a") is BARE_UNIT
    assert pickle.loads(pickle.dumps(fold(orch_started(diamond())).snapshot())).unit("d").id == "d"


# Encoded once a version.

every_form = pytest.mark.parametrize("form", ["json", "msgpack"])


def encoded(snapshot: StateSnapshot, form: str) -> bytes:
    return {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode}[form](snapshot)


@every_form
def test_a_snapshot_is_encoded_once_a_version(form: str):
    state = fold(orch_started(diamond()))
    first = getattr(state.snapshot(), form)()
    assert getattr(state.snapshot(), form)() is first
    assert first == encoded(state.snapshot(), form)


@every_form
@pytest.mark.parametrize("first", [False, True])
def test_connected_lies_outside_the_kept_bytes(form: str, first: bool):
    state = fold(orch_started(diamond()))
    kept = state.snapshot(connected=first)
    getattr(kept, form)()
    other = state.snapshot(connected=not first)
    assert getattr(other, form)() == encoded(other, form)
    again = state.snapshot(connected=first)
    assert getattr(again, form)() is getattr(kept, form)() == encoded(again, form)


@every_form
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    "run", ['{"connected":false', '{"connected":true', "é" + "connected\u0080", "é" + "connected\u00c0", ""]
)
def test_an_id_that_looks_like_the_flag_is_not_taken_for_it(form: str, first: bool, run: str):
    state = fold(orch_started(units(run), run=run))
    getattr(state.snapshot(connected=first), form)()
    for connected in (first, not first, first):
        snapshot = state.snapshot(connected=connected)
        assert getattr(snapshot, form)() == encoded(snapshot, form)


@every_form
def test_the_next_version_has_bytes_of_its_own(form: str):
    state = fold(orch_started(diamond()))
    before = state.snapshot()
    kept = getattr(before, form)()
    after = apply(state, unit_queued("a")).snapshot()
    assert getattr(after, form)() == encoded(after, form) != kept
    assert getattr(before, form)() is kept


@every_form
def test_a_changed_copy_does_not_inherit_kept_bytes(form: str):
    snapshot = fold(orch_started(diamond())).snapshot()
    getattr(snapshot, form)()
    changed = msgspec.structs.replace(snapshot, version=99)
    assert getattr(changed, form)() == encoded(changed, form)


@every_form
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_time_outside_of_the_calendar_in_utc_is_written_or_was_refused_before(form: str, time: str):
    written = b'{"type":"orch.started","time":"%s"}' % time.encode()
    for make in (lambda: Event("orch.started", time=time), lambda: decode_line(written)):
        try:
            event = make()
        except InvalidEventError:
            continue
        codec = msgspec.json if form == "json" else msgspec.msgpack
        assert codec.decode(getattr(fold(event).snapshot(), form)())["startedAt"] == time


def test_a_graph_with_problems_is_written_whole():
    graph = fold(orch_started(circle(3))).graph().data()
    assert msgspec.json.decode(graph.json(), type=GraphData) == graph
    assert graph.problems == (GraphProblem("cycle", ("u0", "u1", "u2")),)
