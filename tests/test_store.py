"""The store as its users hold it: back-pressure, read your writes, timeouts, and what is refused."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from actorstore import (
    Event,
    InvalidEventError,
    Store,
    StoreClosedError,
    StoreTimeoutError,
    UnknownRunError,
)
from actorstore.handover import MAX_BYTES, MAX_ITEMS
from actorstore.intake import KEPT_REJECTIONS, Intake
from actorstore.wire import CHUNK_BYTES
from tests.builders import (
    check_snapshot,
    diamond,
    line,
    lines,
    orch_completed,
    orch_started,
    task_started,
    unit_completed,
    unit_queued,
    unit_started,
    units,
)
from tests.raw import close_before
from tests.threads import (
    CALLS,
    SECONDS,
    applied,
    held,
    in_actor,
    inbox,
    is_idle,
    open_questions,
    python,
    results,
    spawn,
    wait_until,
    waiting_producers,
)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


def pending(store: Store) -> int:
    """Events handed over and not yet applied, as one learns who does not wait for the actor."""
    with pytest.raises(StoreTimeoutError) as caught:
        store.flush(timeout=0)
    return caught.value.pending


# Back-pressure.


def test_a_producer_that_runs_ahead_stops_at_the_bound_and_goes_on_after(store: Store) -> None:
    handed_over = itertools.count()

    def produce() -> None:
        for _ in range(3 * MAX_ITEMS):
            store.handle_event(unit_queued("a"))
            next(handed_over)

    with held(store):
        producer = spawn(produce)
        wait_until(lambda: waiting_producers(store) == 1)
        assert pending(store) == MAX_ITEMS
        assert not producer.done()
    producer.result(SECONDS)
    assert store.flush(SECONDS).accepted == 3 * MAX_ITEMS == next(handed_over)


@pytest.mark.parametrize("fat", [1_000, 60_000, MAX_BYTES])
def test_a_producer_of_fat_events_stops_at_the_bound_in_bytes(store: Store, fat: int) -> None:
    event = Event("x", payload="x" * fat)
    count = 3 * MAX_BYTES // fat + 1
    with held(store):
        producer = spawn(lambda: [store.handle_event(event) for _ in range(count)])
        wait_until(lambda: waiting_producers(store) == 1)
        assert MAX_BYTES <= pending(store) * len(event.payload) < MAX_BYTES + len(event.payload)
    producer.result(SECONDS)
    assert store.flush(SECONDS).accepted == count


def test_a_producer_of_lines_stops_at_the_bound_in_bytes(store: Store) -> None:
    each = line(task_started("a"))
    count = 3 * MAX_BYTES // len(each)
    with held(store):
        producer = spawn(store.handle_lines, each * count)
        wait_until(lambda: waiting_producers(store) == 1)
        assert MAX_BYTES <= pending(store) * len(each) < MAX_BYTES + CHUNK_BYTES
    producer.result(SECONDS)
    assert store.flush(SECONDS).accepted == count


def test_all_of_many_producers_stop_and_go_on(store: Store) -> None:
    def produce() -> None:
        for _ in range(MAX_ITEMS):
            store.handle_event(unit_queued("a"))

    with held(store):
        producers = [spawn(produce) for _ in range(4)]
        wait_until(lambda: waiting_producers(store) == 4)
        assert MAX_ITEMS <= pending(store) < MAX_ITEMS + 4
    results(producers)
    assert store.flush(SECONDS).accepted == 4 * MAX_ITEMS


def test_who_hands_over_once_and_never_comes_back_strands_nobody(store: Store) -> None:
    with held(store):
        for _ in range(MAX_ITEMS - 1):
            store.handle_event(unit_queued("a"))
        producers = [spawn(store.handle_event, unit_queued("a")) for _ in range(20)]
        wait_until(lambda: waiting_producers(store) == 20)
    results(producers)
    assert store.flush(SECONDS).accepted == MAX_ITEMS - 1 + 20


def test_questions_wait_for_no_room(store: Store) -> None:
    with held(store):
        producer = spawn(lambda: [store.handle_event(unit_queued("a")) for _ in range(MAX_ITEMS + 1)])
        wait_until(lambda: waiting_producers(store) == 1)
        asked = spawn(store.stats)
        wait_until(lambda: inbox(store) == 2)
    assert asked.result(SECONDS).accepted >= MAX_ITEMS
    producer.result(SECONDS)


def test_queries_are_answered_in_the_midst_of_a_flood(store: Store) -> None:
    store.handle_event(orch_started(units("a", "b")))
    enough = threading.Event()

    def flood(unit: str) -> None:
        while not enough.is_set():
            store.handle_event(task_started(unit))

    producers = [spawn(flood, "a"), spawn(flood, "b")]
    try:
        wait_until(lambda: store.stats().accepted > MAX_ITEMS)
        versions = []
        for _ in range(25):
            versions.append(check_snapshot(store.snapshot()).version)
            versions.append(store.stats().version)
        assert not any(producer.done() for producer in producers)
    finally:
        enough.set()
    results(producers)
    assert versions == sorted(versions)


def test_what_is_not_yet_applied_is_pending(store: Store) -> None:
    with held(store):
        store.handle_event(orch_started())
        store.handle_lines(lines(unit_queued("a"), unit_queued("a")))
        assert pending(store) == 3
    assert store.stats().pending == 0
    assert store.stats().accepted == 3


def test_what_comes_in_while_a_question_is_answered_is_pending(store: Store) -> None:
    """`stats()` applies what lies there first, so this looks at it from inside."""

    def question(actor: object) -> int:
        store.handle_event(unit_queued("a"))
        store.handle_lines(b"\n\n" + line(unit_queued("a")))
        return actor._intake.pending()

    assert in_actor(store, question) == 4
    assert store.stats().pending == 0


# Read your writes, without waking the actor.


def test_a_snapshot_of_a_store_at_rest_does_not_wake_the_actor(store: Store) -> None:
    store.handle_event(orch_started(diamond()))
    first = store.snapshot()
    by_id = store.snapshot("")
    wait_until(lambda: is_idle(store))
    with held(store):
        assert store.snapshot(timeout=0) is first
        assert store.snapshot("", timeout=0) is by_id
        assert store.snapshot(timeout=0).json() is first.json()


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.handle_event(task_started("a")),
        lambda store: store.handle_event(Event("anything", payload={"x": 1})),
        lambda store: store.handle_lines(line(task_started("a"))),
        lambda store: store.reset(),
    ],
    ids=["event", "event with a payload", "line", "reset"],
)
@pytest.mark.parametrize(
    "between",
    [lambda store: None, Store.flush, Store.stats, Store.runs],
    ids=["at once", "after flush", "after stats", "after runs"],
)
def test_a_snapshot_is_never_stale(
    store: Store, change: Callable[[Store], object], between: Callable[[Store], object]
) -> None:
    store.handle_event(orch_started(units("a")))
    for version in range(2, 30):
        assert store.snapshot().version == version - 1
        change(store)
        between(store)
        assert store.snapshot().version == version


def test_a_snapshot_is_not_stale_in_another_thread(store: Store) -> None:
    store.handle_event(orch_started(units("a")))
    for version in range(2, 30):
        store.snapshot()
        spawn(store.handle_event, task_started("a")).result(SECONDS)
        assert store.snapshot().version == version
        assert spawn(store.snapshot).result(SECONDS).version == version


def in_actor_thread() -> bool:
    """Whether this is the thread of some actor."""
    return threading.current_thread().name.startswith("StoreActor")


def test_a_snapshot_is_not_stale_where_the_actor_applies_and_rests_between_two_looks(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller has compared versions; the actor applies and falls asleep; the caller sees it asleep."""
    store.handle_event(orch_started(units("a")))
    store.snapshot()
    wait_until(lambda: is_idle(store))
    with ExitStack() as stack:
        stack.enter_context(held(store))
        store.handle_event(task_started("a"))
        board = store._mailbox._board

        class Slow(type(board)):
            @property
            def version(self) -> int:
                seen = vars(self)["version"]
                if not in_actor_thread():
                    stack.close()
                    wait_until(lambda: is_idle(store))
                return seen

            @version.setter
            def version(self, version: int) -> None:
                vars(self)["version"] = version

        monkeypatch.setattr(board, "__class__", Slow)
        asked = spawn(store.snapshot)
        wait_until(lambda: asked.done() or inbox(store) == 2)
    assert asked.result(SECONDS).version == 2


@pytest.mark.parametrize("said", ["asleep", "idle"])
def test_a_snapshot_is_not_stale_while_the_actor_lies_down(
    store: Store, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actor is about to sleep; an event comes in; it says that it sleeps, and then looks again."""
    store.handle_event(orch_started(units("a")))
    store.snapshot()
    wait_until(lambda: is_idle(store))
    tired, lie_down, lying, look = (threading.Event() for _ in range(4))

    class Slow(Intake):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "asleep" and value is True and in_actor_thread():
                tired.set()
                lie_down.wait(SECONDS)
            super().__setattr__(name, value)
            if name == said and value is True and in_actor_thread():
                lying.set()
                look.wait(SECONDS)

    with held(store):
        spawn(in_actor, store, lambda actor: actor.snapshot())
        wait_until(lambda: inbox(store) == 1)
        store.handle_event(task_started("a"))
        monkeypatch.setattr(store._intake, "__class__", Slow)
    assert tired.wait(SECONDS)
    store.handle_event(task_started("a"))
    lie_down.set()
    assert lying.wait(SECONDS)
    asked = spawn(store.snapshot)
    wait_until(lambda: asked.done() or inbox(store) == 1)
    look.set()
    assert asked.result(SECONDS).version == 3


def test_connected_is_never_stale(store: Store) -> None:
    store.handle_event(orch_started())
    for number in range(20):
        connected = number % 2 == 0
        store.set_connected(connected)
        assert store.snapshot().connected is connected
        assert store.snapshot().connected is connected
        assert spawn(store.snapshot).result(SECONDS).connected is connected


# Time.


@pytest.mark.parametrize("name", ["snapshot", "graph", "runs", "flush", "wait"])
def test_who_gives_up_waiting_hears_it_and_loses_nothing(store: Store, name: str) -> None:
    with held(store):
        store.handle_event(orch_started(units("a")))
        store.handle_event(unit_started("a"))
        with pytest.raises(StoreTimeoutError, match="2 events are handed over") as caught:
            getattr(store, name)(timeout=0.01)
    assert (caught.value.waited, caught.value.pending) == (0.01, 2)
    assert isinstance(caught.value, TimeoutError)
    assert store.flush(SECONDS).accepted == 2
    assert open_questions(store) == 0


def test_no_time_at_all_is_enough_for_nothing_but_what_is_known(store: Store) -> None:
    store.handle_event(orch_started())
    with held(store), pytest.raises(StoreTimeoutError):
        store.snapshot(timeout=0)
    store.snapshot()
    wait_until(lambda: is_idle(store))
    assert store.snapshot(timeout=0).version == 1


def test_a_wait_is_as_long_as_it_was_told(store: Store) -> None:
    store.handle_event(orch_started())
    begin = time.monotonic()
    with pytest.raises(StoreTimeoutError):
        store.wait(timeout=0.7)
    assert time.monotonic() - begin >= 0.7


def test_who_waits_without_a_limit_outlasts_a_busy_actor(store: Store) -> None:
    store.handle_event(orch_started())
    with held(store):
        waiting = spawn(store.wait)
        wait_until(lambda: inbox(store) >= 1)
        store.handle_event(orch_completed())
    assert waiting.result(SECONDS).status == "completed"


# What is refused.


@pytest.mark.parametrize(
    "wrong", ["unit.queued", b"{}", None, 7, {"type": "unit.queued"}, Event, [Event("x")]]
)
def test_what_is_no_event_raises_where_it_is_handed_over(store: Store, wrong: object) -> None:
    with pytest.raises(TypeError, match=type(wrong).__name__):
        store.handle_event(wrong)
    assert (store.stats().accepted, store.stats().rejected) == (0, 0)


@pytest.mark.parametrize("wrong", ["text", bytearray(b"{}\n"), memoryview(b"{}\n"), None, 7, [b"{}\n"]])
def test_what_is_not_bytes_raises_where_it_is_handed_over(store: Store, wrong: object) -> None:
    with pytest.raises(TypeError, match=type(wrong).__name__):
        store.handle_lines(wrong)
    assert (store.stats().accepted, store.stats().rejected) == (0, 0)


def test_a_run_that_is_no_text_raises_where_it_is_reset(store: Store) -> None:
    with pytest.raises(InvalidEventError, match="run"):
        store.reset(7)
    with pytest.raises(InvalidEventError, match="unit"), store.unit(7):
        pytest.fail("the block must not run")
    assert store.stats().accepted == 0


def test_the_last_few_rejections_are_shown_oldest_first(store: Store) -> None:
    store.handle_lines(b"bad\n" * (KEPT_REJECTIONS + 4))
    stats = store.stats()
    assert stats.rejected == KEPT_REJECTIONS + 4
    assert [each.line for each in stats.rejections] == list(range(5, KEPT_REJECTIONS + 5))


def test_a_flood_of_bad_lines_logs_one_warning_and_it_is_harmless(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorstore.throttle.time", SimpleNamespace(monotonic=lambda: 100.0))
    evil = b"\x1b]0;owned\x07\x1b[2J\r\xc2\x9b31m \xe2\x80\xae" + b"!" * 500
    store.handle_lines(evil + b"\n" + b"bad\n" * 500)
    assert in_actor(store, lambda actor: actor.flush()).rejected == 501
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("actorstore", logging.WARNING)
    message = record.getMessage()
    assert message.startswith("rejected line 1: ")
    assert r"\x1b]0;owned" in message
    assert message.isprintable()
    assert len(message) < 400


def test_a_line_over_the_limit_is_refused_and_the_others_are_not() -> None:
    with Store(max_line_bytes=200) as store:
        fat = line(Event("x", payload="x" * 300))
        store.handle_lines(line(orch_started()) + fat + line(unit_queued("a")))
        store.handle_event(Event("x", payload="x" * 300))
        assert (store.flush(SECONDS).accepted, store.flush(SECONDS).rejected) == (2, 2)
        assert ["at most 200" in each.reason for each in store.stats().rejections] == [True, True]


def test_a_line_longer_than_a_chunk_stands_in_its_order(store: Store) -> None:
    graph = units(*[f"unit-{number:05}" for number in range(3 * CHUNK_BYTES // 20)])
    first = next(iter(graph))
    started = line(orch_started(graph))
    assert len(started) > CHUNK_BYTES
    store.handle_lines(line(orch_started(units("x"))) + started + line(unit_started(first)))
    snapshot = store.snapshot()
    assert (snapshot.summary.total, snapshot.summary.in_progress) == (len(graph), 1)
    assert snapshot.unit(first).attempts == 1


def test_many_chunks_of_lines_are_applied_in_order(store: Store) -> None:
    store.handle_event(orch_started(units("a")))
    count = 4 * CHUNK_BYTES // len(line(task_started("a", 1)))
    data = b"".join(
        b"bad\n" if number % 500 == 0 else line(task_started("a", number)) for number in range(1, count + 1)
    )
    store.handle_lines(data)
    assert store.snapshot().unit("a").current_task == count - (count % 500 == 0)
    assert store.flush(SECONDS).rejected == count // 500
    assert [each.line for each in store.stats().rejections][-1] == count // 500 * 500


# The rest.


def test_a_store_follows_what_happens_without_being_asked(store: Store) -> None:
    """Events are applied when they come, not only when somebody asks."""
    state = in_actor(store, lambda actor: actor._state)
    store.handle_event(orch_started(units("a")))
    wait_until(lambda: state.version == 1)
    store.handle_lines(line(unit_completed("a")))
    wait_until(lambda: state.version == 2)


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The threads of new actors take their time: they begin when this is set."""
    begin = threading.Event()
    original = threading.Thread.run

    def late(thread: threading.Thread) -> None:
        if in_actor_thread():
            begin.wait(SECONDS)
        original(thread)

    monkeypatch.setattr(threading.Thread, "run", late)
    yield begin
    begin.set()


def test_an_event_handed_over_before_the_actor_has_started_is_applied(begin: threading.Event) -> None:
    with Store() as store:
        store.handle_event(orch_started(units("a")))
        begin.set()
        wait_until(lambda: is_idle(store))
        assert store._intake.items == []


def test_closing_before_the_actor_has_started_waits_and_applies(begin: threading.Event) -> None:
    store = Store()
    store.handle_event(orch_started(units("a")))
    with pytest.raises(StoreTimeoutError):
        store.close(timeout=0.01)
    begin.set()
    store.close()
    assert store._intake.items == []


def test_stores_know_nothing_of_each_other() -> None:
    with Store() as one, Store() as two:
        one.handle_event(orch_started(units("a")))
        two.set_connected(True)
        assert (one.snapshot().version, one.snapshot().connected) == (1, False)
        assert (two.snapshot().version, two.snapshot().connected) == (0, True)


def test_an_unknown_run_leaves_nothing_behind(store: Store) -> None:
    for name in ("snapshot", "graph", "subscribe", "wait"):
        with pytest.raises(UnknownRunError):
            getattr(store, name)("nobody")
    assert open_questions(store) == 0


def test_the_repr_is_one_line_and_says_whether_it_is_closed() -> None:
    store = Store()
    assert "closed" not in repr(store)
    store.close()
    assert "closed" in repr(store)


def test_every_call_works_on_a_store_that_is_open(store: Store) -> None:
    store.handle_event(orch_started(units("a")))
    store.handle_event(orch_completed())
    for call in CALLS.values():
        if call is not CALLS["reset"]:
            call(store)


INTERRUPTED = """
import random, signal, sys, time
from actorstore import Event, Store, StoreTimeoutError

class Interrupted(BaseException): pass

def interrupt(*_): raise Interrupted

drawn = random.Random(int(sys.argv[1]))
signal.signal(signal.SIGALRM, interrupt)
with Store() as store:
    for _ in range(400):
        try:
            signal.setitimer(signal.ITIMER_REAL, drawn.uniform(0.00005, 0.0006))
            while True:
                store.handle_event(Event("x"))
                for _ in range(drawn.randrange(200)): pass
        except Interrupted:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        before = store.stats().accepted
        store.handle_event(Event("x"))
        end = time.monotonic() + 10
        while store._mailbox._board.version == before:
            assert time.monotonic() < end, "the actor sleeps on"
"""
"""Interrupts a producer at random moments, and looks whether the actor still wakes up for an event."""


def test_a_producer_that_is_interrupted_leaves_nobody_asleep_for_good() -> None:
    seed = os.environ.get("INTERRUPT_SEED", "1")
    result = python("-c", INTERRUPTED, seed)
    assert (result.returncode, result.stderr) == (0, ""), f"INTERRUPT_SEED={seed} repeats it"


@pytest.mark.parametrize("is_awaited", [False, True])
def test_lines_that_come_while_a_store_is_closed_are_counted_as_far_as_they_are_applied(
    is_awaited: bool,
) -> None:
    data = line(unit_queued("a")) * 5000
    with Store() as store:
        close_before(store._intake, 3)
        with pytest.raises(StoreClosedError, match="only the first") as caught:
            asyncio.run(store.aio.handle_lines(data)) if is_awaited else store.handle_lines(data)
        assert 0 < caught.value.handed < 5000
        wait_until(lambda: applied(store) == caught.value.handed)
        with pytest.raises(StoreClosedError, match="changed nothing"):
            store.handle_lines(data)
