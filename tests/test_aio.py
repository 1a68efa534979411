"""The store for coroutines: the loop goes on whatever the actor does, and nothing is left behind.

What its methods answer is in test_contract.py; here it is about waiting.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from actorstore import (
    Event,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreTimeoutError,
    UnknownRunError,
    connect,
)
from actorstore.handover import MAX_BYTES, MAX_ITEMS
from actorstore.wire import CHUNK_BYTES
from tests.builders import (
    Follower,
    diamond,
    line,
    orch_completed,
    orch_started,
    task_started,
    unit_completed,
    unit_queued,
    unit_started,
    units,
    whole_run,
)
from tests.raw import folder
from tests.threads import (
    ANSWERED,
    CALLS,
    SECONDS,
    held,
    inbox,
    is_idle,
    kill,
    open_questions,
    spawn,
    waiting_producers,
)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a loop of its own."""
    return asyncio.run(asyncio.wait_for(coroutine, SECONDS))


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, while the loop goes on."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.001)  # nothing tells when a condition comes true


async def turns(number: int = 50) -> None:
    """Let the loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)


async def call(store: Store, name: str) -> Any:
    """Call a method as a coroutine does; of a subscription, take the first update."""
    result = CALLS[name](store.aio)
    return await (anext(result) if inspect.isasyncgen(result) else result)


async def feed(store: Store, count: int) -> None:
    for _ in range(count):
        await store.aio.handle_event(unit_queued("a"))


# The loop goes on.


@pytest.mark.parametrize("name", [*ANSWERED, "close"])
def test_the_loop_goes_on_while_the_actor_is_busy(store: Store, name: str) -> None:
    async def work() -> object:
        with held(store):
            asked = asyncio.create_task(call(store, name) if name in CALLS else store.aio.close())
            await until(lambda: inbox(store))
            await turns()
            assert not asked.done()
        return await asked

    store.handle_lines(b"".join(map(line, whole_run(diamond()))))
    run(work())


def test_the_loop_goes_on_while_intake_is_full(store: Store) -> None:
    async def work() -> None:
        with held(store):
            feeding = asyncio.create_task(feed(store, 2 * MAX_ITEMS))
            await until(lambda: waiting_producers(store) == 1)
            await turns()
            assert not feeding.done()
        await feeding
        assert (await store.aio.flush()).accepted == 2 * MAX_ITEMS

    run(work())


def test_the_loop_goes_on_while_lines_wait_for_room(store: Store) -> None:
    data = line(task_started("a")) * (2 * MAX_BYTES // len(line(task_started("a"))))

    async def work() -> None:
        with held(store):
            feeding = asyncio.create_task(store.aio.handle_lines(data))
            await until(lambda: waiting_producers(store) == 1)
            await turns()
            assert not feeding.done()
        await feeding
        assert (await store.aio.flush()).accepted == data.count(b"\n")

    run(work())


def test_many_lines_let_others_run_in_between(store: Store) -> None:
    chunk = line(task_started("a")) * (CHUNK_BYTES // len(line(task_started("a"))))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def work() -> int:
        ticker = asyncio.create_task(tick())
        await asyncio.sleep(0)
        before = ticks
        await store.aio.handle_lines(5 * chunk)
        ticker.cancel()
        return ticks - before

    assert run(work()) >= 5


def test_a_large_event_and_a_long_line_are_taken_in_without_the_loop(store: Store) -> None:
    graph = units(*[f"unit-{number:05}" for number in range(CHUNK_BYTES // 10)])
    started = orch_started(graph)
    threads = set()

    class Watching(type(store._intake)):
        def put(self, event: Event) -> bool:
            threads.add(threading.current_thread())
            return super().put(event)

        def put_chunk(self, chunk: bytes) -> bool:
            threads.add(threading.current_thread())
            return super().put_chunk(chunk)

    store._intake.__class__ = Watching

    async def work() -> None:
        await store.aio.handle_event(started)
        await store.aio.handle_lines(line(started))
        assert (await store.aio.snapshot()).summary.total == len(graph)

    run(work())
    assert threading.current_thread() not in threads


def test_many_coroutines_that_hand_over_once_are_all_let_in(store: Store) -> None:
    async def work() -> None:
        with held(store):
            await feed(store, MAX_ITEMS - 1)
            producers = [asyncio.create_task(feed(store, 1)) for _ in range(20)]
            await until(lambda: waiting_producers(store) == 20)
        await asyncio.gather(*producers)
        assert (await store.aio.flush()).accepted == MAX_ITEMS - 1 + 20

    run(work())


def test_threads_and_coroutines_wait_in_one_line(store: Store) -> None:
    def produce() -> None:
        for _ in range(MAX_ITEMS):
            store.handle_event(unit_queued("a"))

    async def work() -> None:
        with held(store):
            threads = [spawn(produce) for _ in range(2)]
            coroutines = [asyncio.create_task(feed(store, MAX_ITEMS)) for _ in range(2)]
            await until(lambda: waiting_producers(store) == 4)
        await asyncio.gather(*coroutines, *map(asyncio.wrap_future, threads))
        assert (await store.aio.flush()).accepted == 4 * MAX_ITEMS

    run(work())


def test_a_loop_in_each_of_two_threads(store: Store) -> None:
    store.handle_event(orch_started(units("a", "b")))

    async def work(unit: str) -> None:
        for number in range(1, 100):
            await store.aio.handle_event(task_started(unit, number))
            assert (await store.aio.snapshot()).unit(unit).current_task == number

    for each in [spawn(run, work("a")), spawn(run, work("b"))]:
        each.result(SECONDS)
    assert store.stats().accepted == 1 + 2 * 99


# Cancelled.


@pytest.mark.parametrize("name", ANSWERED)
def test_a_question_that_is_cancelled_is_forgotten(store: Store, name: str) -> None:
    async def work() -> None:
        with held(store):
            asked = asyncio.create_task(call(store, name))
            await until(lambda: inbox(store))
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        await until(lambda: not inbox(store))

    store.handle_event(orch_started(units("a")))
    run(work())
    assert open_questions(store) == 0
    assert store.flush(SECONDS).accepted == 1


def test_a_wait_that_is_cancelled_leaves_nothing_behind(store: Store) -> None:
    async def work() -> None:
        waiting = [asyncio.create_task(store.aio.wait()) for _ in range(5)]
        await until(lambda: open_questions(store) == 5)
        for each in waiting[1:]:
            each.cancel()
        await until(lambda: open_questions(store) == 1)
        await store.aio.handle_event(orch_completed())
        assert (await waiting[0]).status == "completed"

    store.handle_event(orch_started())
    run(work())
    assert open_questions(store) == 0


def test_a_follower_that_is_cancelled_leaves_nothing_behind(store: Store) -> None:
    async def follow() -> None:
        async for _ in store.aio.subscribe():
            pass

    async def work() -> None:
        following = asyncio.create_task(follow())
        await until(lambda: open_questions(store) == 1)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    store.handle_event(orch_started())
    run(work())
    assert open_questions(store) == 0


def test_a_follower_that_breaks_off_leaves_nothing_behind(store: Store) -> None:
    async def work() -> None:
        updates = store.aio.subscribe()
        async for update in updates:
            assert update.units[0].id == "a"
            break
        await updates.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(updates)

    store.handle_event(orch_started(units("a")))
    run(work())
    assert open_questions(store) == 0


def test_a_producer_that_is_cancelled_leaves_the_line_and_strands_nobody(store: Store) -> None:
    async def work() -> None:
        with held(store):
            await feed(store, MAX_ITEMS - 1)
            producers = []
            for number in range(1, 6):
                producers.append(asyncio.create_task(feed(store, 2)))
                await until(lambda: waiting_producers(store) == number)
            for each in (producers[0], producers[1], producers[3]):
                each.cancel()
            await asyncio.wait([producers[0], producers[1], producers[3]])
            assert waiting_producers(store) == 2
        await asyncio.gather(producers[2], producers[4])

    run(work())
    assert waiting_producers(store) == 0
    assert store.flush(SECONDS).accepted == MAX_ITEMS - 1 + 5 + 2


def test_a_producer_that_is_cancelled_when_it_is_let_in_strands_nobody(store: Store) -> None:
    """The loop is busy while the actor lets the first one in, and then cancels it."""

    async def work() -> None:
        with held(store):
            await feed(store, MAX_ITEMS - 1)
            first = asyncio.create_task(feed(store, 1))
            await until(lambda: waiting_producers(store) == 1)
            second = asyncio.create_task(feed(store, 1))
            await until(lambda: waiting_producers(store) == 2)
        end = time.monotonic() + SECONDS
        while waiting_producers(store) == 2 and time.monotonic() < end:
            time.sleep(0.001)  # blocks the loop on purpose, until the actor has let the first one in
        first.cancel()
        await asyncio.wait([first])
        await second

    run(work())
    assert store.flush(SECONDS).accepted == MAX_ITEMS + 1


def test_a_unit_that_is_cancelled_has_failed(store: Store) -> None:
    async def job() -> None:
        async with store.aio.unit("a"):
            await asyncio.Event().wait()

    async def work() -> None:
        working = asyncio.create_task(job())
        await until(lambda: store.stats().accepted == 2)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    store.handle_event(orch_started(units("a")))
    run(work())
    unit = store.snapshot().unit("a")
    assert (unit.status, "CancelledError" in unit.error) == ("failed", True)


def test_a_unit_that_is_cancelled_while_intake_is_full_has_failed(store: Store) -> None:
    async def job(entered: asyncio.Event) -> None:
        async with store.aio.unit("a"):
            entered.set()
            await asyncio.Event().wait()

    async def work() -> None:
        entered = asyncio.Event()
        working = asyncio.create_task(job(entered))
        await entered.wait()
        with held(store):
            feeding = asyncio.create_task(feed(store, 2 * MAX_ITEMS))
            await until(lambda: waiting_producers(store) == 1)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            assert not feeding.done()
            feeding.cancel()

    store.handle_event(orch_started(units("a")))
    run(work())
    assert store.snapshot().unit("a").status == "failed"


# Time.


def test_a_wait_ends_in_time_and_leaves_nothing_behind(store: Store) -> None:
    store.handle_event(orch_started())
    with pytest.raises(StoreTimeoutError) as caught:
        run(store.aio.wait(timeout=0.01))
    assert caught.value.waited == 0.01
    assert open_questions(store) == 0


@pytest.mark.parametrize("name", ["snapshot", "graph", "runs", "flush", "wait"])
def test_who_gives_up_waiting_hears_it_and_loses_nothing(store: Store, name: str) -> None:
    async def work() -> None:
        with held(store):
            await store.aio.handle_event(orch_started())
            await getattr(store.aio, name)(timeout=0.01)

    with pytest.raises(StoreTimeoutError, match="1 events are handed over") as caught:
        run(work())
    assert (caught.value.waited, caught.value.pending) == (0.01, 1)
    assert open_questions(store) == 0
    assert store.flush(SECONDS).accepted == 1


def test_the_time_limit_of_the_caller_is_the_callers(store: Store) -> None:
    async def work() -> None:
        async with asyncio.timeout(0.01):
            await store.aio.wait(timeout=SECONDS)

    store.handle_event(orch_started())
    with pytest.raises(TimeoutError) as caught:
        run(work())
    assert not isinstance(caught.value, StoreTimeoutError)
    assert open_questions(store) == 0


def test_a_snapshot_of_a_store_at_rest_needs_no_actor(store: Store) -> None:
    async def work() -> None:
        first = await store.aio.snapshot()
        await until(lambda: is_idle(store))
        with held(store):
            assert await store.aio.snapshot(timeout=0) is first

    store.handle_event(orch_started(diamond()))
    run(work())


# The end.


def test_a_loop_that_is_closed_before_the_answer_harms_nobody(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "asyncio")  # it says that tasks were destroyed, which is the point
    store.handle_event(orch_started(units("a")))
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(store.aio.wait())
    following = loop.create_task(anext(store.aio.subscribe()))
    while open_questions(store) < 1 or not following.done():
        loop.run_until_complete(turns(1))
    loop.close()
    store.handle_event(unit_completed("a"))
    store.handle_event(orch_completed())
    assert store.wait(timeout=SECONDS).status == "completed"
    assert open_questions(store) == 0
    del waiting, following
    gc.collect()
    assert store.stats().accepted == 3


def test_a_producer_whose_loop_is_closed_while_it_waits_strands_nobody(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "asyncio")
    loop = asyncio.new_event_loop()
    with held(store):
        waiting = loop.create_task(feed(store, MAX_ITEMS))
        while not waiting_producers(store):
            loop.run_until_complete(turns(1))
        behind = spawn(store.handle_event, unit_queued("a"))
        while waiting_producers(store) < 2:
            time.sleep(0.001)  # until the thread behind waits too
        loop.close()
        del waiting
        gc.collect()
    behind.result(SECONDS)
    gc.collect()
    assert store.flush(SECONDS).accepted == MAX_ITEMS + 1


def test_coroutines_that_wait_end_when_the_store_is_closed(store: Store) -> None:
    async def work() -> None:
        waiting = asyncio.create_task(store.aio.wait())
        await until(lambda: open_questions(store) == 1)
        await store.aio.close()
        with pytest.raises(StoreClosedError):
            await waiting

    store.handle_event(orch_started())
    run(work())


def test_producers_that_wait_for_room_are_let_go_when_the_store_is_closed(store: Store) -> None:
    async def work() -> list[object]:
        with held(store):
            producers = [asyncio.create_task(feed(store, MAX_ITEMS)) for _ in range(3)]
            await until(lambda: waiting_producers(store) == 3)
            closing = asyncio.create_task(store.aio.close())
            await until(lambda: inbox(store) >= 2)
        await closing
        return await asyncio.gather(*producers, return_exceptions=True)

    assert all(result is None or isinstance(result, StoreClosedError) for result in run(work()))


def test_coroutines_that_wait_hear_that_the_actor_has_died() -> None:
    async def work() -> None:
        waiting = asyncio.create_task(store.aio.wait())
        await until(lambda: open_questions(store) == 1)
        await asyncio.to_thread(kill, store)
        with pytest.raises(StoreFailedError):
            await waiting
        with pytest.raises(StoreFailedError):
            await store.aio.snapshot()

    with Store() as store:
        store.handle_event(orch_started())
        run(work())


def test_the_store_is_closed_by_async_with() -> None:
    async def work() -> None:
        async with Store().aio as aio:
            await aio.handle_event(orch_started(units("a")))
            assert (await aio.snapshot()).summary.total == 1
        with pytest.raises(StoreClosedError):
            await aio.snapshot()

    run(work())


def test_closing_in_no_time_says_so(store: Store) -> None:
    async def work() -> None:
        with held(store):
            await store.aio.close(timeout=0.01)

    with pytest.raises(StoreTimeoutError):
        run(work())


# Together.


def test_producers_and_followers_live_in_one_loop(store: Store) -> None:
    async def produce(unit: str) -> None:
        async with store.aio.unit(unit):
            for number in range(1, 200):
                await store.aio.handle_event(task_started(unit, number))
                if number % 50 == 0:
                    assert (await store.aio.snapshot()).unit(unit).current_task == number

    async def follow() -> Follower:
        follower = Follower()
        async for update in store.aio.subscribe():
            follower.take(update)
            if update.status.ended:
                break
        return follower

    async def work() -> None:
        followers = [asyncio.create_task(follow()) for _ in range(3)]
        await asyncio.gather(*map(produce, "abcd"))
        await store.aio.handle_event(orch_completed())
        final = await store.aio.wait()
        for each in followers:
            assert (await each).snapshot().json() == final.json()

    store.handle_event(orch_started(diamond()))
    run(work())
    assert store.snapshot().summary.complete == 4
    assert open_questions(store) == 0


def test_an_unknown_run_is_an_error_of_the_coroutine_that_asked(store: Store) -> None:
    async def work() -> None:
        for name in ("snapshot", "graph", "wait"):
            with pytest.raises(UnknownRunError, match="'nobody'"):
                await getattr(store.aio, name)("nobody")
        with pytest.raises(UnknownRunError):
            await anext(store.aio.subscribe("nobody"))

    run(work())
    assert open_questions(store) == 0


def test_what_is_no_event_raises_where_it_is_awaited(store: Store) -> None:
    async def work() -> None:
        for wrong in ("text", None, 7, b"{}"):
            with pytest.raises(TypeError, match="handle_event takes"):
                await store.aio.handle_event(wrong)
        for wrong in ("text", None, 7, bytearray(b"{}")):
            with pytest.raises(TypeError, match="handle_lines takes"):
                await store.aio.handle_lines(wrong)

    run(work())
    assert store.stats().accepted == store.stats().rejected == 0


def test_a_started_unit_is_seen_at_once_by_threads_too(store: Store) -> None:
    async def work() -> None:
        await store.aio.handle_event(unit_started("a"))
        assert store.snapshot().unit("a").status == "in_progress"

    store.handle_event(orch_started(units("a")))
    run(work())


def test_a_producer_whose_loop_stands_still_strands_no_thread_behind_it(store: Store) -> None:
    loop = asyncio.new_event_loop()
    with held(store):
        waiting = loop.create_task(feed(store, MAX_ITEMS))
        while not waiting_producers(store):
            loop.run_until_complete(turns(1))
        behind = spawn(store.handle_event, unit_queued("a"))
        while waiting_producers(store) < 2:
            time.sleep(0.001)  # until the thread behind waits too
    behind.result(SECONDS)
    loop.run_until_complete(waiting)
    loop.close()
    assert store.flush(SECONDS).accepted == MAX_ITEMS + 1


def test_figures_of_a_store_that_listens_hold_its_connections() -> None:
    async def look(path: Path) -> None:
        with Store() as store:
            assert (await store.aio.stats()).connections is None
        with Store(listen=path) as store, connect(path):
            await until(lambda: store.stats().connections == 1)
            assert await store.aio.stats() == store.stats()

    with folder() as room:
        run(look(room / "s"))
