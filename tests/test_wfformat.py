"""Recorded workflows as events: small ones as transcripts, any as properties, and the eight real ones."""

from __future__ import annotations

import json
import time as clock
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstore import Event, InvalidEventError
from actorstore.cli import wfformat
from actorstore.cli.wfformat import WorkflowError
from tests.builders import NOON, check_snapshot, fold

INSTANCES = Path(__file__).resolve().parents[2] / "shared" / "data" / "wfinstances"

Tasks = Mapping[str, tuple[float, list[str]]]


def document(tasks: Tasks, *, executed_at: str | None = "2026-01-02T12:00:00Z", **fields: object) -> bytes:
    """An instance; a task is its run time in seconds, and what it waits for."""
    children: dict[str, list[str]] = {id: [] for id in tasks}
    for id, (_, parents) in tasks.items():
        for parent in parents:
            children.setdefault(parent, []).append(id)
    specified = [
        {"id": id, "name": id, "parents": parents, "children": children[id]}
        for id, (_, parents) in tasks.items()
    ]
    executed = [{"id": id, "runtimeInSeconds": seconds} for id, (seconds, _) in tasks.items()]
    execution = {"makespanInSeconds": 1, "executedAt": executed_at, "tasks": executed}
    workflow = {"specification": {"tasks": specified}, "execution": execution}
    return json.dumps({"name": "w", "schemaVersion": "1.5", "workflow": workflow} | fields).encode()


def transcript(document: bytes, machines: int) -> list[str]:
    """What happens, without the tasks: "3 unit.started a", the seconds first."""
    return [
        f"{(event.time - NOON).total_seconds():g} {event.type} {event.unit}".rstrip()
        for event in wfformat.events(document, machines=machines)
        if event.time is not None and event.type != "task.started"
    ]


DIAMOND: Tasks = {"a": (1, []), "b": (5, ["a"]), "c": (2, ["a"]), "d": (1, ["b", "c"])}


def test_a_unit_is_queued_when_all_that_it_waits_for_is_complete() -> None:
    assert transcript(document(DIAMOND), machines=2) == [
        "0 orch.started",
        "0 unit.queued a",
        "0 unit.started a",
        "1 unit.completed a",
        "1 unit.queued b",
        "1 unit.queued c",
        "1 unit.started b",
        "1 unit.started c",
        "3 unit.completed c",
        "6 unit.completed b",
        "6 unit.queued d",
        "6 unit.started d",
        "7 unit.completed d",
        "7 orch.completed",
    ]


def test_a_free_worker_takes_the_first_ready_unit_in_the_order_of_the_file() -> None:
    tasks: Tasks = {"late": (1, ["first"]), "x": (2, []), "first": (1, []), "y": (1, [])}
    started = [line for line in transcript(document(tasks), machines=1) if "started" in line]
    assert started == [
        "0 orch.started",
        "0 unit.started x",
        "2 unit.started first",
        "3 unit.started late",
        "4 unit.started y",
    ]


def test_units_that_end_at_one_time_all_end_before_anything_starts() -> None:
    tasks: Tasks = {"a": (1, ["b"]), "b": (2, []), "c": (2, []), "d": (1, [])}
    assert transcript(document(tasks), machines=2)[5:10] == [
        "0 unit.started c",
        "2 unit.completed b",
        "2 unit.completed c",
        "2 unit.queued a",
        "2 unit.started a",
    ]


def test_a_task_without_length_takes_its_turn_all_the_same() -> None:
    tasks: Tasks = {"a": (0, []), "b": (0, ["a"]), "c": (1, [])}
    assert transcript(document(tasks), machines=1) == [
        "0 orch.started",
        "0 unit.queued a",
        "0 unit.queued c",
        "0 unit.started a",
        "0 unit.completed a",
        "0 unit.queued b",
        "0 unit.started b",
        "0 unit.completed b",
        "0 unit.started c",
        "1 unit.completed c",
        "1 orch.completed",
    ]


def test_each_unit_has_one_task_which_starts_with_it() -> None:
    events = wfformat.events(document({"a": (1.5, [])}), machines=1)
    assert [(event.type, event.task) for event in events][2:4] == [
        ("unit.started", None),
        ("task.started", 1),
    ]
    (unit,) = fold(*events).snapshot("w").units
    assert (unit.current_task, unit.total_tasks, unit.attempts) == (1, 1, 1)
    assert (unit.started_at, unit.finished_at) == (NOON, NOON + timedelta(seconds=1.5))


def test_the_graph_keeps_the_order_of_the_file_and_its_edges_lead_from_child_to_parent() -> None:
    state = fold(*wfformat.events(document(DIAMOND), machines=3))
    graph = state.graph("w").data()
    assert [node.id for node in graph.nodes] == ["a", "b", "c", "d"]
    assert [(edge.from_, edge.to) for edge in graph.edges] == [
        ("b", "a"),
        ("c", "a"),
        ("d", "b"),
        ("d", "c"),
    ]
    assert graph.levels == (("a",), ("b", "c"), ("d",))
    assert state.snapshot("w").parallelism == 3


def test_a_dependency_that_only_the_parent_names_counts() -> None:
    workflow = json.loads(document({"a": (1, []), "b": (1, [])}))
    workflow["workflow"]["specification"]["tasks"][0]["children"] = ["b"]
    assert "1 unit.queued b" in transcript(json.dumps(workflow).encode(), machines=2)


def test_the_run_has_the_name_of_the_workflow_unless_it_is_given_one() -> None:
    instance = document({"a": (1, [])}, name="montage")
    assert {event.run for event in wfformat.events(instance, machines=1)} == {"montage"}
    assert {event.run for event in wfformat.events(instance, machines=1, run="again")} == {"again"}


def test_a_workflow_without_tasks_starts_and_completes() -> None:
    assert transcript(document({}), machines=1) == ["0 orch.started", "0 orch.completed"]


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock on the wall is that of Tokyo."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    clock.tzset()
    yield
    monkeypatch.undo()
    clock.tzset()


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2023-03-29T15:45:52-10:00", datetime(2023, 3, 30, 1, 45, 52, tzinfo=UTC)),
        ("2020-12-29T16:57:21+00:00", datetime(2020, 12, 29, 16, 57, 21, tzinfo=UTC)),
        ("20200409T052834+0000", datetime(2020, 4, 9, 5, 28, 34, tzinfo=UTC)),
        ("05-04-23T10:46:27Z", datetime(2023, 5, 4, 10, 46, 27, tzinfo=UTC)),
        ("2023-05-04T10:54:31.562432", datetime(2023, 5, 4, 10, 54, 31, 562432, tzinfo=UTC)),
    ],
)
def test_the_run_starts_when_the_recording_did_however_that_is_written_and_wherever_it_is_read(
    text: str, time: datetime
) -> None:
    instance = document({"a": (1, [])}, executed_at=text, createdAt="2000-01-01T00:00:00Z")
    assert wfformat.events(instance, machines=1)[0].time == time


@pytest.mark.parametrize("executed_at", [None, "yesterday"])
def test_without_a_readable_start_the_time_of_the_file_counts_and_else_a_fixed_one(
    executed_at: str | None,
) -> None:
    created = document({"a": (1, [])}, executed_at=executed_at, createdAt="2020-04-03T20:03:51Z")
    assert wfformat.events(created, machines=1)[0].time == datetime(2020, 4, 3, 20, 3, 51, tzinfo=UTC)
    unknown = document({"a": (1, [])}, executed_at=executed_at)
    assert wfformat.events(unknown, machines=1)[0].time == wfformat.EPOCH


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `workflow`"),
        (
            b'{"workflow": {"tasks": []}, "schemaVersion": "1.4"}',
            "schemaVersion is '1.4'; this reads 1.5 and 1.6",
        ),
        (b'{"workflow": {"specification": {"tasks": []}}}', "no `execution`"),
        (document({"a": (1, ["b"]), "b": (1, ["a"])}), "circle: 'a', 'b'"),
        (document({"a": (1, ["a"])}), "'a' depends on itself"),
        (document({"a": (1, ["ghost"])}), "'a' depends on 'ghost'"),
        (document({"a": (1, ["ghost"]), "b": (1, ["ghost"])}), "(and 1 more problem)"),
        (document({"a": (-1, [])}), "workflow.execution.tasks[0].runtimeInSeconds"),
        (document({"a": (1e12, [])}), "workflow.execution.tasks[0].runtimeInSeconds"),
        (document({"": (1, [])}), "workflow.specification.tasks[0].id"),
        (
            document({"a": (1, [])}).replace(b'"runtimeInSeconds": 1', b'"runtimeInSeconds": "1"'),
            "runtimeInSeconds",
        ),
        (document({"a": (1, [])}, executed_at="9999-12-31T23:59:59.9Z"), "past the year 9999"),
    ],
)
def test_what_cannot_have_run_is_refused_with_the_reason(instance: bytes, reason: str) -> None:
    with pytest.raises(WorkflowError) as error:
        wfformat.events(instance, machines=1)
    assert reason in error.value.reason


def test_a_task_that_was_specified_and_not_recorded_is_refused_by_name() -> None:
    workflow = json.loads(document({"a": (1, []), "lost": (1, [])}))
    del workflow["workflow"]["execution"]["tasks"][1]
    with pytest.raises(WorkflowError, match="'lost' has no recorded run time"):
        wfformat.events(json.dumps(workflow).encode(), machines=1)


def test_two_tasks_with_one_id_are_refused() -> None:
    workflow = json.loads(document({"a": (1, [])}))
    workflow["workflow"]["specification"]["tasks"] *= 2
    with pytest.raises(WorkflowError, match="two nodes have the id 'a'"):
        wfformat.events(json.dumps(workflow).encode(), machines=1)


def test_an_id_that_no_event_may_have_is_refused() -> None:
    with pytest.raises(InvalidEventError, match="unit"):
        wfformat.events(document({"x" * 1025: (1, [])}), machines=1)


def test_broken_json_is_refused_with_its_line() -> None:
    with pytest.raises(WorkflowError) as error:
        wfformat.events(b'{\n"name": "w",\n"workflow": {,}\n}\n', machines=1)
    assert error.value.line == 3
    with pytest.raises(WorkflowError) as error:
        wfformat.events(b'{\n"name": "w",\n\n\n', machines=1)
    assert error.value.line == 2


def test_at_least_one_machine_is_needed() -> None:
    with pytest.raises(ValueError, match="machines is 0"):
        wfformat.events(document({}), machines=0)


@st.composite
def _workflows(draw: st.DrawFn) -> tuple[dict[str, tuple[int, list[str]]], int]:
    size = draw(st.integers(1, 12))
    order = draw(st.permutations(range(size)))
    tasks = {}
    for rank, number in enumerate(order):
        parents = draw(st.sets(st.sampled_from(order[:rank]), max_size=3)) if rank else set()
        tasks[number] = (draw(st.integers(0, 5)), [f"t{parent}" for parent in sorted(parents)])
    return {f"t{number}": tasks[number] for number in range(size)}, draw(st.integers(1, 4))


def _seconds(event: Event) -> float:
    assert event.time is not None
    return (event.time - NOON).total_seconds()


@given(_workflows())
def test_any_workflow_runs_in_the_order_of_its_graph_on_no_more_workers_than_there_are(
    workflow: tuple[dict[str, tuple[int, list[str]]], int],
) -> None:
    tasks, machines = workflow
    events = wfformat.events(document(tasks), machines=machines)
    assert events == wfformat.events(document(tasks), machines=machines)

    started: dict[str, float] = {}
    ended: dict[str, float] = {}
    for event in events:
        assert len(started) - len(ended) <= machines
        if event.type == "unit.started":
            assert ended.keys() >= set(tasks[event.unit][1])
            started[event.unit] = _seconds(event)
        elif event.type == "unit.completed":
            ended[event.unit] = _seconds(event)
            assert ended[event.unit] - started[event.unit] == tasks[event.unit][0]
    assert started.keys() == ended.keys() == tasks.keys()
    times = [_seconds(event) for event in events]
    assert times == sorted(times)

    # Graham's bound: list scheduling is never worse than the critical path and the work, shared out.
    work, longest = sum(length for length, _ in tasks.values()), _critical_path(tasks)
    assert max(longest, work / machines) <= times[-1] <= longest + (work - longest) / machines


def _critical_path(tasks: Mapping[str, tuple[int, list[str]]]) -> int:
    def end(id: str) -> int:
        length, parents = tasks[id]
        return length + max(map(end, parents), default=0)

    return max(map(end, tasks))


@pytest.mark.skipif(not INSTANCES.is_dir(), reason=f"no recorded workflows in {INSTANCES}")
@pytest.mark.parametrize(
    ("name", "units", "edges", "levels"),
    [
        ("airrflow-dirt02-001", 212, 327, 25),
        ("atacseq-dirt02-001", 265, 593, 17),
        ("bwa-chameleon-large-001", 1004, 4000, 3),
        ("epigenomics-chameleon-ilmn-6seq-50k-001", 1695, 2108, 9),
        ("helloworld-forkjoin-10-chameleon", 10, 16, 3),
        ("montage-chameleon-dss-15d-001", 2122, 6114, 8),
        ("sarek-dirt02-001", 26, 50, 10),
        ("soykb-chameleon-50fastq-20ch-001", 676, 1674, 11),
    ],
)
def test_a_real_recording_runs_to_its_end(name: str, units: int, edges: int, levels: int) -> None:
    events = wfformat.events((INSTANCES / f"{name}.json").read_bytes(), machines=8)
    assert len(events) == 4 * units + 2
    state = fold(*events)
    snapshot = check_snapshot(state.snapshot())
    assert (snapshot.status, snapshot.summary.complete) == ("completed", units)
    graph = state.graph().data()
    assert (len(graph.nodes), len(graph.edges), len(graph.levels)) == (units, edges, levels)
    assert graph.problems == ()
    assert snapshot.started_at is not None
    assert 2020 <= snapshot.started_at.year <= 2023
