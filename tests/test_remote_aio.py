"""A store in another process for coroutines: the loop goes on whatever the store does, and nothing is left.

What its methods answer is in test_contract.py; here it is about waiting.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from actorstore import (
    RemoteStore,
    Store,
    StoreClosedError,
    StoreTimeoutError,
    StoreUnreachableError,
    UnknownRunError,
    connect,
)
from tests.builders import (
    Follower,
    chain,
    diamond,
    line,
    lines,
    orch_completed,
    orch_started,
    task_started,
    unit_queued,
    unit_started,
    units,
    whole_run,
)
from tests.raw import abandon, folder, nothing_left, waiting
from tests.threads import ANSWERED, CALLS, SECONDS, held, open_questions, wait_until

MANY = 12_000
"""More events than a client with a small buffer takes at once."""


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def path() -> Iterator[Path]:
    with folder() as room:
        yield room / "s"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(listen=path) as store:
        yield store


@pytest.fixture
def remote(store: Store, path: Path) -> Iterator[RemoteStore]:
    with connect(path) as remote:
        yield remote


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


async def call(remote: RemoteStore, name: str) -> Any:
    """Call a method by its name."""
    return await first(CALLS[name], remote.aio)


async def first(ask: Callable[[Any], Any], aio: Any) -> Any:
    """Ask as a coroutine does; of a subscription, take the first update."""
    result = ask(aio)
    return await (anext(result) if inspect.isasyncgen(result) else result)


async def feed(remote: RemoteStore, count: int) -> None:
    for _ in range(count):
        await remote.aio.handle_event(unit_queued("a"))


# The loop goes on.


@pytest.mark.parametrize("name", [name for name in ANSWERED if name != "flush"])
def test_the_loop_goes_on_while_the_store_is_busy(store: Store, remote: RemoteStore, name: str) -> None:
    async def work() -> object:
        await remote.aio.handle_lines(lines(*whole_run(diamond())))
        with held(store):
            asked = asyncio.create_task(call(remote, name))
            await turns()
            assert not asked.done()
        return await asked

    run(work())


def test_the_loop_goes_on_while_a_flush_and_a_close_wait(store: Store, path: Path) -> None:
    async def work() -> None:
        remote = connect(path)
        with held(store):
            await remote.aio.handle_event(unit_queued("a"))
            flushing = asyncio.create_task(remote.aio.flush())
            await turns()
            closing = asyncio.create_task(remote.aio.close())
            await turns()
            assert not flushing.done()
            assert not closing.done()
        await closing
        assert (await flushing).accepted == 1

    run(work())
    assert store.stats().accepted == 1


def test_the_loop_goes_on_while_the_buffer_is_full(store: Store, path: Path) -> None:
    async def work() -> None:
        with connect(path, kept_bytes=10_000) as remote:
            with held(store):
                feeding = asyncio.create_task(feed(remote, MANY))
                lining = asyncio.create_task(remote.aio.handle_lines(line(unit_queued("a")) * 100_000))
                await until(lambda: waiting(remote) == 2)
                await turns()
                assert not feeding.done()
                assert not lining.done()
            await asyncio.gather(feeding, lining)
            assert (await remote.aio.flush()).accepted == MANY + 100_000

    run(work())


def test_the_loop_goes_on_while_nobody_listens(path: Path) -> None:
    async def work() -> None:
        remote = RemoteStore(path)
        await remote.aio.handle_event(unit_queued("a"))
        with pytest.raises(StoreUnreachableError) as raised:
            await remote.aio.flush(0.1)
        assert raised.value.unacked == 1
        with pytest.raises(StoreUnreachableError):
            await remote.aio.snapshot(timeout=0.1)
        flushing = asyncio.create_task(remote.aio.flush())
        await turns()
        with Store(listen=path) as store:
            assert (await flushing).accepted == 1
            assert store.stats().accepted == 1
            await remote.aio.close()

    run(work())


# Many at once.


def test_many_coroutines_await_at_once_and_each_reads_what_it_wrote(
    store: Store, remote: RemoteStore
) -> None:
    async def work(number: int) -> None:
        id = f"u{number}"
        async with remote.aio.unit(id):
            assert (await remote.aio.snapshot()).unit(id).status == "in_progress"
            await remote.aio.handle_event(task_started(id, number + 1))
        snapshot = await remote.aio.snapshot()
        assert snapshot.unit(id).status == "complete"
        assert snapshot.unit(id).current_task == number + 1

    async def all_of_it() -> None:
        await remote.aio.handle_event(orch_started(chain(100)))
        await asyncio.gather(*(work(number) for number in range(100)))
        await remote.aio.flush()

    run(all_of_it())
    assert store.snapshot().summary.complete == 100


def test_a_thousand_questions_are_open_at_once(store: Store, remote: RemoteStore) -> None:
    async def work() -> None:
        await remote.aio.handle_event(orch_started(units("a")))
        waiting_ones = [asyncio.create_task(remote.aio.wait()) for _ in range(1000)]
        await until(lambda: open_questions(store) == 1000)
        await remote.aio.handle_event(orch_completed())
        assert {snapshot.status for snapshot in await asyncio.gather(*waiting_ones)} == {"completed"}

    run(work())


def test_one_client_serves_many_loops_and_threads(store: Store, remote: RemoteStore) -> None:
    async def work() -> int:
        await feed(remote, 100)
        return (await remote.aio.snapshot()).version

    for turn in range(1, 4):
        assert run(work()) == 100 * turn
    remote.handle_event(unit_queued("a"))
    assert remote.flush().accepted == 301


# Cancelled, and too late.


@pytest.mark.parametrize("name", ["snapshot", "graph", "runs", "stats", "wait"])
def test_who_is_cancelled_leaves_no_question(store: Store, remote: RemoteStore, name: str) -> None:
    async def work() -> None:
        await remote.aio.handle_event(orch_started(units("a")))
        await remote.aio.flush()
        with held(store):
            asked = asyncio.create_task(call(remote, name))
            await turns()
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        await until(lambda: open_questions(store) == 0)
        assert (await remote.aio.snapshot()).status == "running"

    run(work())


def test_a_wait_that_is_cancelled_is_forgotten_by_the_store(store: Store, remote: RemoteStore) -> None:
    async def work() -> None:
        waited = asyncio.create_task(remote.aio.wait())
        await until(lambda: open_questions(store) == 1)
        waited.cancel()
        await until(lambda: open_questions(store) == 0)

    run(work())


def test_a_flush_that_is_cancelled_loses_nothing(store: Store, remote: RemoteStore) -> None:
    async def work() -> None:
        with held(store):
            await feed(remote, 10)
            flushing = asyncio.create_task(remote.aio.flush())
            await turns()
            flushing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flushing
        assert (await remote.aio.flush()).accepted == 10

    run(work())


def test_a_producer_that_is_cancelled_while_it_waits_for_room_leaves_the_line(
    store: Store, path: Path
) -> None:
    async def work() -> None:
        with connect(path, kept_bytes=1000) as remote:
            with held(store):
                feeding = asyncio.create_task(feed(remote, MANY))
                await until(lambda: waiting(remote) == 1)
                feeding.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await feeding
                assert waiting(remote) == 0
            handed = (await remote.aio.flush()).accepted
            assert 0 < handed < MANY
            assert store.stats().accepted == handed

    run(work())


@pytest.mark.parametrize("name", ["snapshot", "graph", "runs", "wait", "flush"])
def test_who_waits_in_vain_is_told_in_time(store: Store, remote: RemoteStore, name: str) -> None:
    async def work() -> None:
        await remote.aio.handle_event(orch_started(units("a")))
        await remote.aio.flush()
        with held(store):
            await remote.aio.handle_event(unit_queued("a"))
            with pytest.raises(StoreTimeoutError):
                await getattr(remote.aio, name)(timeout=0.02)
        await until(lambda: open_questions(store) == 0)
        assert (await remote.aio.flush()).accepted == 2

    run(work())


# Subscriptions.


def test_a_subscription_adds_up_to_the_snapshot(store: Store, remote: RemoteStore) -> None:
    async def follow(follower: Follower) -> None:
        async for update in remote.aio.subscribe():
            if follower.take(update).snapshot().status == "completed":
                return

    async def work() -> None:
        followers = [Follower() for _ in range(5)]
        following = [asyncio.create_task(follow(follower)) for follower in followers]
        for event in whole_run(diamond(), tasks=3):
            await remote.aio.handle_event(event)
            await turns(3)
        await asyncio.gather(*following)
        last = (await remote.aio.snapshot()).json()
        assert {follower.snapshot().json() for follower in followers} == {last}

    run(work())


def test_a_subscription_that_is_cancelled_is_forgotten_by_the_store(
    store: Store, remote: RemoteStore
) -> None:
    async def work() -> None:
        updates = remote.aio.subscribe()
        await anext(updates)
        following = asyncio.ensure_future(anext(updates))
        await until(lambda: open_questions(store) == 1)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        await until(lambda: open_questions(store) == 0)
        await updates.aclose()  # type: ignore[attr-defined]

    run(work())


def test_a_subscription_that_is_left_is_closed_with_its_loop(store: Store, remote: RemoteStore) -> None:
    async def work() -> None:
        async for _ in remote.aio.subscribe():
            break

    run(work())
    wait_until(lambda: open_questions(store) == 0)


def test_a_subscription_to_an_unknown_run_is_an_error(remote: RemoteStore) -> None:
    async def work() -> None:
        with pytest.raises(UnknownRunError):
            await anext(remote.aio.subscribe("nightly"))

    run(work())


def test_a_subscription_goes_on_with_the_next_store(path: Path) -> None:
    async def work() -> None:
        with Store(listen=path) as store:
            remote = connect(path)
            store.handle_event(orch_started(chain(3)))
            updates = remote.aio.subscribe()
            assert len((await anext(updates)).units) == 3
            following = asyncio.ensure_future(anext(updates))
            await until(lambda: open_questions(store) == 1)
            await asyncio.to_thread(store.close)
        with Store(listen=path) as store:
            store.handle_event(orch_started(diamond()))
            update = await following
            while not update.units:  # it may have come before the run
                update = await anext(updates)
            assert update.since is None
            store.handle_event(unit_started("a"))
            assert [unit.id for unit in (await anext(updates)).units] == ["a"]
            await updates.aclose()  # type: ignore[attr-defined]
            await remote.aio.close()

    run(work())


def test_a_subscription_ends_with_its_client_after_the_last_change(store: Store, path: Path) -> None:
    async def work() -> list[str]:
        store.handle_event(orch_started(units("a")))
        remote = connect(path)
        updates = remote.aio.subscribe()
        await anext(updates)
        await remote.aio.handle_event(orch_completed())
        await remote.aio.close()
        return [update.status async for update in updates]

    assert run(work()) == ["completed"]


# The end.


def test_after_closing_everything_is_refused(store: Store, path: Path) -> None:
    async def work() -> None:
        async with connect(path).aio as aio:
            await aio.handle_event(unit_queued("a"))
        for name, ask in CALLS.items():
            if name.startswith("unit"):
                continue  # which is no coroutine until it is entered
            with pytest.raises(StoreClosedError):
                await first(ask, aio)
        with pytest.raises(StoreClosedError):
            await aio.unit("a").__aenter__()

    run(work())
    assert store.stats().accepted == 1


def test_closing_may_give_up_waiting(store: Store, path: Path) -> None:
    async def work() -> None:
        remote = connect(path)
        with held(store):
            await remote.aio.handle_event(unit_queued("a"))
            with pytest.raises(StoreTimeoutError):
                await remote.aio.close(0.05)
        await remote.aio.close()

    run(work())
    assert store.stats().accepted == 1


def test_those_who_wait_are_let_go_when_the_client_is_closed(store: Store, path: Path) -> None:
    async def work() -> None:
        remote = connect(path)
        waited = asyncio.create_task(remote.aio.wait())
        await until(lambda: open_questions(store) == 1)
        await remote.aio.close()
        with pytest.raises(StoreClosedError):
            await waited

    run(work())


def test_an_answer_that_comes_after_the_loop_has_ended_harms_nobody(store: Store, path: Path) -> None:
    remote = connect(path)

    async def work() -> None:
        remote_wait = asyncio.create_task(remote.aio.wait())
        await until(lambda: open_questions(store) == 1)
        remote_wait.cancel()

    with held(store):
        pass
    run(work())
    store.handle_event(orch_started(units("a")))
    store.handle_event(orch_completed())
    assert remote.snapshot().status == "completed"
    remote.close()


def test_a_client_that_is_abandoned_ends_what_waits(store: Store, path: Path) -> None:
    async def work() -> None:
        remote = connect(path)
        waited = asyncio.create_task(remote.aio.wait())
        await until(lambda: open_questions(store) == 1)
        abandon(remote)
        with pytest.raises(StoreClosedError):
            await waited

    run(work())
