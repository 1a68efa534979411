"""Everything at once: writers, readers, followers, `set_connected`, `reset`, each in a thread of its own.

The run `work` is written by producers that own a unit each; the run `scratch` is
made anew and reset all the time, next to it and in the same store. Counts are
bounded, nothing goes by the clock.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from actorstore import StateSnapshot, Store, StoreClosedError, Update
from actorstore.handover import MAX_ITEMS
from tests.builders import (
    Follower,
    check_snapshot,
    check_summary,
    diamond,
    line,
    lines,
    orch_completed,
    orch_started,
    task_started,
    unit_added,
    unit_completed,
    unit_failed,
    unit_started,
    units,
)
from tests.threads import SECONDS, in_actor, results, spawn

TASKS = 2000
"""How many tasks each producer reports."""

OWNERS = ("by_event", "by_line", "by_lines", "by_payload")
"""The producers, which are called like the units that they own."""


@pytest.fixture(params=[0.005, 0.00001], ids=["as ever", "with many switches"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store, with threads that are switched as ever and as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    try:
        with Store() as store:
            yield store
    finally:
        sys.setswitchinterval(before)


# Who takes part. Each returns what has to be looked at afterwards.


def by_event(store: Store) -> int:
    """Hand events over one by one."""
    for task in range(1, TASKS + 1):
        store.handle_event(task_started("by_event", task, run="work"))
        if task % 20 == 0:
            assert store.snapshot("work").unit("by_event").current_task == task
    return TASKS


def by_line(store: Store) -> int:
    """Hand lines over one by one, a bad one now and then."""
    for task in range(1, TASKS + 1):
        store.handle_lines(line(task_started("by_line", task, run="work")))
        if task % 20 == 0:
            store.handle_lines(b"bad\n")
            assert next(store.subscribe("work")).units[1].current_task == task
    return TASKS


def by_lines(store: Store) -> int:
    """Hand many lines over at once."""
    for first in range(1, TASKS + 1, 20):
        store.handle_lines(
            lines(*[task_started("by_lines", first + each, run="work") for each in range(20)]) + b"\nbad\n"
        )
        assert store.snapshot("work").unit("by_lines").current_task == first + 19
    return TASKS


def by_payload(store: Store) -> int:
    """Hand events over that carry something: attempts, errors, and a payload."""
    for task in range(1, TASKS // 2 + 1):
        store.handle_event(unit_failed("by_payload", f"attempt {task - 1}", run="work"))
        store.handle_event(unit_started("by_payload", completed_tasks=task, run="work"))
        if task % 20 == 0:
            unit = store.snapshot("work").unit("by_payload")
            assert (unit.attempts, unit.current_task, unit.error) == (task, task, None)
    return TASKS


def make_anew(store: Store) -> int:
    """Make `scratch` anew, add to it, reset it."""
    for round in range(300):
        store.handle_event(orch_started(diamond() if round % 2 else units("a", "z"), run="scratch"))
        store.handle_event(unit_completed("a", run="scratch"))
        store.handle_event(unit_added(f"found {round}", ["a"], run="scratch"))
        assert store.snapshot("scratch").units[-1].id == f"found {round}"
        store.reset("scratch")
        assert store.snapshot("scratch").units == ()
    return 1200


def connect(store: Store) -> int:
    """Connect and disconnect."""
    for number in range(500):
        store.set_connected(number % 2 == 0)
        assert store.snapshot("work").connected is (number % 2 == 0)
    return 0


def read(store: Store) -> list[tuple[StateSnapshot, bytes]]:
    """Take snapshots, and their bytes at once; versions and task numbers never go down."""
    taken = []
    version = 0
    tasks = dict.fromkeys(OWNERS, 0)
    for number in range(300):
        snapshot = store.snapshot("work")
        assert snapshot.version >= version
        version = snapshot.version
        for unit in check_snapshot(snapshot).units:
            assert unit.current_task >= tasks[unit.id]
            tasks[unit.id] = unit.current_task
        scratch = check_snapshot(store.snapshot("scratch"))
        assert scratch.version >= version
        version = scratch.version
        if number % 10 == 0:
            taken.append((snapshot, msgspec.json.encode(snapshot)))
            taken.append((scratch, scratch.json()))
            graph = store.graph("scratch")
            assert graph is None or len(graph.nodes) == sum(map(len, graph.levels))
            stats = store.stats()
            assert stats.version >= version
            version = stats.version
            assert [info.run for info in store.runs()] == ["work", "scratch"]
    return taken


def follow(store: Store, run: str, check: Callable[[Update], None]) -> Follower:
    """Follow a run to its end; versions never go down, and what they say adds up."""
    follower = Follower()
    version = 0
    for update in store.subscribe(run):
        assert update.version >= version
        assert update.since is None or update.since == version
        version = update.version
        check(update)
        follower.take(update)
        check_summary(update.summary, follower.units.values())
        if update.status.ended:
            return follower
    raise AssertionError("the subscription ended before the run")


def follow_in_pieces(store: Store, run: str) -> Follower:
    """Follow a run with a new subscription for each update."""
    follower = Follower()
    while follower.last is None or not follower.last.status.ended:
        follower.take(next(store.subscribe(run, since=follower.last and follower.last.cursor)))
    return follower


def tasks_only_grow() -> Callable[[Update], None]:
    """A look at every update: no producer is seen to go back."""
    seen = dict.fromkeys(OWNERS, 0)

    def check(update: Update) -> None:
        for unit in update.units:
            assert unit.current_task >= seen[unit.id]
            seen[unit.id] = unit.current_task

    return check


def same_but_for_the_version(follower: Follower, snapshot: StateSnapshot) -> bool:
    """Whether the follower has what the snapshot has; other runs may have moved the version since."""
    return msgspec.structs.replace(follower.snapshot(), version=snapshot.version).json() == snapshot.json()


# All of them together.


def test_everything_at_once(store: Store) -> None:
    store.handle_event(orch_started(units(*OWNERS), run="work"))
    store.handle_event(orch_started(diamond(), run="scratch"))
    followers = [
        *[spawn(follow, store, "work", tasks_only_grow()) for _ in range(2)],
        spawn(follow_in_pieces, store, "work"),
    ]
    scratch_followers = [spawn(follow, store, "scratch", lambda update: None) for _ in range(2)]
    waiting = [spawn(store.wait, "work"), spawn(store.wait, "scratch")]
    readers = [spawn(read, store) for _ in range(2)]
    writers = [spawn(write, store) for write in (by_event, by_line, by_lines, by_payload, make_anew)]
    others = [spawn(connect, store)]

    handed_over = 2 + sum(results(writers)) + sum(results(others))
    snapshots = [each for taken in results(readers) for each in taken]
    store.handle_event(orch_started(units("last"), run="scratch"))
    store.handle_event(orch_completed(run="scratch"))
    store.handle_event(orch_completed(run="work"))

    final, scratch = store.snapshot("work"), store.snapshot("scratch")
    assert final.version == handed_over + 3
    assert [unit.current_task for unit in final.units] == [TASKS, TASKS, TASKS, TASKS // 2]
    assert (store.stats().rejected, store.stats().faults) == (2 * (TASKS // 20), 0)
    assert store.stats().unknown_units == 0
    assert [snapshot.run for snapshot in results(waiting)] == ["work", "scratch"]
    for follower in results(followers):
        assert same_but_for_the_version(follower, final)
    for follower in results(scratch_followers):
        assert same_but_for_the_version(follower, scratch)
        assert follower.graph == store.graph("scratch")
    for snapshot, told in snapshots:
        assert snapshot.json() == told == msgspec.json.encode(snapshot)
    assert in_actor(store, lambda actor: list(actor._waiting)) == []


def test_producers_that_run_ahead_are_applied_in_their_order(store: Store) -> None:
    """More than intake holds, from many threads, so that they wait and are let in again and again."""
    count = MAX_ITEMS // 2
    owners = [f"u{number}" for number in range(6)]
    store.handle_event(orch_started(units(*owners)))

    def produce(unit: str) -> None:
        for task in range(1, count + 1):
            store.handle_event(task_started(unit, task))

    def look() -> None:
        seen = dict.fromkeys(owners, 0)
        for _ in range(30):
            for unit in store.snapshot().units:
                assert unit.current_task >= seen[unit.id]
                seen[unit.id] = unit.current_task

    results([*[spawn(produce, unit) for unit in owners], spawn(look)])
    snapshot = store.snapshot()
    assert [unit.current_task for unit in snapshot.units] == [count] * 6
    assert snapshot.version == 1 + 6 * count


def test_a_caller_reads_its_writes_while_others_keep_the_actor_awake_and_let_it_sleep(store: Store) -> None:
    """A caller alone lets the actor sleep between two events; others come and go."""
    store.handle_event(orch_started(units("mine", "theirs")))
    stop = threading.Event()

    def disturb() -> None:
        while not stop.wait(0.0005):  # long enough for the actor to fall asleep now and then
            store.handle_event(task_started("theirs"))
            store.snapshot()

    disturbing = spawn(disturb)
    try:
        for task in range(1, 1500):
            store.handle_event(task_started("mine", task))
            assert store.snapshot().unit("mine").current_task == task
            assert store.snapshot("").unit("mine").current_task == task
    finally:
        stop.set()
    disturbing.result(SECONDS)


def test_what_one_thread_says_to_another_is_true(store: Store) -> None:
    """A hand-over is over before the call returns, so who hears of it sees it."""
    store.handle_event(orch_started(units("a")))
    told, heard = threading.Event(), threading.Event()

    def listen() -> None:
        for task in range(1, 300):
            assert told.wait(SECONDS)
            told.clear()
            assert store.snapshot().unit("a").current_task >= task
            heard.set()

    listening = spawn(listen)
    for task in range(1, 300):
        store.handle_event(task_started("a", task))
        told.set()
        assert heard.wait(SECONDS)
        heard.clear()
    listening.result(SECONDS)


def test_closing_in_the_midst_of_everything_ends_everything(store: Store) -> None:
    store.handle_event(orch_started(units(*OWNERS), run="work"))
    store.handle_event(orch_started(diamond(), run="scratch"))
    begun = threading.Barrier(7)

    def until_closed(work: Callable[[Store], object]) -> int:
        begun.wait(SECONDS)
        try:
            while True:
                work(store)
        except StoreClosedError:
            return 1

    def feed(store: Store) -> None:
        store.handle_event(task_started("by_event", run="work"))

    def ask(store: Store) -> None:
        check_snapshot(store.snapshot("work"))
        store.stats()

    def follow(store: Store) -> None:
        for update in store.subscribe("work"):
            assert update.run == "work"

    def toggle(store: Store) -> None:
        store.set_connected(True)
        store.set_connected(False)

    works = [feed, feed, ask, follow, toggle, lambda store: store.reset("scratch")]
    working = [spawn(until_closed, work) for work in works]
    begun.wait(SECONDS)
    store.flush(SECONDS)
    store.close(SECONDS)
    assert results(working) == [1] * 6
