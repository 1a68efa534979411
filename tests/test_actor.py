"""The actor: an ordinary pykka actor, which lives through whatever it is told and asked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pykka
import pytest

from actorstore import (
    ActorStoreError,
    ActorThreadError,
    Event,
    Store,
    StoreActor,
    StoreClosedError,
    StoreFailedError,
    StoreTimeoutError,
)
from actorstore import state as state_module
from actorstore.handover import MAX_ITEMS
from tests.builders import (
    diamond,
    line,
    orch_completed,
    orch_started,
    task_started,
    unit_completed,
    unit_queued,
    unit_started,
    units,
)
from tests.threads import (
    ANSWERED,
    CALLS,
    SECONDS,
    doom,
    held,
    in_actor,
    inbox,
    is_alive,
    kill,
    open_questions,
    results,
    spawn,
    wait_until,
    waiting_producers,
)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


@pytest.fixture
def proxy() -> Iterator[Any]:
    """A `StoreActor` as anybody may start it."""
    proxy = StoreActor.start().proxy()
    yield proxy
    proxy.actor_ref.stop(timeout=SECONDS)


def ask(store: Store, question: Any, timeout: float | None = SECONDS) -> Any:
    """Ask the actor anything."""
    return store._mailbox.ask(question, timeout)


class Unspeakable:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


# Through a pykka proxy.


def test_the_proxy_answers_with_futures(proxy: Any) -> None:
    proxy.handle_event(orch_started(units("a")))
    proxy.handle_lines(line(unit_started("a")))
    assert proxy.snapshot().get(timeout=SECONDS).unit("a").status == "in_progress"


def test_nothing_that_can_change_leaves_through_the_proxy(store: Store) -> None:
    owned = in_actor(store, lambda actor: set(vars(actor)))
    assert {name for name in owned if not name.startswith(("_", "actor_"))} == set()


@pytest.mark.parametrize("bad", [None, 7, "text", b"{}", {"type": "x"}, Event, Unspeakable()], ids=type)
@pytest.mark.parametrize("method", ["handle_event", "handle_lines"])
def test_a_wrong_object_told_to_the_actor_is_counted_and_kills_nobody(
    proxy: Any, method: str, bad: object
) -> None:
    if method == "handle_lines" and isinstance(bad, bytes):
        bad = bytearray(bad)
    getattr(proxy, method).defer(bad)
    proxy.handle_event.defer(orch_started(units("a")))
    stats = proxy.stats().get(timeout=SECONDS)
    assert (stats.accepted, stats.rejected) == (1, 1)
    assert type(bad).__name__ in stats.rejections[0].reason


def test_a_reset_of_something_that_is_no_run_kills_nobody(proxy: Any) -> None:
    proxy.reset.defer(7)
    assert proxy.stats().get(timeout=SECONDS).accepted == 0


def test_a_message_that_nobody_knows_is_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store._mailbox._ref.tell({"what": "is this"})
    assert store.stats().faults == 0
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_actor_stops_with_its_reference_and_refuses_what_comes_after(proxy: Any) -> None:
    proxy.actor_ref.stop(timeout=SECONDS)
    with pytest.raises(pykka.ActorDeadError):
        proxy.snapshot().get(timeout=SECONDS)


# Rules that fail.


@pytest.mark.parametrize(("type", "table"), [("unit.queued", "UNIT_RULES"), ("orch.completed", "RUN_RULES")])
def test_a_rule_that_fails_is_a_fault_and_the_other_events_are_applied(
    store: Store,
    type: str,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setitem(getattr(state_module, table), type, fail)
    store.handle_event(orch_started(units("a")))
    for event in (unit_started("a"), Event(type, unit="a"), task_started("a")):
        store.handle_event(event)
    stats = store.stats()
    assert (stats.accepted, stats.rejected, stats.faults) == (4, 0, 1)
    unit = store.snapshot().unit("a")
    assert (unit.status, unit.current_task) == ("in_progress", 1)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "at version 3" in record.getMessage()
    assert "a bug of ours" in caplog.text


def test_a_rule_that_fails_over_an_opened_payload_is_a_fault_too(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setitem(state_module.RUN_RULES, "orch.started", fail)
    store.handle_event(orch_started(diamond()))
    assert store.stats().faults == 1
    assert "orch.started" in caplog.records[0].getMessage()


def test_faults_are_counted_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(state_module.UNIT_RULES, "unit.queued", lambda *_: [][0])
    store.handle_event(orch_started(units("a")))
    for number in range(1, 4):
        store.handle_event(unit_queued("a"))
        assert store.stats().faults == number


def test_a_log_that_fails_does_not_kill_the_actor(store: Store) -> None:
    class Broken(logging.Filter):
        def filter(self, _: logging.LogRecord) -> bool:
            raise ZeroDivisionError

    broken = Broken()
    logging.getLogger("actorstore").addFilter(broken)
    try:
        store.handle_lines(b"bad\n" + line(orch_started(units("a"))))
        assert store.flush(SECONDS).rejected == 1
    finally:
        logging.getLogger("actorstore").removeFilter(broken)
    assert store.snapshot().status == "running"


# Questions.


def test_a_question_that_fails_is_answered_with_the_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        ask(store, lambda actor: 1 / 0)
    assert store.stats().accepted == 0


def test_a_question_put_off_that_fails_later_is_answered_with_the_error(store: Store) -> None:
    store.handle_event(orch_started(units("a")))

    def question(actor: StoreActor) -> object:
        answer = actor.ended(None)
        return answer if actor._state.version == 1 else 1 / 0

    asked = spawn(ask, store, question)
    wait_until(lambda: open_questions(store) == 1)
    store.handle_event(orch_started(units("a")))
    with pytest.raises(ZeroDivisionError):
        asked.result(SECONDS)
    assert (open_questions(store), store.stats().accepted) == (0, 2)


def test_a_question_nobody_waits_for_any_more_is_forgotten(store: Store) -> None:
    store.handle_event(orch_started())
    for _ in range(3):
        with pytest.raises(StoreTimeoutError):
            store.wait(timeout=0.001)
    assert open_questions(store) == 0


def test_a_question_that_was_not_reached_in_time_is_forgotten_too(store: Store) -> None:
    store.handle_event(orch_started())
    with held(store), pytest.raises(StoreTimeoutError) as caught:
        store.wait(timeout=0.01)
    assert caught.value.waited == 0.01
    assert open_questions(store) == 0


def test_a_follower_that_is_dropped_leaves_nothing_behind(store: Store) -> None:
    store.handle_event(orch_started(units("a")))
    updates = store.subscribe()
    next(updates)
    coming = spawn(next, updates)
    wait_until(lambda: open_questions(store) == 1)
    store.handle_event(unit_started("a"))
    coming.result(SECONDS)
    del coming, updates
    assert open_questions(store) == 0


def test_many_who_wait_are_all_answered_by_one_event(store: Store) -> None:
    store.handle_event(orch_started())
    waiting = [spawn(store.wait) for _ in range(10)]
    wait_until(lambda: open_questions(store) == 10)
    store.handle_event(orch_completed())
    assert {snapshot.version for snapshot in results(waiting)} == {2}


def test_a_change_of_connected_is_told_to_whoever_follows(store: Store) -> None:
    updates = store.subscribe()
    next(updates)
    coming = spawn(next, updates)
    wait_until(lambda: open_questions(store) == 1)
    store.set_connected(True)
    assert coming.result(SECONDS).connected is True


# From inside the actor's own thread.


@pytest.mark.parametrize("name", [*ANSWERED, "close"])
def test_a_call_from_inside_the_actor_that_would_wait_for_itself_raises(store: Store, name: str) -> None:
    store.handle_event(orch_started())
    store.snapshot()
    call = CALLS.get(name, lambda store: store.close())

    def question(_: StoreActor) -> object:
        try:
            return call(store)
        except ActorStoreError as error:
            return error

    answer = ask(store, question)
    assert isinstance(answer, ActorThreadError)
    assert "another thread" in str(answer)


def test_an_event_from_inside_the_actor_is_applied_or_raises_but_never_waits(store: Store) -> None:
    def question(_: StoreActor) -> int:
        handed_over = 0
        try:
            for _ in range(2 * MAX_ITEMS):
                store.handle_event(unit_queued("a"))
                handed_over += 1
        except ActorThreadError:
            pass
        return handed_over

    handed_over = ask(store, question)
    assert handed_over < MAX_ITEMS
    assert store.flush(SECONDS).accepted in (handed_over, handed_over + 1)


# Death.


@pytest.mark.parametrize("name", CALLS)
def test_every_call_to_a_dead_actor_says_so(name: str) -> None:
    with Store() as store:
        kill(store)
        with pytest.raises(StoreFailedError, match="has died"):
            CALLS[name](store)
    assert not is_alive(store)


def test_closing_after_the_actor_has_died_ends_well() -> None:
    store = Store()
    kill(store)
    store.close()
    store.close()
    with pytest.raises(StoreFailedError):
        store.snapshot()


def test_whoever_waits_hears_that_the_actor_has_died() -> None:
    with Store() as store:
        store.handle_event(orch_started(units("a")))
        updates = store.subscribe()
        next(updates)
        waiting = [spawn(store.wait), spawn(next, updates)]
        wait_until(lambda: open_questions(store) == 2)
        kill(store)
        for each in waiting:
            assert isinstance(each.exception(SECONDS), StoreFailedError)


def test_whoever_asked_when_the_actor_died_hears_it() -> None:
    with Store() as store:
        doom(store)
        with held(store):
            store.handle_event(unit_queued("a"))
            asked = [spawn(CALLS[name], store) for name in ("snapshot", "flush", "stats", "runs")]
            wait_until(lambda: inbox(store) == 5)
        for each in asked:
            assert isinstance(each.exception(SECONDS), StoreFailedError)


def test_producers_that_wait_for_room_are_let_go_when_the_actor_dies() -> None:
    with Store() as store:
        doom(store)
        with held(store):
            for _ in range(MAX_ITEMS - 1):
                store.handle_event(unit_queued("a"))
            producers = [spawn(store.handle_event, unit_queued("a")) for _ in range(3)]
            wait_until(lambda: waiting_producers(store) == 3)
        results(producers)
        wait_until(lambda: not is_alive(store))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_question_that_exits_hangs_nobody_and_harms_no_other_store(error: type[BaseException]) -> None:
    def question(_: StoreActor) -> None:
        raise error

    with Store() as bystander, Store() as store:
        bystander.handle_event(orch_started(units("a")))
        waiting = spawn(bystander.wait)
        wait_until(lambda: open_questions(bystander) == 1)
        asked = spawn(ask, store, question)
        assert isinstance(asked.exception(SECONDS), (error, StoreClosedError))
        bystander.handle_event(unit_completed("a"))
        bystander.handle_event(orch_completed())
        assert waiting.result(SECONDS).summary.complete == 1


def test_the_actor_has_a_thread_of_its_own(store: Store) -> None:
    assert in_actor(store, lambda _: threading.current_thread()) is not threading.current_thread()
    assert in_actor(store, lambda _: threading.current_thread().daemon)
