"""The end of a store: closed, closed while feeding, forgotten, left at exit, forked, pickled."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import itertools
import multiprocessing
import os
import pickle
import select
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any

import pytest

from actorstore import (
    Event,
    ForkedStoreError,
    Store,
    StoreActor,
    StoreClosedError,
    StoreTimeoutError,
    UnitStatus,
)
from actorstore.handover import MAX_ITEMS
from tests.builders import (
    Follower,
    line,
    lines,
    orch_completed,
    orch_started,
    task_started,
    unit_completed,
    unit_failed,
    unit_queued,
    unit_started,
    units,
)
from tests.threads import (
    CALLS,
    SECONDS,
    held,
    in_actor,
    inbox,
    is_alive,
    open_questions,
    python,
    results,
    spawn,
    wait_until,
    waiting_producers,
)

# Closing.


def test_closing_applies_what_was_handed_over() -> None:
    store = Store()
    state = in_actor(store, lambda actor: actor._state)
    with held(store):
        store.handle_event(orch_started(units("a")))
        store.handle_lines(lines(unit_started("a"), task_started("a")) + b"bad\n")
        closing = spawn(store.close)
        wait_until(lambda: inbox(store) >= 2)
        store.handle_event(unit_completed("a"))
    closing.result(SECONDS)
    assert state.version == 4
    assert state.runs[""].snapshot(4, False).finish().unit("a").status == UnitStatus.COMPLETE


def one_by_one(store: Store) -> int:
    store.handle_event(unit_queued("a"))
    return 1


def with_an_error(store: Store) -> int:
    store.handle_event(unit_failed("a", "boom"))
    return 1


def with_a_payload(store: Store) -> int:
    store.handle_event(Event("unit.started", unit="a", payload={"total_tasks": 3}))
    return 1


def in_lines(store: Store) -> int:
    store.handle_lines(lines(unit_started("a"), task_started("a"), unit_completed("a")))
    return 3


@pytest.mark.parametrize("patience", [0, 300, 3 * MAX_ITEMS])
def test_closing_while_four_threads_feed_loses_nothing_that_was_taken(patience: int) -> None:
    store = Store()
    state = in_actor(store, lambda actor: actor._state)
    store.handle_event(orch_started(units("a")))

    def feed(hand_over: Callable[[Store], int]) -> int:
        taken = 0
        try:
            while True:
                taken += hand_over(store)
        except StoreClosedError:
            pass
        for _ in range(3):
            with pytest.raises(StoreClosedError):
                hand_over(store)
        return taken

    feeders = [spawn(feed, each) for each in (one_by_one, with_an_error, with_a_payload, in_lines)]
    wait_until(lambda: state.version > patience)
    store.close(SECONDS)
    assert state.version == 1 + sum(results(feeders))
    assert store._intake.items == []


def test_the_same_event_handed_over_by_many_threads_is_counted_exactly() -> None:
    store = Store()
    state = in_actor(store, lambda actor: actor._state)
    event = unit_queued("a")

    def feed() -> int:
        for taken in itertools.count():
            try:
                store.handle_event(event)
            except StoreClosedError:
                return taken
        raise AssertionError

    feeders = [spawn(feed) for _ in range(4)]
    wait_until(lambda: state.version > 100)
    store.close(SECONDS)
    assert state.version == sum(results(feeders))


def test_closing_lets_producers_go_that_wait_for_room() -> None:
    store = Store()
    state = in_actor(store, lambda actor: actor._state)
    with held(store):
        producers = [
            spawn(lambda: [store.handle_event(unit_queued("a")) for _ in range(MAX_ITEMS)]) for _ in range(3)
        ]
        wait_until(lambda: waiting_producers(store) == 3)
        closing = spawn(store.close)
        wait_until(lambda: inbox(store) >= 2)
    closing.result(SECONDS)
    for producer in producers:
        assert producer.exception(SECONDS) is None or isinstance(producer.exception(), StoreClosedError)
    assert MAX_ITEMS <= state.version <= 3 * MAX_ITEMS


def test_closing_again_does_nothing() -> None:
    store = Store()
    store.close()
    store.close()
    store.close(timeout=0)
    with store:
        pass


def test_closing_from_many_threads_at_once_ends_in_all_of_them() -> None:
    store = Store()
    with held(store):
        closing = [spawn(store.close) for _ in range(5)]
        wait_until(lambda: inbox(store) >= 5)
        assert not any(each.done() for each in closing)
    results(closing)
    assert not is_alive(store)


def test_closing_in_no_time_says_so_and_goes_on() -> None:
    store = Store()
    state = in_actor(store, lambda actor: actor._state)
    with held(store):
        store.handle_event(orch_started())
        with pytest.raises(StoreTimeoutError, match="1 events") as caught:
            store.close(timeout=0.01)
        assert caught.value.pending == 1
    store.close()
    assert state.version == 1
    with pytest.raises(StoreClosedError):
        store.snapshot()


def test_leaving_the_block_closes_also_over_an_error() -> None:
    def work() -> None:
        with store:
            raise KeyError("mine")

    store = Store()
    with pytest.raises(KeyError, match="mine"):
        work()
    assert not is_alive(store)


@pytest.mark.parametrize("name", CALLS)
def test_every_call_after_closing_raises(name: str) -> None:
    store = Store()
    store.handle_event(orch_started(units("a")))
    store.snapshot()
    store.snapshot("")
    store.close()
    with pytest.raises(StoreClosedError, match="closed"):
        CALLS[name](store)


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"unit"}))
def test_every_awaited_call_after_closing_raises(name: str) -> None:
    async def call() -> None:
        result = CALLS[name](store.aio)
        if inspect.isasyncgen(result):
            await anext(result)
        else:
            await result

    store = Store()
    store.handle_event(orch_started(units("a")))
    store.snapshot()
    store.close()
    with pytest.raises(StoreClosedError, match="closed"):
        asyncio.run(call())


def test_an_awaited_unit_after_closing_raises() -> None:
    async def work() -> None:
        async with store.aio.unit("a"):
            pytest.fail("the block must not run")

    store = Store()
    store.close()
    with pytest.raises(StoreClosedError):
        asyncio.run(work())


def test_a_coroutine_may_close_again() -> None:
    async def close() -> None:
        await store.aio.close()
        async with store.aio:
            pass

    store = Store()
    store.close()
    asyncio.run(close())


def test_a_question_asked_while_the_store_closes_is_answered_or_raises() -> None:
    store = Store()
    store.handle_event(orch_started())
    with held(store):
        before = spawn(store.stats)
        wait_until(lambda: inbox(store) >= 1)
        closing = spawn(store.close)
        wait_until(lambda: inbox(store) >= 2)
        behind = [spawn(store.stats), spawn(store.wait)]
        wait_until(lambda: inbox(store) >= 4)
    closing.result(SECONDS)
    assert before.result(SECONDS).accepted == 1
    for each in behind:
        assert isinstance(each.exception(SECONDS), StoreClosedError)


def test_who_waits_for_a_run_that_ends_with_the_last_event_gets_it() -> None:
    store = Store()
    store.handle_event(orch_started(units("a")))
    waiting = spawn(store.wait)
    wait_until(lambda: open_questions(store) == 1)
    with held(store):
        closing = spawn(store.close)
        wait_until(lambda: inbox(store) >= 1)
        store.handle_event(orch_completed())
    closing.result(SECONDS)
    assert waiting.result(SECONDS).status == "completed"


def test_a_follower_that_waits_sees_the_last_change_and_the_end() -> None:
    store = Store()
    store.handle_event(orch_started(units("a")))
    follower = Follower()

    def follow() -> None:
        for update in store.subscribe():
            follower.take(update)

    following = spawn(follow)
    wait_until(lambda: open_questions(store) == 1)
    with held(store):
        closing = spawn(store.close)
        wait_until(lambda: inbox(store) >= 1)
        store.handle_event(unit_completed("a"))
        store.handle_event(orch_completed())
    closing.result(SECONDS)
    following.result(SECONDS)
    assert follower.snapshot().status == "completed"
    assert follower.snapshot().version == 3


def test_a_follower_that_is_busy_at_the_end_still_sees_the_last_change() -> None:
    store = Store()
    store.handle_event(orch_started(units("a")))
    updates = store.subscribe()
    follower = Follower().take(next(updates))
    store.handle_event(unit_completed("a"))
    store.handle_event(orch_completed())
    store.close()
    for update in updates:
        follower.take(update)
    assert follower.snapshot().version == 3


def test_a_follower_that_asks_while_the_last_events_are_applied_still_sees_them() -> None:
    store = Store()
    store.handle_event(orch_started(units("a")))
    updates = store.subscribe()
    next(updates)
    go_on = threading.Event()

    def apply_slowly(actor: StoreActor) -> None:
        apply = actor._state.apply
        actor._state.apply = lambda events: (go_on.wait(SECONDS), apply(events))

    in_actor(store, apply_slowly)
    with held(store):
        closing = spawn(store.close)
        wait_until(lambda: inbox(store) >= 1)
        store.handle_event(unit_completed("a"))
    wait_until(lambda: store._intake.closed)
    following = spawn(list, updates)
    wait([following], timeout=0.2)  # time enough to end too early
    go_on.set()
    closing.result(SECONDS)
    assert [update.units[0].status for update in following.result(SECONDS)] == ["complete"]


def test_who_closes_when_the_actor_has_just_ended_does_not_hang() -> None:
    """He has seen it alive, and his message comes after the last one that it reads."""
    store = Store()
    ref = store._mailbox._ref
    inbox = ref.actor_inbox

    class Late:
        def put(self, envelope: object) -> None:
            ref.actor_inbox = inbox
            spawn(store.close).result(SECONDS)
            inbox.put(envelope)

    ref.actor_inbox = Late()
    spawn(store.close).result(SECONDS)


def test_answers_outlive_their_store() -> None:
    with Store() as store:
        store.handle_event(orch_started(units("a")))
        snapshot, graph, update = store.snapshot(), store.graph(), next(store.subscribe())
    assert snapshot.unit("a").status == "pending"
    assert b'"a"' in snapshot.json()
    assert graph.levels == (("a",),)
    assert update.units == snapshot.units


# Forgotten.


def forget(use: Callable[[Store], object]) -> threading.Thread:
    """Use a store, and forget it; returns the thread of its actor."""
    store = Store()
    use(store)
    thread = in_actor(store, lambda _: threading.current_thread())
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None, "somebody keeps it"
    return thread


def give_up_waiting(store: Store) -> None:
    store.handle_event(orch_started())
    with pytest.raises(StoreTimeoutError):
        store.wait(timeout=0.001)


@pytest.mark.parametrize(
    "use",
    [
        lambda store: None,
        lambda store: store.handle_event(orch_started(units("a"))),
        lambda store: store.snapshot(),
        lambda store: next(store.subscribe()),
        lambda store: store.aio,
        give_up_waiting,
    ],
    ids=["nothing", "events", "a snapshot", "a subscription", "coroutines", "a wait that was given up"],
)
def test_a_store_that_is_forgotten_warns_and_ends_whatever_it_was_used_for(
    use: Callable[[Store], object],
) -> None:
    with pytest.warns(ResourceWarning, match="was not closed"):
        thread = forget(use)
    wait_until(lambda: not thread.is_alive())


def test_a_forgotten_store_ends_also_where_warnings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    monkeypatch.setattr(sys, "excepthook", lambda *args: unraisable.append(args))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        thread = forget(Store.stats)
    unraisable.clear()
    wait_until(lambda: not thread.is_alive())


def test_a_store_that_was_closed_does_not_warn() -> None:
    store = Store()
    store.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del store
        gc.collect()


def test_a_follower_keeps_its_store() -> None:
    store = Store()
    store.handle_event(orch_started(units("a")))
    updates = store.subscribe()
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert next(updates).units[0].id == "a"
    gone().close()


# The end of the interpreter.

EXITS = {
    "nothing was handed over": "store = Store()",
    "events were handed over": "store = Store(); store.handle_event(Event('orch.started')); store.snapshot()",
    "events were handed over last": "store = Store(); [store.handle_event(Event('x')) for _ in range(9000)]",
    "a producer is still feeding": (
        "import threading\n"
        "store = Store()\n"
        "def feed():\n"
        "    while True: store.handle_event(Event('x'))\n"
        "threading.Thread(target=feed, daemon=True).start()\n"
        "store.flush()"
    ),
    "somebody follows": (
        "import threading\n"
        "store = Store(); store.handle_event(Event('orch.started'))\n"
        "threading.Thread(target=lambda: list(store.subscribe()), daemon=True).start()\n"
        "store.flush()"
    ),
    "the actor was started by hand": "StoreActor.start().proxy().snapshot().get()",
    "in a function": "def f(): store = Store(); store.handle_event(Event('x'))\nf()",
    "in a circle": "store = Store(); circle = [store]; circle.append(circle)",
}


@pytest.mark.parametrize("code", EXITS.values(), ids=EXITS)
def test_a_script_that_forgets_to_close_ends_by_itself(code: str) -> None:
    ended = python(code=f"from actorstore import Event, Store, StoreActor\n{code}\nprint('end')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")


@pytest.mark.parametrize("flags", [["-X", "dev"], ["-W", "always"], ["-W", "error"]], ids=" ".join)
def test_a_script_that_forgets_to_close_is_told_in_developer_mode(flags: list[str]) -> None:
    ended = python(*flags, code="from actorstore import Store\nstore = Store(); print(store.stats().version)")
    assert (ended.returncode, ended.stdout) == (0, "0\n")
    assert "ResourceWarning" in ended.stderr
    assert "was not closed" in ended.stderr


def test_a_script_that_closes_is_silent_in_developer_mode() -> None:
    code = "from actorstore import *\nwith Store() as store: store.handle_event(Event('orch.started'))"
    ended = python("-X", "dev", "-W", "error", code=code)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_store_may_be_a_global_that_is_closed_at_exit() -> None:
    code = """
import atexit
from actorstore import Event, Store
store = Store()
atexit.register(store.close)
atexit.register(lambda: print(store.snapshot().status))
store.handle_event(Event.orch_started({"a": []}))
"""
    ended = python("-X", "dev", code=code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "running\n", "")


# Forks.

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def in_forked_child(function: Callable[[], Any]) -> Any:
    """Run a function in a forked child, and return what it returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = function()
        except BaseException as error:
            answer = error
        os.write(writer, pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    try:
        with open(reader, "rb") as pipe:
            answered, _, _ = select.select([pipe], [], [], SECONDS)
            assert answered, "the child hangs"
            return pickle.loads(pipe.read())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def called_in_vain(store: Store) -> dict[str, str]:
    """What each call raises."""
    raised = {}
    for name, call in CALLS.items():
        try:
            call(store)
            raised[name] = "nothing"
        except Exception as error:
            raised[name] = type(error).__name__
    return raised


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        store.handle_event(orch_started(units("a")))
        store.snapshot()
        yield store


@needs_fork
def test_a_forked_child_is_told_by_every_call_at_once(store: Store) -> None:
    raised = in_forked_child(lambda: called_in_vain(store))
    assert raised == dict.fromkeys(CALLS, "ForkedStoreError")
    assert store.flush(SECONDS).accepted == 1


@needs_fork
def test_a_forked_child_is_told_who_owns_the_store_and_what_to_do(store: Store) -> None:
    error = in_forked_child(store.snapshot)
    assert isinstance(error, ForkedStoreError)
    assert error.owner == os.getpid()
    assert "listen=" in str(error)


@needs_fork
def test_a_forked_child_is_told_while_the_parent_is_in_the_midst_of_things(store: Store) -> None:
    """The parent's actor is busy, its intake full, and producers wait: nothing of it may hang the child."""
    with held(store):
        producers = [
            spawn(lambda: [store.handle_event(unit_queued("a")) for _ in range(MAX_ITEMS)]) for _ in range(2)
        ]
        wait_until(lambda: waiting_producers(store) == 2)
        raised = in_forked_child(lambda: called_in_vain(store))
    assert raised == dict.fromkeys(CALLS, "ForkedStoreError")
    results(producers)
    assert store.flush(SECONDS).accepted == 1 + 2 * MAX_ITEMS


@needs_fork
def test_a_forked_child_may_close_and_forget_the_store_and_the_parent_goes_on(store: Store) -> None:
    def work() -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.close()
            store.close(timeout=0)
        return repr(store)

    assert "closed" in in_forked_child(work)
    store.handle_event(unit_completed("a"))
    assert store.snapshot().unit("a").status == "complete"


@needs_fork
def test_a_forked_child_may_have_a_store_of_its_own(store: Store) -> None:
    def work() -> tuple[int, str]:
        with Store() as mine:
            mine.handle_event(orch_started(units("b")))
            mine.handle_lines(line(unit_completed("b")))
            return mine.flush(SECONDS).accepted, mine.snapshot().unit("b").status

    assert in_forked_child(work) == (2, "complete")
    assert store.stats().accepted == 1


@needs_fork
def test_a_follower_of_the_parent_ends_in_the_child(store: Store) -> None:
    updates = store.subscribe()
    next(updates)
    assert isinstance(in_forked_child(lambda: next(updates)), ForkedStoreError)
    store.handle_event(unit_started("a"))
    assert next(updates).units[0].status == "in_progress"


def report(store: Store, pipe: Any) -> None:
    """What a forked process does with the store that it was handed."""
    pipe.send(called_in_vain(store))


@needs_fork
def test_a_process_of_a_forking_pool_is_told(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=report, args=(store, there))
    process.start()
    assert here.poll(SECONDS)
    assert here.recv() == dict.fromkeys(CALLS, "ForkedStoreError")
    process.join(SECONDS)
    assert process.exitcode == 0
    process.close()
    here.close()
    there.close()
    assert store.stats().accepted == 1


@needs_fork
def test_a_forked_process_ends_without_a_word_about_the_store() -> None:
    code = """
import os
from actorstore import Event, Store
with Store() as store:
    store.handle_event(Event.orch_started({"a": []}))
    child = os.fork()
    if not child:
        raise SystemExit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), store.snapshot().status)
"""
    ended = python("-X", "dev", "-W", "ignore::DeprecationWarning", code=code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0 running\n", "")


# Pickles.


@pytest.mark.parametrize(
    "hand_over", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda each: each.__name__
)
def test_a_store_is_not_handed_to_another_process_and_says_what_to_do(
    store: Store, hand_over: Callable[[Store], object]
) -> None:
    with pytest.raises(TypeError, match=r"cannot be pickled.*Store\(listen=PATH\)"):
        hand_over(store)


def test_a_store_is_not_sent_to_a_spawned_process(store: Store) -> None:
    process = multiprocessing.get_context("spawn").Process(target=report, args=(store, None))
    with pytest.raises(TypeError, match="cannot be pickled"):
        process.start()
    process.close()


def test_nothing_that_runs_long_is_needed_to_open_and_close() -> None:
    """Two hundred stores, one after the other: none leaves a thread behind."""
    before = threading.active_count()
    end = time.monotonic() + SECONDS
    for number in range(200):
        with Store() as store:
            store.handle_event(orch_started())
            if number % 2:
                assert store.snapshot().version == 1
        assert time.monotonic() < end
    wait_until(lambda: threading.active_count() <= before)


# The end, seen by those who are late.


def test_a_subscription_that_is_first_read_after_closing_is_the_whole_run() -> None:
    store = Store()
    store.handle_event(orch_started(units("a")))
    updates = store.subscribe()
    store.handle_event(orch_completed())
    store.close()
    assert [update.status for update in updates] == ["completed"]


def test_who_waits_gets_the_end_that_a_long_last_batch_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorstore.mailbox.POLL_SECONDS", 0.01)
    store = Store()
    store.handle_event(orch_started(units("a")))
    waiting = spawn(store.wait)
    wait_until(lambda: open_questions(store) == 1)
    go_on = threading.Event()

    def apply_slowly(actor: StoreActor) -> None:
        apply = actor._state.apply
        actor._state.apply = lambda events: (go_on.wait(SECONDS), apply(events))

    in_actor(store, apply_slowly)
    with held(store):
        closing = spawn(store.close)
        wait_until(lambda: inbox(store) >= 1)
        store.handle_event(orch_completed())
    wait_until(lambda: store._intake.closed)
    wait([waiting], timeout=0.1)  # time enough to give up too early
    go_on.set()
    closing.result(SECONDS)
    assert waiting.result(SECONDS).status == "completed"
