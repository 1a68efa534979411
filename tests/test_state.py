"""The rules, as transcripts: these events in, this state out; no actor, no thread, no clock."""

from __future__ import annotations

import msgspec
import pytest

from actorstore import state as rules
from actorstore.answers import GraphNode, RunStatus, StateSnapshot, StateSummary, UnitState, UnitStatus
from actorstore.errors import UnknownRunError
from actorstore.event import Event
from actorstore.payload import PAYLOADS, open_payload
from actorstore.state import RULES, RUN_RULES, UNIT_RULES, State
from tests.builders import (
    NOON,
    apply,
    at,
    chain,
    check_snapshot,
    diamond,
    fold,
    lifecycle,
    orch_completed,
    orch_failed,
    orch_planned,
    orch_reset,
    orch_started,
    task_started,
    unit_added,
    unit_blocked,
    unit_completed,
    unit_failed,
    unit_queued,
    unit_started,
    units,
    whole_run,
)


def told(*events: Event, state: State | None = None) -> State:
    """Fold the events one at a time; after each, one version more, and every summary adds up."""
    state = state or State("s")
    for event in events:
        version = state.version
        apply(state, event)
        assert state.version == version + 1
        for info in state.infos():
            snapshot = check_snapshot(state.snapshot(info.run))
            assert snapshot.version == state.version
            assert (info.status, info.summary) == (snapshot.status, snapshot.summary)
    return state


def unit(*events: Event) -> UnitState:
    """Unit `a` of a run of its own, after these events."""
    return told(orch_started(units("a")), *events).snapshot().unit("a")


def statuses(snapshot: StateSnapshot) -> dict[str, str]:
    return {unit.id: str(unit.status) for unit in snapshot.units}


# The table.


def test_these_are_the_events_that_change_state():
    assert RULES.keys() == {
        "orch.started",
        "unit.added",
        "orch.completed",
        "orch.failed",
        "orch.reset",
        "unit.queued",
        "unit.started",
        "task.started",
        "unit.completed",
        "unit.failed",
        "unit.blocked",
    }
    assert RUN_RULES.keys().isdisjoint(UNIT_RULES)


def test_before_any_event_a_run_without_a_name_waits():
    state = State("s")
    assert state.snapshot() == StateSnapshot(
        False, "", 0, RunStatus.WAITING, 0, (), StateSummary(0, 0, 0, 0, 0, 0, 0)
    )
    assert state.graph() is None
    assert state.infos() == ()


# orch.started


def test_a_run_that_starts_has_time_parallelism_graph_and_units_in_the_order_of_the_nodes():
    state = told(orch_started({"b": ["a"], "a": []}, parallelism=4, time=at(1)))
    snapshot = state.snapshot()
    assert (snapshot.status, snapshot.started_at, snapshot.parallelism) == ("running", at(1), 4)
    assert (snapshot.error, snapshot.finished_at) == (None, None)
    assert snapshot.units == (
        UnitState("b", UnitStatus.PENDING, 0, 0, 0),
        UnitState("a", UnitStatus.PENDING, 0, 0, 0),
    )
    assert state.graph().data().levels == (("a",), ("b",))


def test_a_run_that_starts_without_payload_runs_and_has_no_units():
    state = told(orch_started())
    assert (state.snapshot().status, state.snapshot().units, state.snapshot().parallelism) == (
        "running",
        (),
        0,
    )
    assert state.graph() is None


def test_a_run_that_starts_without_a_graph_has_none():
    state = told(orch_started(parallelism=3))
    assert state.snapshot().parallelism == 3
    assert state.graph() is None


def test_of_two_nodes_with_one_id_the_first_is_the_unit():
    state = told(
        orch_planned(
            {"id": "a", "tasks": 1, "status": "ready"},
            {"id": "b"},
            {"id": "a", "tasks": 9, "status": "failed"},
            {"id": "c"},
        ),
        unit_queued("c"),
        unit_added("d"),
        unit_queued("d"),
        unit_failed("b", "boom"),
    )
    assert statuses(state.snapshot()) == {"a": "ready", "b": "failed", "c": "ready", "d": "ready"}
    assert state.snapshot().unit("a").total_tasks == 1
    assert [node.id for node in state.graph().data().nodes] == ["a", "b", "c", "d"]
    assert state.snapshot().unit("d") is state.snapshot().units[3]


def test_an_empty_graph_is_not_the_same_as_none():
    assert told(orch_started({})).graph().data().nodes == ()


def test_a_resumed_run_starts_where_its_nodes_say():
    state = told(
        orch_planned(
            {"id": "done", "tasks": 4, "status": "complete", "completed_tasks": 4},
            {"id": "half", "tasks": 4, "status": "pending", "completed_tasks": 2},
            {"id": "broken", "tasks": 4, "status": "failed"},
            {"id": "new", "tasks": 4},
        )
    )
    assert state.snapshot().units == (
        UnitState("done", UnitStatus.COMPLETE, 4, 4, 0),
        UnitState("half", UnitStatus.PENDING, 2, 4, 0),
        UnitState("broken", UnitStatus.FAILED, 0, 4, 0),
        UnitState("new", UnitStatus.PENDING, 0, 4, 0),
    )
    assert state.graph().data().nodes[0] == GraphNode("done", 0, 4, UnitStatus.COMPLETE, 4)
    assert told(task_started("half"), state=state).snapshot().unit("half").current_task == 3


def test_a_run_that_starts_again_is_made_anew():
    state = told(
        *whole_run(diamond()),
        orch_failed("late"),
        orch_started(units("d", "e"), time=at(9)),
    )
    assert state.snapshot().units == (
        UnitState("d", UnitStatus.PENDING, 0, 0, 0),
        UnitState("e", UnitStatus.PENDING, 0, 0, 0),
    )
    snapshot = state.snapshot()
    assert (snapshot.status, snapshot.started_at, snapshot.finished_at, snapshot.error) == (
        "running",
        at(9),
        None,
        None,
    )
    assert len(state.infos()) == 1


def test_a_run_that_starts_again_without_payload_has_lost_graph_and_parallelism():
    state = told(orch_started(diamond(), parallelism=2), orch_started())
    assert (state.snapshot().parallelism, state.snapshot().units, state.graph()) == (0, (), None)


# unit.*, task.started


def test_a_queued_unit_is_ready():
    assert unit(unit_queued("a")) == UnitState("a", UnitStatus.READY, 0, 0, 0)


def test_a_started_unit_is_in_progress_at_its_first_attempt():
    assert unit(unit_started("a", time=at(1))) == UnitState(
        "a", UnitStatus.IN_PROGRESS, 0, 0, 1, started_at=at(1)
    )


def test_a_start_may_say_how_many_tasks_there_are_and_how_many_are_done():
    seen = unit(unit_started("a", total_tasks=5, completed_tasks=2))
    assert (seen.total_tasks, seen.current_task) == (5, 2)
    seen = unit(unit_started("a", total_tasks=5, completed_tasks=2), unit_started("a", completed_tasks=0))
    assert (seen.total_tasks, seen.current_task) == (5, 0)
    assert unit(unit_started("a", total_tasks=5), unit_started("a", total_tasks=0)).total_tasks == 0


def test_a_start_that_says_nothing_about_tasks_leaves_them_alone():
    state = told(orch_planned({"id": "a", "tasks": 7, "completed_tasks": 3}), unit_started("a"))
    assert (state.snapshot().unit("a").total_tasks, state.snapshot().unit("a").current_task) == (7, 3)


def test_a_task_with_a_number_sets_it_and_one_without_is_the_next():
    assert unit(task_started("a")).current_task == 1
    assert unit(task_started("a", 4)).current_task == 4
    assert unit(task_started("a", 4), task_started("a")).current_task == 5
    assert unit(task_started("a", 4), task_started("a", 2)).current_task == 2


def test_a_task_changes_nothing_but_the_current_task():
    assert unit(unit_failed("a", "boom", time=at(1)), task_started("a", 3)) == UnitState(
        "a", UnitStatus.FAILED, 3, 0, 0, "boom", None, at(1)
    )


def test_a_completed_unit_is_complete_and_finished():
    assert unit(unit_started("a", time=at(1)), unit_completed("a", time=at(2))) == UnitState(
        "a", UnitStatus.COMPLETE, 0, 0, 1, None, at(1), at(2)
    )


def test_a_failed_unit_has_its_error_and_is_finished():
    assert unit(unit_started("a", time=at(1)), unit_failed("a", "boom", time=at(2))) == UnitState(
        "a", UnitStatus.FAILED, 0, 0, 1, "boom", at(1), at(2)
    )


def test_a_failure_without_text_has_no_error():
    assert unit(unit_failed("a", "boom"), unit_failed("a", "")).error is None


def test_a_blocked_unit_is_blocked_and_nothing_else():
    assert unit(unit_blocked("a")) == UnitState("a", UnitStatus.BLOCKED, 0, 0, 0)


def test_a_retry_clears_the_error_and_the_end_of_the_attempt_before():
    seen = unit(
        unit_started("a", time=at(1)),
        unit_failed("a", "boom", time=at(2)),
        unit_started("a", time=at(3)),
    )
    assert seen == UnitState("a", UnitStatus.IN_PROGRESS, 0, 0, 2, started_at=at(3))


def test_a_unit_that_is_queued_again_loses_its_error_and_keeps_its_times():
    seen = unit(unit_started("a", time=at(1)), unit_failed("a", "boom", time=at(2)), unit_queued("a"))
    assert seen == UnitState("a", UnitStatus.READY, 0, 0, 1, None, at(1), at(2))


def test_the_newest_event_wins_whatever_came_before():
    assert unit(*lifecycle("a"), unit_blocked("a")).status == "blocked"
    assert unit(unit_completed("a")).status == "complete"
    assert (
        unit(unit_failed("a"), unit_queued("a"), unit_completed("a"), unit_started("a")).status
        == "in_progress"
    )


def test_time_is_data_and_never_orders():
    seen = unit(unit_started("a", time=at(100)), unit_completed("a", time=at(-100)))
    assert (seen.started_at, seen.finished_at) == (at(100), at(-100))


def test_an_event_without_time_leaves_no_time():
    state = told(Event("orch.started", payload={"graph": {"nodes": [{"id": "a"}]}}), unit_started("a"))
    assert state.snapshot().started_at is None
    seen = told(Event("unit.started", unit="a"), Event("unit.completed", unit="a"), state=state).snapshot()
    assert (seen.unit("a").started_at, seen.unit("a").finished_at) == (None, None)


# orch.completed, orch.failed, orch.reset


def test_a_completed_run_is_finished():
    snapshot = told(orch_started(diamond()), orch_completed(time=at(5))).snapshot()
    assert (snapshot.status, snapshot.started_at, snapshot.finished_at) == ("completed", NOON, at(5))
    assert snapshot.summary.pending == 4


def test_a_failed_run_has_its_error_and_is_finished():
    snapshot = told(orch_started(), orch_failed("boom", time=at(5))).snapshot()
    assert (snapshot.status, snapshot.error, snapshot.finished_at) == ("failed", "boom", at(5))
    assert told(orch_started(), orch_failed("")).snapshot().error is None


def test_a_run_that_has_ended_still_takes_events():
    state = told(*whole_run(units("a")), unit_failed("a", "after all"))
    assert state.snapshot().status == "completed"
    assert state.snapshot().unit("a").error == "after all"


@pytest.mark.parametrize("before", [[], [orch_started(diamond(), parallelism=3)], whole_run(chain(3))])
def test_a_run_that_is_reset_waits_and_has_nothing(before: list[Event]):
    state = told(*before, unit_added("z"), orch_failed("boom"), orch_reset())
    assert state.snapshot() == StateSnapshot(
        False, "", state.version, RunStatus.WAITING, 0, (), StateSummary(0, 0, 0, 0, 0, 0, 0)
    )
    assert state.graph() is None
    assert [info.run for info in state.infos()] == [""]


def test_a_reset_run_starts_as_if_it_were_the_first_time():
    fresh = told(*whole_run(diamond()))
    again = told(*whole_run(chain(4)), orch_reset(), *whole_run(diamond()))
    assert msgspec.structs.replace(again.snapshot(), version=fresh.version) == fresh.snapshot()
    assert again.graph().data() == fresh.graph().data()


# unit.added


def test_an_added_unit_is_pending_and_comes_last():
    state = told(orch_started(diamond()), unit_added("e", ["d"], tasks=3), unit_added("f"))
    assert statuses(state.snapshot()) == dict.fromkeys("abcdef", "pending")
    assert state.snapshot().unit("e") == UnitState("e", UnitStatus.PENDING, 0, 3, 0)
    graph = state.graph().data()
    assert [node.id for node in graph.nodes] == [seen.id for seen in state.snapshot().units]
    assert graph.levels == (("a", "f"), ("b", "c"), ("d",), ("e",))


def test_an_added_unit_takes_events_at_once():
    state = told(orch_started(units("a")), unit_added("b"), *lifecycle("b", tasks=2))
    assert statuses(state.snapshot()) == {"a": "pending", "b": "complete"}
    assert (
        fold(orch_started(units("a")), unit_added("b"), *lifecycle("b", tasks=2)).snapshot()
        == state.snapshot()
    )


def test_adding_a_unit_that_exists_changes_nothing():
    state = told(orch_started(diamond()), unit_failed("a", "boom"), unit_added("e"))
    before, graph = state.snapshot(), state.graph().data()
    told(unit_added("a", ["x"], tasks=9), unit_added("e", ["a"], tasks=9), state=state)
    assert state.snapshot().units is before.units
    assert state.graph().data() is graph
    assert (state.version, state.unknown_units) == (5, 0)


def test_a_unit_may_be_added_to_a_run_without_a_graph():
    state = told(orch_started(), unit_added("a", tasks=2))
    assert state.snapshot().units == (UnitState("a", UnitStatus.PENDING, 0, 2, 0),)
    assert state.graph().data().nodes == (GraphNode("a", 0, 2),)


def test_a_unit_may_be_added_without_payload_and_to_a_run_that_waits():
    state = told(orch_reset(), Event("unit.added", unit="a"))
    assert state.snapshot().units == (UnitState("a", UnitStatus.PENDING, 0, 0, 0),)
    assert state.snapshot().status == "waiting"


def test_added_units_are_gone_when_the_run_starts_again():
    state = told(orch_started(units("a")), unit_added("b"), orch_started(units("a")))
    assert statuses(state.snapshot()) == {"a": "pending"}
    assert [node.id for node in state.graph().data().nodes] == ["a"]


def test_units_may_be_added_while_nobody_puts_the_graph_together():
    state = told(orch_started(units("a")))
    for id in "bcd":
        told(unit_added(id), state=state)
        state.graph()
    assert [node.id for node in state.graph().data().nodes] == list("abcd")


def test_a_graph_that_was_handed_out_does_not_grow():
    state = told(orch_started(units("a")))
    before = state.graph().data()
    told(unit_added("b"), state=state)
    assert [node.id for node in before.nodes] == ["a"]


# What changes nothing, and is counted.


@pytest.mark.parametrize("type", UNIT_RULES)
def test_an_event_of_a_unit_that_the_run_does_not_have_is_accepted_and_counted(type: str):
    state = told(orch_started(diamond()))
    before = state.snapshot()
    told(Event(type, unit="x"), Event(type, unit="a", run="other"), Event(type), state=state)
    assert state.unknown_units == 3
    assert state.version == 4
    assert state.snapshot().units is before.units
    assert [info.run for info in state.infos()] == [""]


def test_events_of_unknown_units_are_kept_for_the_caller_with_their_version():
    state = told(unit_added("a", run="r"), orch_started(units("a")), unit_started("a"), unit_started("b"))
    told(unit_queued("a"), unit_queued("a", run="r"), state=state)
    found = [(version, event.type, event.unit, has_run) for version, event, has_run in state.unknown]
    assert found == [
        (1, "unit.added", "a", False),
        (4, "unit.started", "b", True),
        (6, "unit.queued", "a", False),
    ]


def test_an_event_before_its_unit_is_known_does_not_come_back_later():
    state = told(unit_failed("a", "early"), orch_started(units("a")))
    assert state.snapshot().unit("a") == UnitState("a", UnitStatus.PENDING, 0, 0, 0)
    assert state.unknown_units == 1


def test_a_unit_added_to_a_run_that_is_not_there_is_counted_and_creates_no_run():
    state = told(unit_added("a", run="r"))
    assert (state.version, state.unknown_units, state.infos()) == (1, 1, ())
    with pytest.raises(UnknownRunError):
        state.snapshot("r")


@pytest.mark.parametrize(
    "type", ["something.else", "unit", "unit.", "orch.paused", "UNIT.STARTED", "task.completed"]
)
def test_an_event_of_an_unknown_type_is_a_version_and_changes_nothing(type: str):
    state = told(orch_started(diamond()))
    before = state.snapshot()
    told(Event(type, unit="a", error="boom"), Event(type, run="r"), state=state)
    assert (state.version, state.unknown_units) == (3, 0)
    assert state.snapshot().units is before.units
    assert [info.run for info in state.infos()] == [""]


def test_what_is_carried_is_not_interpreted():
    plain, laden = unit_queued("a"), Event("unit.queued", time=NOON, unit="a", pr=7, task=3, payload=[1])
    before = told(orch_started(units("a")), plain).snapshot()
    assert told(orch_started(units("a")), laden).snapshot() == before


# Runs.


def test_several_runs_live_side_by_side_with_units_of_the_same_names():
    state = told(
        orch_started(units("a", "b"), run="one"),
        orch_started(units("a"), run="two", parallelism=2),
        unit_failed("a", "boom", run="one"),
        unit_queued("a", run="two"),
        unit_queued("b", run="two"),
        orch_failed("it broke", run="one"),
    )
    one, two = state.snapshot("one"), state.snapshot("two")
    assert statuses(one) == {"a": "failed", "b": "pending"}
    assert statuses(two) == {"a": "ready"}
    assert (one.status, one.error, one.parallelism) == ("failed", "it broke", 0)
    assert (two.status, two.error, two.parallelism) == ("running", None, 2)
    assert one.version == two.version == 6
    assert state.unknown_units == 1


def test_runs_are_listed_in_the_order_in_which_they_were_created():
    state = told(
        orch_started(run="b"), orch_reset(run="a"), orch_started(units("x"), run=""), orch_started(run="b")
    )
    assert [(info.run, info.status, info.summary.total) for info in state.infos()] == [
        ("b", "running", 0),
        ("a", "waiting", 0),
        ("", "running", 1),
    ]


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (orch_started(run="r"), "running"),
        (orch_completed(run="r"), "completed"),
        (orch_failed(run="r"), "failed"),
        (orch_reset(run="r"), "waiting"),
    ],
)
def test_every_event_of_an_orchestration_creates_its_run(event: Event, status: str):
    state = told(event)
    assert state.snapshot("r").status == status
    assert state.snapshot().run == "r"


def test_asking_for_a_run_that_no_event_has_created_is_an_error():
    state = told(orch_started(run="r"), unit_queued("a", run="x"))
    for ask in (state.run, state.snapshot, state.graph, state.update):
        with pytest.raises(UnknownRunError) as caught:
            ask("x")
        assert caught.value.run == "x"
    with pytest.raises(UnknownRunError):
        state.snapshot("")


def test_no_run_named_is_the_run_that_started_last():
    state = told(orch_started(units("a"), run="one"), orch_started(units("b"), run="two"))
    assert state.snapshot() is state.snapshot("two")
    told(unit_queued("a", run="one"), orch_completed(run="one"), orch_reset(run="three"), state=state)
    assert state.snapshot().run == "two"
    told(orch_started(run="one"), state=state)
    assert state.snapshot().run == "one"
    told(orch_reset(run="one"), state=state)
    assert (state.snapshot().run, state.snapshot().status) == ("one", "waiting")


def test_where_none_has_started_no_run_named_is_the_one_that_was_created_last():
    state = told(orch_reset(run="one"), orch_completed(run="two"))
    assert state.snapshot().run == "two"
    told(unit_added("a", run="one"), orch_completed(run="one"), state=state)
    assert state.snapshot().run == "two"
    told(orch_started(run="one"), orch_failed(run="three"), state=state)
    assert state.snapshot().run == "one"


# Snapshots.


def test_a_snapshot_never_changes_afterwards():
    state, seen = State("s"), []
    for event in [
        *whole_run(diamond(), tasks=2),
        unit_added("e", ["d"]),
        unit_failed("e", "boom"),
        orch_reset(),
        *whole_run(chain(3)),
    ]:
        apply(state, event)
        seen.append((state.snapshot(), msgspec.json.encode(state.snapshot()), state.graph()))
    for version, (snapshot, written, _) in enumerate(seen, 1):
        assert snapshot.version == version
        assert msgspec.json.encode(snapshot) == written
        check_snapshot(snapshot)


def test_a_snapshot_shares_the_units_that_did_not_change():
    state = told(orch_started(diamond()), unit_queued("a"))
    before = state.snapshot()
    after = told(unit_queued("b"), unit_queued("b"), state=state).snapshot()
    assert [old is new for old, new in zip(before.units, after.units, strict=True)] == [
        True,
        False,
        True,
        True,
    ]


def test_a_snapshot_shares_all_units_where_none_changed():
    state = told(orch_started(diamond()))
    before = state.snapshot()
    after = told(orch_completed(), Event("something.else"), orch_started(run="r"), state=state).snapshot("")
    assert after.units is before.units
    assert (after.version, after.status) == (4, "completed")


def test_a_snapshot_at_the_same_version_is_the_same_object():
    state = told(orch_started(diamond()), unit_queued("a"))
    assert state.snapshot() is state.snapshot("")
    connected = state.snapshot(connected=True)
    assert connected is state.snapshot(connected=True)
    assert (connected.connected, state.snapshot().connected) == (True, False)
    assert connected.units is state.snapshot().units


def test_it_does_not_matter_how_often_one_looks():
    events = [
        *whole_run(diamond(), tasks=2),
        unit_added("e"),
        *whole_run(chain(2), run="r"),
        unit_failed("a"),
    ]
    watched, together = told(*events), fold(*events)
    for run in ("", "r"):
        assert watched.snapshot(run).json() == together.snapshot(run).json()
        assert watched.graph(run).data() == together.graph(run).data()
    assert watched.infos() == together.infos()


def test_the_summary_counts_every_status():
    state = told(
        orch_started(units(*"abcdefg")),
        unit_queued("b"),
        unit_started("c"),
        unit_completed("d"),
        unit_failed("e"),
        unit_blocked("f"),
        unit_failed("g"),
    )
    assert state.snapshot().summary == StateSummary(
        total=7, pending=1, ready=1, in_progress=1, complete=1, failed=2, blocked=1
    )


# The same events, the same bytes.


def test_the_same_events_twice_give_the_same_bytes():
    events = [
        *whole_run(diamond(), tasks=3),
        unit_added("e", ["d", "x"]),
        orch_started(chain(50), run="r", parallelism=2),
        unit_failed("u7", "boom", run="r"),
        orch_failed("boom", run="r"),
    ]
    first, second = fold(*events), told(*events)
    for run in ("", "r"):
        assert first.snapshot(run).json() == second.snapshot(run).json()
        assert first.snapshot(run).msgpack() == second.snapshot(run).msgpack()
        assert first.graph(run).data().json() == second.graph(run).data().json()
        assert first.update(run).finish().json() == second.update(run).finish().json()


def test_events_of_one_batch_do_what_they_do_one_by_one():
    events = [
        orch_started(units("a"), run="r"),
        unit_queued("a", run="r"),
        unit_queued("a"),
        orch_started(units("a")),
        unit_started("a"),
        orch_started(units("a")),
        unit_blocked("a"),
        orch_reset(run="r"),
        unit_queued("a", run="r"),
        unit_added("a", run="r"),
        unit_queued("a", run="r"),
    ]
    batch, single = fold(*events), told(*events)
    assert (batch.version, batch.unknown_units) == (single.version, single.unknown_units) == (11, 2)
    for run in ("", "r"):
        assert batch.snapshot(run) == single.snapshot(run)


def test_no_events_are_no_version():
    state = told(orch_started(diamond()))
    before = state.snapshot()
    state.apply([])
    assert state.snapshot() is before


# A rule that fails is a bug of ours, and stops nothing.


@pytest.fixture(params=["unit.blocked", "orch.completed", "unit.added", "orch.started"])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The type of an event whose rule fails, once it has done half of its work."""
    table = UNIT_RULES if request.param in UNIT_RULES else RUN_RULES
    rule = table[request.param]

    def fail(target: object, event: Event, *version: int) -> None:
        if event.error != "bug":
            rule(target, event, *version)
            return
        if isinstance(target, rules.Unit):
            target.status = UnitStatus.BLOCKED
        elif request.param == "orch.started":
            target.begin(version[0], RunStatus.WAITING)
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(table, request.param, fail)
    return request.param


def test_a_rule_that_fails_is_one_fault_and_the_events_around_it_apply(broken: str):
    bug = open_payload(Event(broken, unit="a", error="bug", payload={} if broken in PAYLOADS else None))
    before = [
        open_payload(event) for event in (orch_started(units("a", "b")), unit_started("a"), unit_started("b"))
    ]
    after = [
        open_payload(event) for event in (unit_added("c"), unit_failed("c", "seen"), orch_failed("seen"))
    ]
    state = State("s")
    state.apply([*before, bug, *after])
    assert state.version == 7
    assert [(fault.version, fault.event, type(fault.error)) for fault in state.faults] == [
        (4, bug, ZeroDivisionError)
    ]
    snapshot = check_snapshot(state.snapshot())
    assert (snapshot.status, snapshot.error) == ("failed", "seen")
    assert (snapshot.unit("c").status, snapshot.unit("c").error) == ("failed", "seen")
    state.apply([bug, bug])
    assert [fault.version for fault in state.faults] == [4, 8, 9]


def test_after_a_rule_of_a_run_failed_the_next_events_find_the_units_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(run: rules.Run, event: Event, version: int) -> None:
        run.begin(version, RunStatus.WAITING)
        raise ZeroDivisionError("a bug")

    state = State("s")
    apply(state, orch_started(units("a")))
    monkeypatch.setitem(RUN_RULES, "orch.reset", fail)
    apply(state, unit_queued("a"), orch_reset(), unit_started("a"))
    assert state.unknown_units == 1
    assert state.snapshot().units == ()


def test_a_fault_can_be_shown():
    bug = open_payload(orch_started(diamond()))
    fault = rules.Fault(1, bug, ZeroDivisionError("a bug"))
    assert "orch.started" in repr(fault)
