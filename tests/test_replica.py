"""Copies that keep up: snapshot and updates give, byte for byte, what the store itself would show."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actorstore.answers import Cursor, StateSnapshot, Update
from actorstore.event import Event
from actorstore.replica import snapshot_of
from actorstore.state import State
from tests.builders import (
    apply,
    at,
    chain,
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
)

IDS = ["a", "b", "c", "é", ""]


class Replica:
    """One who keeps the last copy of a run, and asks only for what has changed since."""

    def __init__(self, run: str | None = None) -> None:
        self.run = run
        self.snapshot: StateSnapshot | None = None
        self.cursor: Cursor | None = None
        self.wholes = 0

    def look(self, state: State, connected: bool = False) -> StateSnapshot:
        copy = state.copy(self.run, self.cursor, connected)
        if isinstance(copy, Update):
            self.snapshot, self.cursor = snapshot_of(copy, self.snapshot), copy.cursor
        else:
            self.wholes += 1
            draft, self.cursor = copy
            self.snapshot = draft.finish()
        return self.snapshot


def check_same(copy: StateSnapshot, own: StateSnapshot) -> None:
    """Equal in every way that can be seen."""
    assert copy == own
    assert copy.json() == own.json()
    assert copy.msgpack() == own.msgpack()
    assert [copy.unit(unit.id) for unit in own.units] == list(own.units)


def whole(state: State, run: str | None = None) -> Update:
    return state.update(run).finish()


# In a few lines.


def test_the_whole_run_is_a_snapshot():
    state = fold(orch_started(diamond(), parallelism=3), *lifecycle("a"), orch_failed("boom"))
    check_same(snapshot_of(whole(state)), state.snapshot())


def test_a_changed_unit_takes_the_place_of_the_one_before():
    state = fold(orch_started(chain(3)))
    replica = Replica()
    before = replica.look(state)
    apply(state, unit_failed("u1", "boom"))
    after = replica.look(state)
    check_same(after, state.snapshot())
    assert [unit.id for unit in after.units] == ["u0", "u1", "u2"]
    assert after.units[0] is before.units[0]
    assert before.unit("u1").status == "pending"


def test_new_units_come_last():
    state = fold(orch_started(units("b")))
    replica = Replica()
    replica.look(state)
    apply(state, unit_added("a"), unit_started("b"), unit_added("c"))
    assert [unit.id for unit in replica.look(state).units] == ["b", "a", "c"]
    check_same(replica.look(state), state.snapshot())


def test_an_event_that_changes_no_unit_still_moves_the_version():
    state = fold(orch_started(units("a")))
    replica = Replica()
    before = replica.look(state)
    apply(state, Event("unit.danced", unit="a"), orch_completed(time=at(1)))
    after = replica.look(state)
    check_same(after, state.snapshot())
    assert after.units is before.units


def test_where_nothing_has_changed_the_copy_is_not_encoded_again():
    state = fold(orch_started(units("a")))
    replica = Replica()
    before = replica.look(state)
    encoded = before.json()
    assert replica.look(state).json() is encoded


def test_connected_is_added_to_what_was_kept():
    state = fold(orch_started(units("a")))
    replica = Replica()
    for connected in (False, True, True, False):
        check_same(replica.look(state, connected), state.snapshot(None, connected))
    assert replica.wholes == 1


def test_a_run_that_was_made_anew_comes_whole():
    state = fold(orch_started(units("a", "b")), unit_failed("a"))
    replica = Replica()
    replica.look(state)
    apply(state, orch_started(units("c")))
    check_same(replica.look(state), state.snapshot())
    assert replica.wholes == 2


def test_another_run_without_units_is_not_taken_for_the_one_before():
    state = fold(orch_started(run="a"), orch_started(run="b"))
    before = snapshot_of(whole(state, "a"))
    before.json()
    check_same(snapshot_of(whole(state, "b"), before), state.snapshot("b"))


def test_another_store_at_the_same_version_is_not_taken_for_the_one_before():
    before = snapshot_of(whole(fold(orch_started())))
    before.json()
    other = fold(orch_started(parallelism=7), store="t")
    check_same(snapshot_of(whole(other), before), other.snapshot())


@pytest.mark.parametrize("before", [None, "older", "newer", "of another run"])
def test_an_update_that_does_not_fit_is_refused(before: str | None):
    state = fold(orch_started(units("a")), orch_started(units("a"), run="b"))
    older = state.snapshot("")
    _, cursor = state.copy("")
    assert isinstance(cursor, str)
    apply(state, unit_started("a"))
    middle = state.copy("", Cursor(f"s.1.{state.version}"))
    assert isinstance(middle, Update)
    apply(state, unit_completed("a"))
    update = state.copy("", middle.cursor)
    assert isinstance(update, Update)
    snapshots = {
        None: None,
        "older": older,
        "newer": state.snapshot(""),
        "of another run": state.snapshot("b"),
    }
    with pytest.raises(ValueError, match="an update from version 3 does not fit"):
        snapshot_of(update, snapshots[before])


# Whatever happens.

unit_event = st.one_of(
    st.builds(
        lambda make, unit: make(unit),
        st.sampled_from([unit_queued, unit_completed, unit_blocked]),
        st.sampled_from(IDS),
    ),
    st.builds(unit_failed, st.sampled_from(IDS), st.text(max_size=3)),
    st.builds(
        lambda unit, total: unit_started(unit, total_tasks=total),
        st.sampled_from(IDS),
        st.none() | st.integers(0, 9),
    ),
    st.builds(task_started, st.sampled_from(IDS), st.none() | st.integers(1, 9)),
    st.builds(unit_added, st.sampled_from(IDS), st.lists(st.sampled_from(IDS), max_size=2)),
    st.builds(Event, st.sampled_from(["unit.danced", "x"]), unit=st.sampled_from(IDS)),
)
run_event = st.one_of(
    st.builds(
        lambda ids, most: orch_started(units(*ids), parallelism=most),
        st.lists(st.sampled_from(IDS), unique=True),
        st.none() | st.integers(0, 9),
    ),
    st.just(orch_planned({"id": "a", "status": "complete", "tasks": 2}, {"id": "a"}, {"id": "b"})),
    st.builds(lambda seconds: orch_completed(time=at(seconds)), st.integers(0, 9)),
    st.builds(orch_failed, st.text(max_size=3)),
    st.just(orch_reset()),
)
happening = st.one_of(unit_event, unit_event, unit_event, run_event)


@given(st.lists(st.tuples(happening, st.sampled_from(["", "other"]), st.integers(0, 7)), max_size=40))
@example([(orch_started(), "", 7), (orch_started(), "other", 7)])
def test_snapshot_and_updates_are_the_snapshot(happenings: list[tuple[Event, str, int]]):
    state = State("s")
    apply(state, orch_started(units("a", "b")), orch_reset(run="other"))
    replicas = [Replica(), Replica(""), Replica("other")]
    seen: list[tuple[StateSnapshot, bytes]] = []
    for number, (event, run, who) in enumerate(happenings):
        apply(
            state,
            Event(
                event.type,
                time=event.time,
                run=run,
                unit=event.unit,
                task=event.task,
                payload=event.payload,
                error=event.error,
            ),
        )
        for place, replica in enumerate(replicas):
            if who >> place & 1:
                connected = number % 3 == 0
                copy = replica.look(state, connected)
                check_same(copy, state.snapshot(replica.run, connected))
                seen.append((copy, copy.json()))
    for copy, json in seen:
        assert copy.json() == json, "a copy has changed after it was given"


@given(st.lists(unit_event, max_size=30), st.lists(st.integers(0, 30), max_size=6))
def test_the_same_snapshot_whichever_updates_lead_to_it(events: list[Event], looks: list[int]):
    state, eager, lazy = fold(orch_started(units("a", "b"))), Replica(""), Replica("")
    eager.look(state)
    lazy.look(state)
    for number, event in enumerate(events):
        apply(state, event)
        eager.look(state)
        if number in looks:
            lazy.look(state)
    check_same(lazy.look(state), eager.look(state))
    check_same(lazy.look(state), state.snapshot(""))
    assert (eager.wholes, lazy.wholes) == (1, 1)
