"""What a run looks like to those who watch it without a screen: the picture, and plain lines."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from actorstore import Event, RunInfo, RunStatus, StateSummary, Store, StoreClosedError
from actorstore.cli import view
from actorstore.cli.view import Picture, PlainView, open_view, recorded_clock, span, summarize, wall_clock
from tests.builders import (
    NOON,
    apply,
    at,
    chain,
    fold,
    lines,
    orch_completed,
    orch_failed,
    orch_planned,
    orch_reset,
    orch_started,
    task_started,
    unit_blocked,
    unit_completed,
    unit_failed,
    unit_queued,
    unit_started,
    units,
)

SECONDS = 10
"""How long a test waits for a thread, before it fails."""


def picture(*events: Event) -> Picture:
    """The picture after these events, seen once."""
    seen = Picture()
    seen.take(fold(*events).update().finish())
    return seen


# The picture.


def test_a_picture_knows_what_runs_and_what_failed() -> None:
    seen = picture(
        orch_started(units("a", "b", "c", "d"), parallelism=2),
        unit_started("a"),
        unit_started("b"),
        unit_failed("b", "boom"),
        unit_started("c"),
        unit_completed("c"),
    )
    assert list(seen.running) == ["a"]
    assert {unit.id: unit.error for unit in seen.failed.values()} == {"b": "boom"}
    assert (seen.status, seen.parallelism, seen.summary.complete) == ("running", 2, 1)


def test_a_picture_put_together_from_updates_is_that_of_the_whole() -> None:
    events = [
        orch_started(chain(3)),
        unit_started("u0", total_tasks=4),
        task_started("u0", 3),
        unit_failed("u0", "boom", time=at(5)),
        unit_started("u0", time=at(6)),
        unit_completed("u0", time=at(9)),
        unit_started("u1", time=at(9)),
    ]
    state = fold()
    seen = Picture()
    for event in events:
        apply(state, event)
        seen.take(state.update(since=seen.cursor).finish())
    whole = picture(*events)
    for name in ("running", "failed", "tasks", "tasks_done", "summary", "status"):
        assert getattr(seen, name) == getattr(whole, name), name
    assert seen.elapsed(None) == timedelta(seconds=9)


def test_each_failure_is_told_once_and_that_of_a_retry_again() -> None:
    state = fold(orch_started(units("a", "b")))
    seen = Picture()

    def failures(*events: Event) -> list[str]:
        apply(state, *events)
        return [unit.id for unit in seen.take(state.update(since=seen.cursor).finish())]

    assert failures() == []
    assert failures(unit_started("a"), unit_failed("a")) == ["a"]
    assert failures(unit_started("b")) == []
    assert failures(unit_started("a")) == []
    assert list(seen.failed) == []
    assert failures(unit_failed("a")) == ["a"]
    assert failures(unit_started("a"), unit_failed("a")) == ["a"]
    assert failures(unit_failed("a")) == []


def test_a_task_counts_as_done_when_the_next_one_starts_or_the_unit_is_complete() -> None:
    nodes = [{"id": "a", "tasks": 3}, {"id": "b", "tasks": 3}, {"id": "c", "tasks": 3}]
    events = [orch_planned(*nodes), unit_started("a"), task_started("a", 3), unit_completed("b")]
    seen = picture(*events)
    assert (seen.tasks_done, seen.tasks, seen.most_tasks) == (2 + 3, 9, 3)


def test_the_tasks_that_a_resumed_unit_had_done_count_as_done() -> None:
    seen = picture(orch_planned({"id": "a", "tasks": 5, "completed_tasks": 2}))
    assert (seen.tasks_done, seen.tasks) == (2, 5)


def test_a_run_made_anew_is_a_new_picture() -> None:
    state = fold(orch_started(units("a", "b")), unit_started("a"), unit_failed("b"))
    seen = Picture()
    seen.take(state.update().finish())
    apply(state, orch_started(units("c"), time=at(60)))
    seen.take(state.update(since=seen.cursor).finish())
    assert (seen.running, seen.failed, seen.summary.total) == ({}, {}, 1)
    assert seen.elapsed(None) == timedelta()


def test_time_is_that_of_the_run() -> None:
    running = picture(orch_started(units("a", "b")), unit_started("a", time=at(10)), unit_queued("b"))
    assert running.elapsed(None) == timedelta(seconds=10)
    assert running.elapsed(at(15)) == timedelta(seconds=15)
    assert running.running_for(running.running["a"], at(15)) == timedelta(seconds=5)
    ended = picture(orch_started(units("a")), orch_completed(time=at(20)))
    assert ended.elapsed(at(99)) == timedelta(seconds=20)


def test_without_times_nobody_knows_how_long() -> None:
    seen = picture(Event("orch.started", payload={"graph": {"nodes": [{"id": "a"}]}}))
    assert seen.elapsed(None) is None
    assert seen.elapsed(NOON) is None
    assert span(seen.elapsed(NOON)) == "-"


def test_a_clock_that_went_back_takes_no_time() -> None:
    assert picture(orch_started(time=at(9)), orch_completed(time=at(3))).elapsed(None) == timedelta()


# Plain lines.


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


def watched(store: Store, *steps: list[Event] | Event) -> list[str]:
    """What plain lines say when each step is looked at."""
    out = io.StringIO()
    with PlainView(store, recorded_clock, out) as shown:
        for step in steps:
            store.handle_lines(lines(*(step if isinstance(step, list) else [step])))
            shown.look()
    return out.getvalue().splitlines()


def test_plain_lines_say_when_a_run_starts_and_ends_and_when_a_unit_fails(store: Store) -> None:
    assert watched(
        store,
        orch_started(units("a", "b"), parallelism=4, run="r"),
        [unit_started("a", run="r"), unit_started("b", run="r")],
        unit_failed("a", "boom", run="r", time=at(70)),
        [unit_started("a", run="r", time=at(80)), unit_completed("b", run="r", time=at(80))],
        unit_failed("a", "boom again", run="r", time=at(3700)),
        orch_failed("a failed", run="r", time=at(3701)),
    ) == [
        "    0:00  run r started: 2 units, 4 workers",
        "    1:10  r: unit a failed: boom",
        " 1:01:40  r: unit a failed (attempt 2): boom again",
        " 1:01:41  run r failed: a failed",
    ]


def test_the_default_run_has_no_name_and_a_failure_may_have_no_reason(store: Store) -> None:
    assert watched(
        store,
        [orch_started(units("a")), unit_started("a"), unit_failed("a", "")],
        orch_completed(time=at(5)),
    ) == [
        "    0:00  run started: 1 unit",
        "    0:00  unit a failed",
        "    0:05  run completed",
    ]


def test_a_run_that_is_over_when_it_is_first_seen_is_told_whole(store: Store) -> None:
    everything = [orch_started(units("a")), unit_started("a"), unit_failed("a", "boom"), orch_failed("bad")]
    assert watched(store, everything) == [
        "    0:00  run started: 1 unit",
        "    0:00  unit a failed: boom",
        "    0:00  run failed: bad",
    ]


def test_runs_side_by_side_are_all_told(store: Store) -> None:
    assert watched(
        store,
        [orch_started(units("a"), run="r"), orch_started(units("a"), run="s")],
        [unit_failed("a", "boom", run="r")],
        [orch_completed(run="s"), orch_completed(run="r")],
    ) == [
        "    0:00  run r started: 1 unit",
        "    0:00  run s started: 1 unit",
        "    0:00  r: unit a failed: boom",
        "    0:00  run r completed",
        "    0:00  run s completed",
    ]


def test_a_run_that_starts_anew_is_told_again_and_a_reset_too(store: Store) -> None:
    assert watched(
        store,
        [orch_started(units("a")), orch_completed()],
        orch_started(units("a", "b")),
        orch_reset(),
        orch_started(units("a", "b", "c")),
    ) == [
        "    0:00  run started: 1 unit",
        "    0:00  run completed",
        "    0:00  run started: 2 units",
        "       -  run was reset",
        "    0:00  run started: 3 units",
    ]


def test_progress_is_told_after_a_silence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "PROGRESS_SECONDS", 0.0)
    assert watched(
        store,
        orch_started(units("a", "b", "c", "d")),
        [unit_started("a"), unit_completed("a", time=at(60)), unit_failed("b", "boom", time=at(60))],
        [unit_started("c", time=at(60)), unit_blocked("d")],
    ) == [
        "    0:00  run started: 4 units",
        "    0:00  0 of 4 units complete",
        "    1:00  unit b failed: boom",
        "    1:00  1 of 4 units complete, 1 failed",
        "    1:00  1 of 4 units complete, 1 running, 1 failed, 1 blocked",
    ]


def test_nothing_is_said_while_nothing_happens(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "PROGRESS_SECONDS", 0.0)
    assert watched(store) == []
    assert watched(store, [], Event("what.ever")) == []


def test_what_others_wrote_cannot_steer_the_terminal(store: Store) -> None:
    evil = "\x1b[2J\x9b31m\r\nfake line\u202e[red]"
    said = "\n".join(
        watched(
            store,
            [
                orch_started({evil: []}, run=evil),
                unit_failed(evil, evil, run=evil),
                orch_failed(evil, run=evil),
            ],
        )
    )
    assert said.count("\n") == 2
    assert not {"\x1b", "\x9b", "\r", "\u202e"} & set(said)
    assert r"\x1b[2J\x9b31m\r\nfake line\u202e[red]" in said


def test_a_view_follows_from_a_thread_of_its_own(store: Store) -> None:
    seen = threading.Event()

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            seen.set()
            return super().write(text)

    out = Watched()
    with PlainView(store, wall_clock, out):
        store.handle_event(orch_started(units("a")))
        assert seen.wait(SECONDS)
    assert out.getvalue() == "    0:00  run started: 1 unit\n"


def test_leaving_a_view_shows_what_was_handed_over_last(store: Store) -> None:
    out = io.StringIO()
    with PlainView(store, recorded_clock, out):
        store.handle_event(orch_started(units("a")))
        store.handle_event(orch_completed())
    assert out.getvalue().splitlines()[-1].endswith("run completed")


def test_a_view_that_is_left_by_an_error_does_not_hide_it(store: Store) -> None:
    def interrupted() -> None:
        with PlainView(store, recorded_clock, io.StringIO()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not [thread for thread in threading.enumerate() if thread.name == "actorstore view"]


def test_a_view_of_a_store_that_is_closed_under_it_says_so() -> None:
    store = Store()

    def closed_too_early() -> None:
        with PlainView(store, recorded_clock, io.StringIO()):
            store.close()

    with pytest.raises(StoreClosedError):
        closed_too_early()


def test_output_that_nobody_reads_ends_the_view(store: Store) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError), PlainView(store, recorded_clock, Broken()):
        store.handle_event(orch_started(units("a")))


@pytest.mark.parametrize(("tty", "term"), [(False, "xterm"), (True, "dumb"), (True, "unknown"), (True, "")])
def test_lines_are_plain_where_there_is_no_terminal_to_draw_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, tty: bool, term: str
) -> None:
    class Out(io.StringIO):
        def isatty(self) -> bool:
            return tty

    monkeypatch.setenv("TERM", term)
    if not term:
        monkeypatch.delenv("TERM")
    assert isinstance(open_view(store, out=Out()), PlainView)


# Words and numbers.


@pytest.mark.parametrize(
    ("seconds", "text", "exact"),
    [
        (0, "0:00", "0.00 s"),
        (9.994, "0:09", "9.99 s"),
        (42.06, "0:42", "42.1 s"),
        (60, "1:00", "1:00"),
        (751.9, "12:31", "12:31"),
        (3723, "1:02:03", "1:02:03"),
        (2 * 86400 + 11045, "2d 03:04:05", "2d 03:04:05"),
    ],
)
def test_a_span_is_short_and_readable(seconds: float, text: str, exact: str) -> None:
    assert span(timedelta(seconds=seconds)) == text
    assert span(timedelta(seconds=seconds), exact=True) == exact


def info(
    run: str, status: RunStatus, *, complete: int = 0, failed: int = 0, finished_at: datetime | None = None
) -> RunInfo:
    """A run of three units in one line."""
    summary = StateSummary(3, 3 - complete - failed, 0, 0, complete, failed, 0)
    return RunInfo(run, status, summary, NOON, finished_at)


def test_a_summary_of_one_run_says_how_it_ended_and_how_long_it_took() -> None:
    assert summarize([]) == "no run"
    done = info("r\x1b", RunStatus.COMPLETED, complete=3, finished_at=at(90))
    assert summarize([done]) == r"r\x1b completed in 1:30: 3 of 3 units complete"
    assert summarize([info("", RunStatus.RUNNING)]) == "the run has not ended: 0 of 3 units complete"


def test_a_summary_of_several_runs_adds_them_up() -> None:
    done = info("r", RunStatus.COMPLETED, complete=3)
    bad = info("s", RunStatus.FAILED, complete=1, failed=2)
    assert summarize([done, done]) == "2 runs completed: 6 of 6 units complete"
    assert (
        summarize([done, bad, info("t", RunStatus.RUNNING)])
        == "3 runs, 1 completed, 1 failed, 1 not ended: 4 of 9 units complete, 2 failed"
    )
