"""Updates: whoever starts anywhere and follows has, byte for byte, what the snapshot shows."""

from __future__ import annotations

import copy
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actorstore.answers import Cursor, Update
from actorstore.errors import UnknownRunError
from actorstore.event import Event
from actorstore.state import State, Unit
from tests.builders import (
    NOON,
    Follower,
    apply,
    at,
    chain,
    check_summary,
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


def update(state: State, since: Cursor | str | None = None, run: str | None = None) -> Update:
    return state.update(run, None if since is None else Cursor(since)).finish()


def ids(found: Update) -> list[str]:
    return [unit.id for unit in found.units]


def watched(*events: Event) -> State:
    """Somebody looks after each event, so that every cursor of this state is one to start from."""
    state = State("s")
    for event in events:
        update(apply(state, event))
    return state


# What an update holds.


def test_the_first_update_is_the_whole_run():
    state = fold(orch_started(diamond(), parallelism=2, run="r"), unit_failed("b", "boom", run="r"))
    snapshot, first = state.snapshot(), update(state)
    assert first.since is None
    assert (first.run, first.version, first.connected) == ("r", 2, False)
    assert (first.status, first.parallelism, first.started_at) == ("running", 2, NOON)
    assert (first.units, first.summary) == (snapshot.units, snapshot.summary)
    assert first.graph is state.graph().data()


def test_an_update_holds_the_units_that_changed_each_one_whole():
    state = fold(orch_started(diamond()))
    first = update(state)
    apply(state, unit_started("c"), unit_failed("c", "boom", time=at(1)), unit_queued("a"))
    second = update(state, first.cursor)
    assert second.since == first.version == 1
    assert second.version == 4
    assert second.units == (state.snapshot().unit("a"), state.snapshot().unit("c"))
    assert second.summary == state.snapshot().summary


def test_units_come_in_graph_order_whatever_the_order_of_events():
    state = fold(orch_started(units(*"abcdef")))
    cursor = update(state).cursor
    apply(state, *(unit_queued(id) for id in "feda"))
    assert ids(update(state, cursor)) == list("adef")


def test_changes_are_merged():
    state = fold(orch_started(diamond()))
    cursor = update(state).cursor
    apply(state, *lifecycle("a", tasks=50))
    merged = update(state, cursor)
    assert ids(merged) == ["a"]
    assert merged.units[0].current_task == 50
    assert merged.units[0].status == "complete"


def test_where_nothing_changed_there_is_nothing_in_it():
    state = fold(orch_started(diamond()))
    cursor = update(state).cursor
    apply(state, Event("something.else"), unit_queued("x"), orch_started(run="r"))
    found = update(state, cursor, "")
    assert (found.units, found.graph, found.since, found.version) == ((), None, 1, 4)


def test_a_change_of_the_run_alone_comes_without_units():
    state = fold(orch_started(diamond()))
    cursor = update(state).cursor
    apply(state, orch_failed("boom", time=at(9)))
    found = update(state, cursor)
    assert (found.units, found.graph) == ((), None)
    assert (found.status, found.error, found.started_at, found.finished_at) == ("failed", "boom", NOON, at(9))


def test_an_update_says_whether_a_producer_is_connected():
    state = fold(orch_started(diamond()))
    assert state.update(connected=True).finish().connected
    assert not state.update(connected=False).finish().connected


def test_each_run_has_updates_of_its_own():
    state = fold(orch_started(units("a"), run="one"), orch_started(units("a"), run="two"))
    one, two = update(state, run="one").cursor, update(state, run="two").cursor
    apply(state, unit_queued("a", run="one"))
    assert ids(update(state, one, "one")) == ["a"]
    assert ids(update(state, two, "two")) == []


def test_an_update_of_a_run_that_is_not_there_is_an_error():
    with pytest.raises(UnknownRunError):
        update(fold(orch_started()), run="x")


# The graph, where it changed.


def test_the_graph_comes_only_where_it_changed():
    state = fold(orch_started(diamond()))
    first = update(state)
    assert first.graph is not None
    apply(state, unit_queued("a"))
    second = update(state, first.cursor)
    assert second.graph is None
    apply(state, unit_added("e", ["d"]), unit_queued("e"))
    third = update(state, second.cursor)
    assert third.graph is not None
    assert [node.id for node in third.graph.nodes] == list("abcde")
    assert ids(third) == ["e"]
    apply(state, unit_added("e", ["a"]), unit_queued("b"))
    fourth = update(state, third.cursor)
    assert (fourth.graph, ids(fourth)) == (None, ["b"])


def test_a_run_without_a_graph_has_updates_without_one():
    state = fold(orch_started())
    assert update(state).graph is None
    apply(state, unit_added("a"))
    assert [node.id for node in update(state).graph.nodes] == ["a"]


def test_added_units_come_last():
    state = fold(orch_started(diamond()))
    cursor = update(state).cursor
    apply(state, unit_added("0"), unit_queued("d"), unit_added("1"), unit_queued("a"))
    assert ids(update(state, cursor)) == ["a", "d", "0", "1"]


# What it costs.


def test_an_update_looks_at_no_unit_but_those_that_changed():
    state = fold(orch_started(chain(10_000)))
    cursor = update(state).cursor
    for make in (unit_queued, unit_started, unit_completed):
        apply(state, *(make(f"u{number}") for number in range(0, 10_000, 1_000)))
    made = []
    face = Unit.face

    def counted(unit: Unit) -> object:
        made.append(unit.id)
        return face(unit)

    with patch.object(Unit, "face", counted):
        found = update(state, cursor)
        assert sorted(made) == sorted(ids(found)) == [f"u{number}" for number in range(0, 10_000, 1_000)]
        made.clear()
        assert update(state, cursor).units == found.units
        assert update(state, found.cursor).units == ()
        assert made == []


def test_two_followers_at_different_places_each_get_what_they_lack():
    state = fold(orch_started(units(*"abc")))
    early = update(state).cursor
    apply(state, unit_queued("a"))
    late = update(state, early).cursor
    apply(state, unit_queued("b"))
    assert ids(update(state, early)) == ["a", "b"]
    assert ids(update(state, late)) == ["b"]
    apply(state, unit_queued("a"))
    assert ids(update(state, late)) == ["a", "b"]
    assert ids(update(state, early)) == ["a", "b"]


def test_looking_in_other_ways_in_between_loses_nothing():
    state = fold(orch_started(units(*"abc")))
    cursor = update(state).cursor
    apply(state, unit_queued("a"))
    state.snapshot()
    apply(state, unit_queued("b"))
    state.infos()
    apply(state, orch_completed())
    state.graph()
    assert ids(update(state, cursor)) == ["a", "b"]


# News.


def test_there_is_news_only_where_an_update_would_say_something():
    state = fold(orch_started(diamond()))
    cursor = update(state).cursor
    assert not state.has_news(None, cursor)
    for silent in (Event("something.else"), unit_queued("x"), orch_started(run="r"), unit_added("a")):
        apply(state, silent)
        assert not state.has_news("", cursor)
    for event in (
        *(unit_queued("a"), unit_added("e"), orch_completed(), orch_failed(), orch_failed(), orch_reset()),
        *(orch_started(), orch_failed(), orch_completed(), unit_added("a"), unit_queued("a")),
    ):
        apply(state, event)
        assert state.has_news("", cursor)
        cursor = update(state, cursor, "").cursor
        assert not state.has_news("", cursor)


def test_news_is_still_news_after_somebody_else_has_looked():
    state = fold(orch_started(diamond()))
    cursor = update(state).cursor
    apply(state, unit_queued("a"))
    state.snapshot()
    assert state.has_news(None, cursor)


def test_another_run_that_starts_is_news_to_who_follows_the_newest():
    state = fold(orch_started(units("a"), run="one"))
    cursor = update(state).cursor
    apply(state, orch_started(units("b"), run="two"))
    assert state.has_news(None, cursor)
    assert not state.has_news("one", cursor)
    found = update(state, cursor)
    assert (found.run, found.since, ids(found)) == ("two", None, ["b"])


def test_a_cursor_that_does_not_fit_is_news():
    assert fold(orch_started(diamond())).has_news(None, Cursor("nonsense"))


# Cursors that do not fit.


@pytest.mark.parametrize(
    "cursor",
    [
        *("", " ", ".", "..", "s", "s.", "s.1", "s.1.", "s.1.x", "s..5", "nonsense", "\x00", "é", "5"),
        *("s.1.-3", "s.1.+3", "s.1. 3", "s.1.3 ", "s.1.3\n", "s.1.0x3", "s.1.1_0", "s.1.3.3", "s.1.3e0"),
        *("s.1.\uff13", "s.1.\u0663", "s.1.\u00b2", "s.1." + "9" * 5_000, "s.1." + "0" * 5_000 + "3"),
    ],
    ids=lambda cursor: ascii(cursor[:12]),
)
def test_a_malformed_cursor_is_answered_with_the_whole_run(cursor: str):
    state = watched(*whole_run(diamond()))
    assert update(state, cursor) == update(state)
    assert update(state, cursor).since is None


def test_a_cursor_of_another_store_is_answered_with_the_whole_run():
    mine = watched(*whole_run(diamond()))
    for store in ("t", "s.1", "", "S"):
        other = fold(*whole_run(diamond()), store=store)
        assert update(mine, update(other).cursor).since is None


def test_a_cursor_from_the_future_is_answered_with_the_whole_run():
    early, late = watched(*whole_run(diamond())[:-3]), watched(*whole_run(diamond()))
    assert update(early, update(late).cursor).since is None


def test_a_cursor_from_before_the_run_was_made_anew_is_answered_with_the_whole_run():
    state = fold(orch_started(diamond()), unit_queued("a"))
    for anew in (orch_started(diamond()), orch_reset(), orch_started(units("x"))):
        stale = update(state).cursor
        apply(state, anew)
        found = update(state, stale)
        assert found.since is None
        assert found == update(state)
        assert update(state, found.cursor).since == found.version


def test_a_cursor_of_another_run_is_answered_with_the_whole_run():
    state = fold(orch_started(units("a"), run="one"), orch_started(units("b"), run="two"))
    update(state, run="two")
    found = update(state, update(state, run="one").cursor, "two")
    assert (found.since, ids(found)) == (None, ["b"])


def test_a_cursor_from_before_any_run_is_answered_with_the_whole_run():
    state = fold(unit_queued("early"))
    nothing = update(state)
    assert (nothing.run, nothing.status, nothing.units, nothing.since) == ("", "waiting", (), None)
    assert update(state, nothing.cursor).since == 1
    apply(state, orch_started(diamond()))
    assert update(state, nothing.cursor).since is None


@pytest.mark.parametrize("seen", [1, 7, 15])
def test_a_cursor_of_a_state_that_was_lost_leaves_no_hole_in_one_made_of_the_same_events(seen: int):
    events = [*whole_run(diamond(), tasks=1), unit_added("e"), *lifecycle("e")]
    follower = Follower().take(update(fold(*events[:seen])))
    again = fold(*events)
    follower.take(update(again, follower.last.cursor))
    assert follower.snapshot() == again.snapshot()


def test_a_cursor_from_before_anybody_looked_is_news():
    state = fold(orch_started(diamond()), unit_queued("a"))
    state.snapshot()
    assert state.has_news(None, Cursor("s.1.1"))


# Any stream, cut anywhere, resumed from anywhere.

RUNS = ("", "r")
UNITS = ("a", "b", "c", "x")
GRAPHS = (None, {}, units("a", "b"), {"c": ["a"], "a": ["b"], "b": []}, {"a": ["c"], "c": ["a"]})
RULES_OF_UNITS = (unit_queued, unit_started, unit_completed, unit_blocked, unit_failed, task_started)
EVENTS = [
    *(make(unit, run=run) for make in RULES_OF_UNITS for unit in UNITS for run in RUNS),
    *(unit_started(unit, total_tasks=3, completed_tasks=1) for unit in UNITS),
    *(unit_added(unit, others, run=run) for unit in "xyz" for others in ((), ("a", "x")) for run in RUNS),
    *(make(run=run) for make in (orch_completed, orch_failed) for run in RUNS),
    *(orch_started(graph) for graph in GRAPHS),
    *(orch_started(units("a", "x"), run="r"), orch_reset(), orch_reset(run="r")),
    orch_planned({"id": "a"}, {"id": "b"}, {"id": "a", "tasks": 9}, {"id": "x"}),
    Event("something.else", unit="a"),
]
"""Mostly events of units, so that much happens to a run before it is made anew."""

LOOKS = ("follow", "follow", "follow", "follow anew", "snapshot", "infos", "graph", "nothing")
START = [orch_started({"a": [], "b": ["a"], "c": ["b"]}), orch_started(units("a", "x"), run="r")]

Step = tuple[list[Event], str, str | None]
steps = st.lists(
    st.tuples(
        st.lists(st.sampled_from(EVENTS), max_size=3),
        st.sampled_from(LOOKS),
        st.sampled_from(["", "", "r", None]),
    ),
    min_size=4,
    max_size=20,
)


class Watch:
    """A state, all who ever followed it, and what was done to each run since it was made anew."""

    def __init__(self) -> None:
        self.state = State("s")
        self.live = {run: Follower() for run in (None, *RUNS)}
        self.left: list[tuple[str | None, Follower]] = []  # as they stood when they got a cursor
        self.touched: dict[str, list[tuple[int, str]]] = {run: [] for run in RUNS}
        self.known: dict[str, list[str]] = {run: [] for run in RUNS}
        self.created: set[str] = set()

    def apply(self, batch: list[Event]) -> None:
        for place, event in enumerate(batch, self.state.version + 1):
            self.note(place, event)
        apply(self.state, *batch)

    def note(self, version: int, event: Event) -> None:
        kind, known = event.type.partition(".")[0], self.known[event.run]
        if kind == "orch":
            self.created.add(event.run)
        if event.type in ("orch.started", "orch.reset"):
            self.touched[event.run] = []
            del known[:]
            graph = fold(event).graph(event.run)
            known += [node.id for node in graph.data().nodes] if graph else []
        elif event.type == "unit.added":
            if event.run in self.created and event.unit not in known:
                known.append(event.unit)
                self.touched[event.run].append((version, event.unit))
        elif kind in ("unit", "task") and event.unit in known:
            self.touched[event.run].append((version, event.unit))

    def follow(self, run: str | None, follower: Follower) -> None:
        """Follow by one update, and check what is in it."""
        if run is not None and run not in self.created:
            with pytest.raises(UnknownRunError):
                self.state.update(run)
            return
        cursor = follower.last.cursor if follower.last else None
        news = cursor is None or self.state.has_news(run, cursor)
        found = self.state.update(run, cursor).finish()
        before = copy.copy(follower.last)
        follower.take(found)
        self.left.append((run, copy.deepcopy(follower)))

        assert found.version == self.state.version
        if found.since is not None:
            assert before is not None
            assert (found.since, found.run) == (before.version, before.run)
            changed = {unit for version, unit in self.touched[found.run] if version > found.since}
            assert ids(found) == [unit for unit in self.known[found.run] if unit in changed]
            fields = ("status", "parallelism", "error", "started_at", "finished_at")
            said = [getattr(found, name) for name in fields] != [getattr(before, name) for name in fields]
            assert news or not (found.units or found.graph or said)
        check_summary(found.summary, follower.units.values())
        self.check(run, follower)

    def check(self, run: str | None, follower: Follower) -> None:
        assert follower.snapshot().json() == self.state.snapshot(run).json()
        assert follower.snapshot() == self.state.snapshot(run)
        graph = self.state.graph(run)
        assert follower.graph == (graph.data() if graph else None)
        nodes = follower.graph.nodes if follower.graph else ()
        assert [node.id for node in nodes] == [*follower.units] == self.known.get(follower.snapshot().run, [])

    def look(self, how: str, run: str | None) -> None:
        match how:
            case "follow":
                self.follow(run, self.live[run])
            case "follow anew":
                self.follow(run, Follower())
            case "infos":
                self.state.infos()
            case "snapshot" | "graph" if run is None or run in self.created:
                getattr(self.state, how)(run)


@given(steps.map(lambda steps: [(START, "follow", ""), *steps]))
@example([(START, "follow", ""), ([unit_queued("b")], "snapshot", ""), ([], "follow", "")])
@example(
    [(START, "nothing", ""), ([unit_added("y", ["c"])], "follow", None), ([unit_failed("y")], "graph", "")]
)
@example([([], "follow", None), ([unit_queued("a"), orch_reset()], "follow", None)])
def test_any_stream_cut_anywhere_and_resumed_anywhere_ends_in_the_bytes_of_the_snapshot(steps: list[Step]):
    watch = Watch()
    for batch, how, run in steps:
        watch.apply(batch)
        watch.look(how, run)
    for run, follower in list(watch.left):
        watch.follow(run, follower)


@given(st.lists(st.sampled_from(EVENTS), max_size=25), st.lists(st.integers(0, 25), max_size=4))
def test_where_a_stream_is_cut_makes_no_difference(stream: list[Event], cuts: list[int]):
    stream = [*START, *stream]
    bounds = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    state, followers = State("s"), {run: Follower() for run in (None, *RUNS)}
    for start, end in pairwise(bounds):
        apply(state, *stream[start:end])
        for run, follower in followers.items():
            if run is None or run in state.runs:
                follower.take(update(state, follower.last.cursor if follower.last else None, run))
    whole = fold(*stream)
    for run, follower in followers.items():
        assert follower.snapshot().json() == whole.snapshot(run).json() == state.snapshot(run).json()
