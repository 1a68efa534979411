"""Stores in the hands of other processes, started in every way that the standard library has.

What is handed over to a process works there: a store that listens, and a client,
are clients of their own in each. A process that ends in an orderly way sends
what it holds first; nothing here flushes unless it is about flushing.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from actorstore import (
    ForkedStoreError,
    RemoteStore,
    StateStore,
    Store,
    StoreClosedError,
    connect,
)
from tests.builders import chain, line, orch_started, task_started, unit_queued, unit_started, units
from tests.raw import Raw, folder, nothing_left
from tests.threads import SECONDS, held, python, results, spawn, wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

STARTS: Final = multiprocessing.get_all_start_methods()
needs_fork = pytest.mark.skipif("fork" not in STARTS, reason="there is no fork here")

TASKS: Final = 40
"""Events that each piece of work hands over on top of the first."""


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


# Work, as other processes do it. What it finds wrong it raises.


def work(store: Any, run: str) -> int:
    """Feed a run, look at it on the way, and leave the rest to the end of the process."""
    store.handle_event(orch_started(units("a"), run=run))
    for task in range(1, TASKS // 2 + 1):
        store.handle_event(task_started("a", task, run=run))
    seen = store.snapshot(run).unit("a").current_task
    assert seen == TASKS // 2, f"task {seen} was read, not what was written"
    for task in range(TASKS // 2 + 1, TASKS + 1):
        store.handle_lines(line(task_started("a", task, run=run)))
    return os.getpid()


def work_and_flush(store: Any, run: str) -> int:
    """Feed a run, and wait for the acks."""
    pid = work(store, run)
    assert store.flush().accepted >= TASKS + 1
    return pid


inherited: Any = None
"""The store that forked processes find where their parent left it."""


def work_with_inherited(run: str) -> int:
    """Feed a run of a store that was not handed over, but is there."""
    return work(inherited, run)


def fail_after_work(store: Any, run: str) -> None:
    """Feed a run, and raise."""
    work(store, run)
    raise SystemExit(3)


def work_with_threads(store: Any, run: str) -> None:
    """Feed runs from threads."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: work(store, f"{run}.{number}"), range(4)))


def work_with_asyncio(store: Any, run: str) -> None:
    """Feed a run from coroutines."""

    async def feed() -> None:
        await store.aio.handle_event(orch_started(units("a"), run=run))
        await asyncio.gather(
            *(store.aio.handle_event(task_started("a", task, run=run)) for task in range(1, TASKS))
        )
        await store.aio.handle_event(task_started("a", TASKS, run=run))
        assert (await store.aio.snapshot(run)).unit("a").current_task == TASKS

    asyncio.run(feed())


def work_in_generations(store: Any, run: str, generations: int) -> None:
    """Feed a run, and have a child feed the next."""
    work(store, f"{run}.{generations}")
    if generations > 1:
        child = multiprocessing.get_context("fork").Process(
            target=work_in_generations, args=(store, run, generations - 1)
        )
        child.start()
        child.join(SECONDS)
        assert child.exitcode == 0


# Ways to have it done.


def in_processes(context: BaseContext, function: Callable[..., Any], all_args: list[tuple[Any, ...]]) -> None:
    processes = [context.Process(target=function, args=args) for args in all_args]  # type: ignore[attr-defined]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def in_pool(context: BaseContext, function: Callable[..., Any], all_args: list[tuple[Any, ...]]) -> None:
    with context.Pool(2) as pool:
        pids = pool.starmap_async(function, all_args).get(SECONDS)
        pool.close()
        pool.join()
    assert os.getpid() not in pids


def in_executor(context: BaseContext, function: Callable[..., Any], all_args: list[tuple[Any, ...]]) -> None:
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        pids = results([pool.submit(function, *args) for args in all_args])
    assert os.getpid() not in pids


Way: TypeAlias = Callable[[BaseContext, Callable[..., Any], list[tuple[Any, ...]]], None]
WAYS: Final[list[Way]] = [in_processes, in_pool, in_executor]
RUNS: Final = ["r0", "r1", "r2"]


@contextmanager
def busy(store: StateStore) -> Iterator[list[int]]:
    """Keep a thread of this process at work with a store; the list then says how much it has handed over."""
    stop = threading.Event()
    handed: list[int] = []

    def feed() -> int:
        count = 1
        store.handle_event(orch_started(units("p"), run="parent"))
        while not stop.wait(0.0005):  # others want to run, too
            for _ in range(10):
                store.handle_event(unit_queued("p", run="parent"))
            store.snapshot("parent")
            count += 10
        return count

    feeding = spawn(feed)
    try:
        yield handed
    finally:
        stop.set()
        handed.append(feeding.result(SECONDS))


def check(store: Store, runs: list[str], others: int = 0) -> None:
    """Check that all work has arrived, once."""
    assert {info.run for info in store.runs()} - {"parent"} == set(runs)
    assert {run: store.snapshot(run).unit("a").current_task for run in runs} == dict.fromkeys(runs, TASKS)
    stats = store.stats()
    assert (stats.accepted, stats.rejected) == (len(runs) * (TASKS + 1) + others, 0)


# The matrix.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", STARTS)
def test_a_listening_store_can_be_handed_to_processes(store: Store, start: str, way: Way) -> None:
    with busy(store) as handed:
        way(multiprocessing.get_context(start), work, [(store, run) for run in RUNS])
    store.flush()
    check(store, RUNS, handed[0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", STARTS)
def test_a_client_can_be_handed_to_processes(store: Store, remote: RemoteStore, start: str, way: Way) -> None:
    with busy(remote) as handed:
        way(multiprocessing.get_context(start), work, [(remote, run) for run in RUNS])
    assert remote.flush().accepted == handed[0]
    check(store, RUNS, handed[0])


@needs_fork
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("which", ["store", "remote"])
def test_forked_processes_may_use_what_they_inherit(
    store: Store, remote: RemoteStore, monkeypatch: pytest.MonkeyPatch, which: str, way: Way
) -> None:
    handed_down = {"store": store, "remote": remote}[which]
    monkeypatch.setattr("tests.test_multiprocessing.inherited", handed_down)
    with busy(handed_down) as handed:
        way(multiprocessing.get_context("fork"), work_with_inherited, [(run,) for run in RUNS])
    remote.flush()
    store.flush()
    check(store, RUNS, handed[0])


# The end of a process.


@pytest.mark.parametrize("start", STARTS)
def test_a_process_that_ends_with_an_error_sends_what_it_holds(store: Store, start: str) -> None:
    process = multiprocessing.get_context(start).Process(target=fail_after_work, args=(store, "r"))
    process.start()
    process.join(SECONDS)
    assert process.exitcode == 3
    check(store, ["r"])


@pytest.mark.parametrize("start", STARTS)
def test_a_pool_that_is_terminated_loses_nothing_that_was_flushed(store: Store, start: str) -> None:
    with multiprocessing.get_context(start).Pool(2) as pool:
        pool.starmap_async(work_and_flush, [(store, run) for run in RUNS]).get(SECONDS)
    check(store, RUNS)


def test_a_script_sends_what_it_holds_when_it_ends(store: Store, path: Path) -> None:
    code = f"""
import os, sys
from actorstore import Event, connect
remote = connect({str(path)!r})
for _ in range(1000):
    remote.handle_event(Event.unit_queued("a"))
if not os.fork():  # which sends what is its own, and nothing else
    remote.handle_event(Event.unit_queued("b"))
    sys.exit()
os.wait()
"""
    result = python(code=code)
    assert (result.returncode, result.stderr) == (0, "")
    assert store.stats().accepted == 1001


def test_a_script_ends_although_its_store_is_gone_and_says_what_is_lost(path: Path) -> None:
    code = f"""
from actorstore import Event, RemoteStore, endings
endings.PATIENCE_SECONDS = 0.1
remote = RemoteStore({str(path)!r})
remote.handle_event(Event.unit_queued("a"))
"""
    result = python(code=code)
    assert result.returncode == 0
    assert f"1 line is lost with this process: the store at {path} has not acked it" in result.stderr


# Threads, coroutines, generations.


@pytest.mark.parametrize("start", STARTS)
def test_a_process_may_feed_from_threads(store: Store, start: str) -> None:
    in_processes(multiprocessing.get_context(start), work_with_threads, [(store, "r"), (store, "s")])
    check(store, [f"{run}.{number}" for run in "rs" for number in range(4)])


@pytest.mark.parametrize("start", STARTS)
def test_a_process_may_feed_from_coroutines(store: Store, start: str) -> None:
    in_processes(multiprocessing.get_context(start), work_with_asyncio, [(store, "r"), (store, "s")])
    check(store, ["r", "s"])


@needs_fork
def test_children_of_children_may_feed(store: Store, remote: RemoteStore) -> None:
    fork = multiprocessing.get_context("fork")
    in_processes(fork, work_in_generations, [(store, "r", 3), (remote, "s", 3)])
    check(store, [f"{run}.{number}" for run in "rs" for number in (1, 2, 3)])


# What a forked child must not do.


def feed_one(store: Any) -> None:
    """Hand one event over, and leave it to the end of the process."""
    store.handle_event(unit_queued("child"))


@needs_fork
def test_a_forked_child_does_not_send_the_lines_of_its_parent(store: Store, remote: RemoteStore) -> None:
    with held(store):
        remote.handle_lines(line(unit_queued("a")) * 5000)
        for _ in range(100):
            remote.handle_event(unit_queued("a"))
        child = multiprocessing.get_context("fork").Process(target=feed_one, args=(remote,))
        child.start()
    child.join(SECONDS)
    assert child.exitcode == 0
    assert remote.flush().accepted == 5100
    assert store.stats().accepted == 5101


@needs_fork
def test_a_client_that_has_not_connected_yet_hands_nothing_down(path: Path) -> None:
    remote = RemoteStore(path)
    remote.handle_lines(line(unit_queued("a")) * 10)
    child = multiprocessing.get_context("fork").Process(target=feed_one, args=(remote,))
    child.start()
    with Store(listen=path) as store:
        child.join(SECONDS)
        assert child.exitcode == 0
        assert remote.flush(SECONDS).accepted == 10
        assert store.stats().accepted == 11
        remote.close()


@contextmanager
def forked(function: Callable[[], object] = lambda: None) -> Iterator[None]:
    """A forked child that does something, and lives until the block ends."""
    context = multiprocessing.get_context("fork")
    done, go_on = context.Event(), context.Event()

    def live() -> None:
        function()
        done.set()
        go_on.wait(2 * SECONDS)  # longer than anybody waits for what it might hold

    process = context.Process(target=live)
    process.start()
    try:
        wait_until(lambda: done.is_set() or not process.is_alive())
        assert done.is_set(), "the child has failed; it says why on its standard error"
        yield
    finally:
        go_on.set()
        process.join(SECONDS)
    assert process.exitcode == 0


@needs_fork
def test_a_forked_child_does_not_hold_the_socket_of_its_parent(path: Path) -> None:
    store = Store(listen=path)
    with Raw(path) as client:
        client.hello()
        with forked():
            store.close()
            assert client.rest()[-1]["error"]["code"] == "closed"
            assert list(path.parent.iterdir()) == []
            with Store(listen=path) as second, connect(path) as remote:
                remote.handle_event(unit_queued("a"))
                assert remote.flush().accepted == 1
                assert second.stats().accepted == 1


@needs_fork
def test_a_forked_child_keeps_its_descriptors_whatever_was_closed_before(path: Path) -> None:
    store = Store(listen=path)
    store.close()
    with ExitStack() as stack:
        opened = [stack.enter_context(open(__file__)) for number in range(40)]
        before = {file.fileno(): os.fstat(file.fileno()).st_ino for file in opened}

        def look() -> None:
            assert {number: os.fstat(number).st_ino for number in before} == before

        with forked(look):
            pass
    assert store.address == str(path)  # which is still held, closed as it is


@needs_fork
def test_a_forked_child_does_not_hold_the_connection_of_its_parent(store: Store, path: Path) -> None:
    remote = connect(path)
    remote.handle_event(unit_queued("a"))
    remote.flush()
    wait_until(lambda: store.stats().connections == 1)
    with forked():
        remote.close()
        wait_until(lambda: store.stats().connections == 0)


@needs_fork
def test_a_forked_child_that_closes_its_client_leaves_that_of_its_parent(
    store: Store, remote: RemoteStore
) -> None:
    remote.handle_event(orch_started(units("a")))
    remote.flush()
    for closed in (remote, store):
        with forked(closed.close):
            remote.handle_event(unit_started("a"))
            assert remote.snapshot().unit("a").status == "in_progress"
    assert store.stats().accepted == 3


@needs_fork
def test_a_forked_child_has_the_copies_of_its_parent_and_keeps_them_up(
    store: Store, remote: RemoteStore
) -> None:
    remote.handle_event(orch_started(chain(50)))
    assert remote.snapshot().unit("u0").status == "pending"
    store.handle_event(unit_started("u0"))

    def look() -> None:
        assert remote.snapshot().unit("u0").status == "in_progress"
        assert remote.snapshot().json() == store.snapshot().json()

    with forked(look):
        look()


@needs_fork
@pytest.mark.parametrize("which", ["store", "remote"])
def test_what_was_closed_stays_closed_in_a_forked_child(path: Path, which: str) -> None:
    store = Store(listen=path)
    remote = connect(path)
    remote.close()
    store.close()

    def use() -> None:
        with pytest.raises(StoreClosedError):
            {"store": store, "remote": remote}[which].handle_event(unit_queued("a"))

    with forked(use):
        pass


@needs_fork
@pytest.mark.parametrize("which", ["store", "remote"])
def test_a_subscription_goes_on_in_a_forked_child(store: Store, remote: RemoteStore, which: str) -> None:
    remote.handle_event(orch_started(units("a")))
    updates = {"store": store, "remote": remote}[which].subscribe()
    next(updates)
    remote.handle_event(unit_started("a"))
    remote.flush()

    def follow() -> None:
        update = next(updates)
        assert update.units[0].status == "in_progress"

    with forked(follow):
        assert next(updates).units[0].status == "in_progress"


@needs_fork
def test_the_methods_for_coroutines_that_a_forked_child_inherits_work(
    store: Store, remote: RemoteStore
) -> None:
    for aio in (store.aio, remote.aio):

        def use() -> None:
            async def feed() -> None:
                await aio.handle_event(unit_queued("a"))
                assert (await aio.flush()).accepted == 1

            asyncio.run(feed())

        with forked(use):
            pass
    assert store.stats().accepted == 2


# A store that does not listen.


def is_told(store: Store) -> None:
    """Check that the store says what is wrong, and what to do."""
    for call in (store.snapshot, store.flush, lambda: store.handle_event(unit_queued("a"))):
        with pytest.raises(ForkedStoreError, match="listen="):
            call()


@needs_fork
def test_a_store_that_does_not_listen_names_the_cure_in_forked_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Store() as store:
        monkeypatch.setattr("tests.test_multiprocessing.inherited", store)
        fork = multiprocessing.get_context("fork")
        in_processes(fork, is_told, [(store,), (store,)])
        with ProcessPoolExecutor(1, mp_context=fork) as pool:
            failed = pool.submit(work_with_inherited, "r").exception(SECONDS)
        assert isinstance(failed, ForkedStoreError)
        store.handle_event(unit_queued("a"))
        assert store.flush().accepted == 1


@pytest.mark.parametrize("start", [start for start in STARTS if start != "fork"])
def test_a_store_that_does_not_listen_cannot_be_handed_over_and_says_so(start: str) -> None:
    with Store() as store, pytest.raises(TypeError, match="listen="):
        multiprocessing.get_context(start).Process(target=work, args=(store, "r")).start()


# The other way round.


def keep_a_store(path: str, ready: Any, go_on: Any) -> None:
    """Hold a store until it is told to go on."""
    with Store(listen=path):
        ready.set()
        go_on.wait(SECONDS)


@pytest.mark.parametrize("start", STARTS)
def test_a_process_may_keep_the_store_that_its_parent_feeds(path: Path, start: str) -> None:
    context = multiprocessing.get_context(start)
    ready, go_on = context.Event(), context.Event()
    process = context.Process(target=keep_a_store, args=(str(path), ready, go_on))
    process.start()
    assert ready.wait(SECONDS)
    with connect(path) as remote:
        work(remote, "r")
        assert remote.flush().accepted == TASKS + 1
    go_on.set()
    process.join(SECONDS)
    assert process.exitcode == 0
    assert list(path.parent.iterdir()) == []
