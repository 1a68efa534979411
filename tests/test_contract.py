"""What every store promises, however it is reached: one suite against all of them.

A store joins with an adapter: a context manager that yields an object with the
methods of `StateStore`, and with `update`, the first update of a subscription.
`STORES` names those that offer everything, `PARTS` those that cannot follow.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from actorstore import (
    Cursor,
    Event,
    FlushResult,
    GraphEdge,
    RemoteStore,
    StateStore,
    Store,
    StoreActor,
    StoreClosedError,
    StoreProcess,
    StoreTimeoutError,
    UnitStatus,
    UnknownRunError,
    Update,
    connect,
)
from tests.builders import (
    NOON,
    Follower,
    at,
    check_snapshot,
    diamond,
    line,
    lines,
    orch_completed,
    orch_failed,
    orch_planned,
    orch_reset,
    orch_started,
    task_started,
    unit_added,
    unit_completed,
    unit_failed,
    unit_queued,
    unit_started,
    units,
    whole_run,
)
from tests.threads import SECONDS, spawn

# The adapters.


class Direct:
    """A `Store`, as it is."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def update(self, run: str | None = None, since: Cursor | None = None) -> Update:
        return next(self._store.subscribe(run, since=since))


class Proxied:
    """A `StoreActor` behind a plain pykka proxy: every call waits for its future."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: getattr(self._proxy, name)(*args, **kwargs).get(timeout=SECONDS)


class Awaited:
    """An `AsyncStore`, every call of which waits for the loop that runs it in another thread."""

    def __init__(self, store: Store | RemoteStore, loop: asyncio.AbstractEventLoop) -> None:
        self._aio = store.aio
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._run(getattr(self._aio, name)(*args, **kwargs))

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)

    @contextmanager
    def unit(self, id: str, *, run: str = "") -> Iterator[None]:
        reported = self._aio.unit(id, run=run)
        self._run(reported.__aenter__())
        try:
            yield
        except BaseException as error:
            swallowed = self._run(reported.__aexit__(type(error), error, error.__traceback__))
            if not swallowed:
                raise
        self._run(reported.__aexit__(None, None, None))

    def subscribe(self, run: str | None = None, *, since: Cursor | None = None) -> Iterator[Update]:
        updates: AsyncIterator[Update] = self._aio.subscribe(run, since=since)
        while True:
            try:
                yield self._run(anext(updates))
            except StopAsyncIteration:
                return

    def update(self, run: str | None = None, since: Cursor | None = None) -> Update:
        return next(self.subscribe(run, since=since))


@contextmanager
def direct() -> Iterator[Direct]:
    with Store() as store:
        yield Direct(store)


@contextmanager
def socket_path() -> Iterator[str]:
    with TemporaryDirectory(prefix="store-") as folder:
        yield f"{folder}/store.sock"


@contextmanager
def listening() -> Iterator[Direct]:
    with socket_path() as path, Store(listen=path) as store:
        yield Direct(store)


@contextmanager
def remote() -> Iterator[Direct]:
    with socket_path() as path, Store(listen=path), connect(path) as store:
        yield Direct(store)


@contextmanager
def remote_process() -> Iterator[Direct]:
    with StoreProcess() as store:
        yield Direct(store)


@contextmanager
def proxied() -> Iterator[Proxied]:
    proxy = StoreActor.start().proxy()
    try:
        yield Proxied(proxy)
    finally:
        proxy.actor_ref.stop(timeout=SECONDS)


@contextmanager
def awaited() -> Iterator[Awaited]:
    with Store() as store, a_loop() as loop:
        yield Awaited(store, loop)


@contextmanager
def remote_awaited() -> Iterator[Awaited]:
    with socket_path() as path, Store(listen=path), connect(path) as store, a_loop() as loop:
        yield Awaited(store, loop)


@contextmanager
def a_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_wind_up(loop), loop).result(SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SECONDS)
        loop.close()


async def _wind_up(loop: asyncio.AbstractEventLoop) -> None:
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


Adapter = Callable[[], AbstractContextManager[Any]]
STORES: dict[str, Adapter] = {
    "store": direct,
    "aio": awaited,
    "listening": listening,
    "remote": remote,
    "remote aio": remote_awaited,
    "remote process": remote_process,
}
PARTS: dict[str, Adapter] = {"proxy": proxied}


@pytest.fixture(params=STORES | PARTS)
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Whatever takes events and answers questions."""
    with (STORES | PARTS)[request.param]() as store:
        yield store


@pytest.fixture(params=[name for name in STORES if not name.startswith("remote")])
def local(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Whatever is fed in its own process, so that nobody is connected unless that is said."""
    with STORES[request.param]() as store:
        yield store


@pytest.fixture(params=STORES)
def whole(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Whatever offers all of `StateStore`."""
    with STORES[request.param]() as store:
        yield store


def feed(store: Any, *events: Event) -> None:
    """Hand events over, one by one."""
    for event in events:
        store.handle_event(event)


WRONG = Event("unit.started", unit="a", payload={"total_tasks": "three"})
"""An event that is one, with a payload that its rule cannot take."""


# Before anything has happened.


def test_a_new_store_waits(store: Any) -> None:
    snapshot = store.snapshot()
    assert (snapshot.run, snapshot.version, snapshot.status) == ("", 0, "waiting")
    assert (snapshot.connected, snapshot.units, snapshot.parallelism) == (False, (), 0)
    assert (snapshot.started_at, snapshot.finished_at, snapshot.error) == (None, None, None)
    assert snapshot.summary.total == 0


def test_a_new_store_has_no_runs_and_no_graph(store: Any) -> None:
    assert store.runs() == ()
    assert store.graph() is None


def test_a_new_store_has_accepted_and_rejected_nothing(store: Any) -> None:
    stats = store.stats()
    assert (stats.version, stats.accepted, stats.rejected) == (0, 0, 0)
    assert (stats.unknown_units, stats.faults, stats.pending, stats.rejections) == (0, 0, 0, ())
    assert store.flush() == FlushResult(0, 0)


# Which run.


def test_no_run_means_the_one_that_started_last(store: Any) -> None:
    feed(store, orch_started(run="one"), orch_started(units("x"), run="two"), orch_completed(run="one"))
    assert store.snapshot().run == "two"
    assert [node.id for node in store.graph().nodes] == ["x"]
    feed(store, orch_started(run="one"))
    assert store.snapshot().run == "one"


def test_a_run_is_asked_for_by_its_id(store: Any) -> None:
    feed(store, orch_started(units("a"), run="one"), orch_started(units("x"), run="two"))
    assert [unit.id for unit in store.snapshot("one").units] == ["a"]
    assert [node.id for node in store.graph("one").nodes] == ["a"]


@pytest.mark.parametrize("method", ["snapshot", "graph", "update"])
def test_an_unknown_run_is_an_error_that_names_it(store: Any, method: str) -> None:
    feed(store, orch_started(run="one"))
    with pytest.raises(UnknownRunError, match="'two'") as caught:
        getattr(store, method)("two")
    assert caught.value.run == "two"
    assert store.snapshot("one").run == "one"


def test_the_default_run_is_unknown_until_it_exists(store: Any) -> None:
    with pytest.raises(UnknownRunError):
        store.snapshot("")


def test_only_events_of_the_orchestration_make_runs(store: Any) -> None:
    feed(store, unit_started("a", run="x"), unit_added("a", run="x"), task_started("a", run="x"))
    assert store.runs() == ()
    assert store.stats().unknown_units == 3
    assert store.stats().accepted == 3


def test_events_of_unknown_units_are_counted_for_their_caller(store: Any) -> None:
    feed(store, unit_started("a"), unit_added("b", run="x"), orch_started(units("a")))
    store.handle_lines(lines(unit_started("a"), unit_failed("nobody", "boom")) + b"bad\n\n")
    feed(store, Event("unit.danced", unit="nobody"), task_started("a"))
    assert store.flush() == FlushResult(7, 1, 3)
    store.handle_lines(lines(unit_queued("nobody"), unit_queued("a"), task_started("")))
    assert store.flush() == FlushResult(10, 1, 5)
    assert store.stats().unknown_units == 5


def test_the_last_events_of_unknown_units_are_named_with_their_likely_cause(store: Any) -> None:
    feed(store, unit_started("a"), orch_started(units("a"), run="r"), unit_started("a", run="r"))
    feed(store, unit_failed("x\x1b", "boom", run="r"), task_started("", run="r"))
    assert [(each.type, each.run, each.unit, each.reason) for each in store.stats().last_unknown] == [
        ("unit.started", "", "a", "no run '' has started that could have unit 'a': send orch.started first"),
        ("unit.failed", "r", "x\x1b", "run 'r' has no unit 'x\\x1b'"),
        ("task.started", "r", "", "it names no unit of run 'r'"),
    ]


def test_of_many_events_of_unknown_units_the_last_few_are_named(store: Any) -> None:
    feed(store, orch_started())
    store.handle_lines(lines(*[unit_started(f"u{number}") for number in range(2000)]))
    feed(store, *[unit_started(f"v{number}") for number in range(6)])
    assert store.flush() == FlushResult(2007, 0, 2006)
    named = [each.unit for each in store.stats().last_unknown]
    assert named == [f"u{number}" for number in range(1990, 2000)] + [f"v{number}" for number in range(6)]


def test_an_event_of_an_unknown_unit_is_logged_with_run_and_unit(
    local: Any, caplog: pytest.LogCaptureFixture
) -> None:
    feed(local, orch_started(units("a"), run="r"), unit_started("b", run="r"), unit_started("a", run="r"))
    local.flush()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "unit.started changed nothing: run 'r' has no unit 'b'")
    ]


def test_runs_are_told_in_the_order_in_which_they_came(store: Any) -> None:
    feed(
        store,
        orch_started(units("a", "b"), run="two"),
        orch_failed("boom", run="one", time=at(5)),
        unit_completed("a", run="two"),
    )
    two, one = store.runs()
    assert (two.run, two.status, two.started_at, two.summary.complete) == ("two", "running", NOON, 1)
    assert (one.run, one.status, one.finished_at, one.summary.total) == ("one", "failed", at(5), 0)


# Reading your writes.


def test_a_question_sees_all_that_was_handed_over_before(store: Any) -> None:
    feed(store, orch_started(units("a")))
    for number in range(1, 200):
        feed(store, task_started("a"))
        snapshot = store.snapshot()
        assert (snapshot.version, snapshot.unit("a").current_task) == (2 * number, 2 * number - 1)
        store.handle_lines(line(task_started("a")))
        assert store.stats().version == 2 * number + 1
        assert store.flush().accepted == 2 * number + 1


def test_events_and_lines_are_applied_in_the_order_handed_over(store: Any) -> None:
    feed(store, orch_started(units("a")))
    store.handle_lines(lines(unit_queued("a"), unit_started("a")))
    feed(store, unit_failed("a", "boom"))
    store.handle_lines(line(unit_started("a")))
    feed(store, task_started("a", 7))
    store.handle_lines(line(unit_completed("a", time=at(9))))
    unit = store.snapshot().unit("a")
    assert (unit.status, unit.attempts, unit.current_task, unit.error) == ("complete", 2, 7, None)
    assert unit.finished_at == at(9)


def test_a_snapshot_never_changes(store: Any) -> None:
    feed(store, *whole_run(diamond()))
    before = store.snapshot()
    told = before.json()
    units_then = before.units
    feed(store, orch_started(units("z"), time=at(1)), unit_failed("z", "boom"))
    after = store.snapshot()
    assert (before.units, msgspec.json.encode(before)) == (units_then, told)
    assert [unit.id for unit in after.units] == ["z"]


def test_the_snapshot_is_the_same_where_nothing_has_happened(store: Any) -> None:
    feed(store, *whole_run(diamond()))
    first, second = store.snapshot(), store.snapshot()
    assert first == second
    assert first.json() == second.json()


def test_every_event_is_one_version_whatever_it_does(store: Any) -> None:
    feed(store, orch_started(units("a")), unit_queued("a"), unit_queued("a"), unit_queued("nobody"))
    feed(store, Event("unit.danced", unit="a"))
    assert store.snapshot().version == 5
    assert store.stats().unknown_units == 1


# The run.


def test_a_whole_run_ends_complete(store: Any) -> None:
    feed(store, *whole_run(diamond(), tasks=2))
    snapshot = check_snapshot(store.snapshot())
    assert (snapshot.status, snapshot.summary.complete) == ("completed", 4)
    assert [(unit.id, unit.current_task, unit.total_tasks) for unit in snapshot.units] == [
        ("a", 2, 2),
        ("b", 2, 2),
        ("c", 2, 2),
        ("d", 2, 2),
    ]


def test_the_graph_says_who_depends_on_whom(store: Any) -> None:
    feed(store, orch_started(diamond()))
    graph = store.graph()
    assert graph.levels == (("a",), ("b", "c"), ("d",))
    assert set(graph.edges) == {
        GraphEdge("b", "a"),
        GraphEdge("c", "a"),
        GraphEdge("d", "b"),
        GraphEdge("d", "c"),
    }
    assert graph.problems == ()


def test_there_is_no_graph_until_one_has_arrived(store: Any) -> None:
    feed(store, orch_started())
    assert store.graph() is None
    feed(store, orch_started(units("a")))
    assert store.graph() is not None
    feed(store, orch_started())
    assert store.graph() is None


def test_work_that_is_found_on_the_way_joins_units_and_graph(store: Any) -> None:
    feed(store, orch_started(units("a")), unit_added("b", ["a"], tasks=3), unit_added("a"))
    assert [(unit.id, unit.status, unit.total_tasks) for unit in store.snapshot().units] == [
        ("a", "pending", 0),
        ("b", "pending", 3),
    ]
    assert store.graph().levels == (("a",), ("b",))


def test_a_resumed_run_starts_where_it_left_off(store: Any) -> None:
    feed(store, orch_planned({"id": "a", "tasks": 3, "status": "in_progress", "completed_tasks": 2}))
    unit = store.snapshot().unit("a")
    assert (unit.status, unit.current_task, unit.total_tasks) == (UnitStatus.IN_PROGRESS, 2, 3)


def test_a_reset_goes_back_to_waiting(store: Any) -> None:
    feed(store, orch_started(diamond(), parallelism=2, run="one"), orch_failed("boom", run="one"))
    store.reset("one")
    snapshot = store.snapshot("one")
    assert (snapshot.status, snapshot.units, snapshot.error) == ("waiting", (), None)
    assert (snapshot.parallelism, snapshot.started_at, snapshot.finished_at) == (0, None, None)
    assert snapshot.version == 3
    assert store.graph("one") is None


def test_a_reset_leaves_other_runs_alone(store: Any) -> None:
    feed(store, orch_started(units("a"), run="one"), orch_started(units("a")))
    store.reset()
    assert store.snapshot("").units == ()
    assert store.snapshot("one").summary.total == 1


def test_a_reset_of_an_unknown_run_makes_one_that_waits(store: Any) -> None:
    store.reset("one")
    assert [(info.run, info.status) for info in store.runs()] == [("one", "waiting")]


# Connected.


def test_connected_is_added_to_every_answer_and_lies_outside_the_version(local: Any) -> None:
    feed(local, orch_started(units("a"), run="one"))
    off = local.snapshot()
    local.set_connected(True)
    on = local.snapshot()
    assert (on.connected, local.snapshot("one").connected, local.update().connected) == (True, True, True)
    assert (on.version, on.units) == (off.version, off.units)
    assert off.connected is False
    assert b'"connected":false' in off.json()
    assert b'"connected":true' in on.json()
    local.set_connected(False)
    assert local.snapshot() == off
    assert local.stats().version == 1


def test_connected_survives_a_reset_and_a_new_run(store: Any) -> None:
    store.set_connected(True)
    store.reset()
    assert store.snapshot().connected is True
    feed(store, orch_started(run="one"))
    assert store.snapshot().connected is True


# What is refused.


def started_with(node: bytes) -> bytes:
    """A run with one node."""
    return b'{"type":"orch.started","payload":{"graph":{"nodes":[%s]}}}' % node


BAD_LINES = {
    "no JSON": b"hello",
    "half an object": b'{"type":"unit.queued"',
    "an array": b'[{"type":"unit.queued","unit":"a"}]',
    "a number": b"7",
    "null": b"null",
    "no type": b'{"unit":"a"}',
    "an empty type": b'{"type":"","unit":"a"}',
    "a type that is null": b'{"type":null,"unit":"a"}',
    "a wrong type": b'{"type":"unit.queued","unit":7}',
    "a task that is zero": b'{"type":"task.started","unit":"a","task":0}',
    "a task that is text": b'{"type":"task.started","unit":"a","task":"1"}',
    "a task over 53 bits": b'{"type":"task.started","unit":"a","task":9007199254740992}',
    "a time that is none": b'{"type":"unit.queued","unit":"a","time":"yesterday"}',
    "a time without an offset": b'{"type":"unit.queued","unit":"a","time":"2026-01-02T12:00:00"}',
    "a unit id that is too long": b'{"type":"unit.queued","unit":"%s"}' % (b"u" * 1025),
    "a run id that is too long in bytes": b'{"type":"unit.queued","run":"%s"}' % ("ü".encode() * 513),
    "invalid UTF-8": b'{"type":"unit.queued","unit":"\xff"}',
    "invalid UTF-8 inside a payload": b'{"type":"unit.danced","payload":{"x":"\xff"}}',
    "a byte order mark": b'\xef\xbb\xbf{"type":"unit.queued","unit":"a"}',
    "two objects": b'{"type":"unit.queued","unit":"a"}{"type":"unit.queued","unit":"a"}',
    "two objects with a space": b'{"type":"unit.queued","unit":"a"} {"type":"unit.queued","unit":"a"}',
    "nesting without end": b'{"type":"unit.danced","payload":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a payload that does not fit": b'{"type":"unit.started","unit":"a","payload":{"total_tasks":-1}}',
    "a payload that is text": b'{"type":"unit.added","unit":"b","payload":"three"}',
    "a status that is none": started_with(b'{"id":"a","status":"odd"}'),
    "an id in a graph that is too long": started_with(b'{"id":"%s"}' % (b"u" * 1025)),
    "terminal escapes": b"\x1b[2J\x07",
    "a NUL": b'{"type":"unit.queued","unit":"a"}\0',
}
"""What is no event -> how it looks on a line."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What a terminal would obey."""


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_counted_and_harms_no_other(store: Any, bad: bytes) -> None:
    before = lines(orch_started(units("a")), unit_started("a"))
    store.handle_lines(before + bad + b"\n" + line(task_started("a")))
    assert store.flush() == FlushResult(3, 1)
    snapshot = store.snapshot()
    assert (snapshot.version, snapshot.unit("a").current_task) == (3, 1)
    (rejection,) = store.stats().rejections
    assert rejection.line == 3
    assert rejection.reason
    assert not CONTROL.search(rejection.reason + rejection.text)


def test_all_bad_lines_together_are_counted_one_by_one(store: Any) -> None:
    good = line(task_started("a"))
    mixed = b"".join(bad + b"\n" + good for bad in BAD_LINES.values())
    store.handle_lines(line(orch_started(units("a"))) + mixed)
    assert store.flush() == FlushResult(1 + len(BAD_LINES), len(BAD_LINES))
    assert store.snapshot().unit("a").current_task == len(BAD_LINES)
    assert store.stats().faults == 0


def test_an_object_over_two_lines_is_two_bad_lines(store: Any) -> None:
    store.handle_lines(line(orch_started(units("a"))) + b'{"type":"unit.queued",\n"unit":"a"}\n')
    assert store.flush() == FlushResult(1, 2)
    assert [rejection.line for rejection in store.stats().rejections] == [2, 3]


def test_lines_that_lie_about_being_lines_do_not_make_up_for_each_other(store: Any) -> None:
    """As many values as LFs, and yet not one on each line."""
    two = b'{"type":"unit.queued","unit":"a"}{"type":"unit.queued","unit":"a"}\n'
    over_two = b'{"type":"unit.queued",\n"unit":"a"}\n'
    store.handle_lines(line(orch_started(units("a"))) + two + over_two + line(unit_started("a")))
    assert store.flush() == FlushResult(2, 3)


@pytest.mark.parametrize("blank", [b"\n", b"\n\n\n", b" \t\r\n", b"\r\n"])
def test_a_blank_line_has_no_effect_but_counts_as_a_line(store: Any, blank: bytes) -> None:
    store.handle_lines(blank + line(orch_started()) + blank + b"bad\n" + blank)
    assert store.flush() == FlushResult(1, 1)
    assert store.stats().rejections[0].line == 2 * blank.count(b"\n") + 2


def test_a_line_may_end_in_cr_lf_and_the_last_one_in_nothing(store: Any) -> None:
    data = lines(orch_started(units("a")), unit_started("a"), task_started("a"))
    store.handle_lines(data.replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    assert store.flush() == FlushResult(3, 0)


def test_nothing_is_kept_between_two_calls(store: Any) -> None:
    store.handle_lines(b'{"type":"orch.started"')
    store.handle_lines(b"}\n")
    store.handle_lines(b"")
    assert store.flush() == FlushResult(0, 2)


def test_lines_are_counted_on_over_all_calls(store: Any) -> None:
    store.handle_lines(b"bad\n" + line(orch_started()))
    store.handle_lines(b"\nbad")
    store.handle_lines(b"bad\n")
    assert [rejection.line for rejection in store.stats().rejections] == [1, 4, 5]


def test_null_is_absent(store: Any) -> None:
    store.handle_lines(
        b'{"type":"orch.started","time":null,"run":null,"unit":null,"task":null,"pr":null,"payload":null,"error":null}\n'
    )
    assert store.flush() == FlushResult(1, 0)
    assert store.snapshot("").status == "running"


def test_an_event_whose_payload_does_not_fit_is_counted(store: Any) -> None:
    feed(store, orch_started(units("a")), WRONG, unit_started("a"))
    assert store.flush() == FlushResult(2, 1)
    (rejection,) = store.stats().rejections
    assert rejection.line in (None, 2)  # to a store elsewhere, an event is a line
    assert "total_tasks" in rejection.reason
    assert "unit.started" in rejection.text


def test_a_mixture_of_everything_is_counted_exactly(store: Any) -> None:
    for _ in range(20):
        feed(store, orch_started(units("a")), WRONG)
        store.handle_lines(b"bad\n\n" + line(unit_started("nobody")) + b"{}\n")
    stats = store.stats()
    assert (stats.accepted, stats.rejected, stats.unknown_units, stats.pending) == (40, 60, 20, 0)


# Updates.


def test_the_first_update_is_the_whole_run(store: Any) -> None:
    feed(store, orch_started(diamond(), parallelism=3), unit_started("a"))
    update = store.update()
    assert update.since is None
    assert (update.run, update.version, update.status, update.parallelism) == ("", 2, "running", 3)
    assert [unit.id for unit in update.units] == ["a", "b", "c", "d"]
    assert update.graph == store.graph()
    assert Follower().take(update).snapshot().json() == store.snapshot().json()


def test_an_update_since_a_cursor_holds_only_what_changed_each_unit_whole(store: Any) -> None:
    feed(store, orch_started(diamond()), unit_started("c"))
    first = store.update()
    feed(store, unit_started("d", total_tasks=2), task_started("d"), unit_failed("b", "boom", time=at(3)))
    second = store.update(None, first.cursor)
    assert (second.since, second.version, second.graph) == (2, 5, None)
    assert second.units == (store.snapshot().unit("b"), store.snapshot().unit("d"))
    assert second.summary == store.snapshot().summary


def test_an_update_since_now_is_empty(store: Any) -> None:
    feed(store, orch_started(diamond()))
    cursor = store.update().cursor
    again = store.update(None, cursor)
    assert (again.since, again.version, again.units, again.graph) == (1, 1, (), None)


def test_a_cursor_may_be_used_twice(store: Any) -> None:
    feed(store, orch_started(diamond()))
    cursor = store.update().cursor
    feed(store, unit_started("a"))
    first = store.update(None, cursor)
    feed(store, unit_started("b"))
    second = store.update(None, cursor)
    assert [unit.id for unit in first.units] == ["a"]
    assert [unit.id for unit in second.units] == ["a", "b"]


def test_an_update_has_the_graph_where_it_changed(store: Any) -> None:
    feed(store, orch_started(units("a")))
    cursor = store.update().cursor
    feed(store, unit_added("b", ["a"]))
    update = store.update(None, cursor)
    assert (update.since, [unit.id for unit in update.units]) == (1, ["b"])
    assert update.graph == store.graph()


def test_a_run_made_anew_is_answered_with_the_whole_run(store: Any) -> None:
    feed(store, orch_started(units("a", "b")))
    cursor = store.update().cursor
    feed(store, unit_started("a"), orch_started(units("b")))
    update = store.update(None, cursor)
    assert (update.since, [unit.id for unit in update.units]) == (None, ["b"])
    store.reset()
    assert store.update(None, update.cursor).since is None


def test_a_cursor_of_another_run_is_answered_with_the_whole_run(store: Any) -> None:
    feed(store, orch_started(units("a"), run="one"), orch_started(units("a"), run="two"))
    assert store.update("two", store.update("one").cursor).since is None


def test_a_cursor_of_another_store_is_answered_with_the_whole_run(store: Any) -> None:
    feed(store, orch_started(units("a")))
    with direct() as other:
        feed(other, orch_started(units("a")))
        cursor = other.update().cursor
    assert store.update(None, cursor).since is None


@pytest.mark.parametrize("cursor", ["", "x", ".", "..", "1.2.3", "\0", "a" * 5000])
def test_a_cursor_that_is_none_is_answered_with_the_whole_run(store: Any, cursor: Cursor) -> None:
    feed(store, orch_started(units("a")))
    assert store.update(None, cursor).since is None


def test_updates_add_up_to_the_snapshot_wherever_the_stream_is_cut(store: Any) -> None:
    follower = Follower()
    cursor = None
    events = [
        *whole_run(diamond(), tasks=2),
        orch_started(units("x")),
        unit_added("y", ["x"]),
        unit_failed("y", "boom"),
        orch_reset(),
    ]
    for number, event in enumerate(events):
        feed(store, event)
        if number % 3:
            update = store.update("", cursor)
            cursor = update.cursor
            assert follower.take(update).snapshot().json() == store.snapshot().json()
            assert follower.graph == store.graph()


# For those that offer everything: reporting a unit.


def test_a_unit_that_goes_well_is_started_and_completed(whole: Any) -> None:
    feed(whole, orch_started(units("a")))
    with whole.unit("a"):
        assert whole.snapshot().unit("a").status == "in_progress"
    unit = whole.snapshot().unit("a")
    assert (unit.status, unit.attempts, unit.error) == ("complete", 1, None)
    assert unit.started_at <= unit.finished_at


def test_a_unit_that_raises_is_failed_and_the_error_goes_on(whole: Any) -> None:
    feed(whole, orch_started(units("a"), run="one"))
    error = ValueError("no such thing")
    with pytest.raises(ValueError, match="no such thing") as caught, whole.unit("a", run="one"):
        raise error
    assert caught.value is error
    unit = whole.snapshot("one").unit("a")
    assert (unit.status, unit.error) == ("failed", "ValueError: no such thing")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ValueError(), KeyError("x\ny")])
def test_a_unit_fails_whatever_ends_it(whole: Any, error: BaseException) -> None:
    feed(whole, orch_started(units("a")))
    reported = whole.unit("a")
    reported.__enter__()
    assert not reported.__exit__(type(error), error, None)
    unit = whole.snapshot().unit("a")
    assert unit.status == "failed"
    assert unit.error.startswith(type(error).__name__)


def test_an_error_that_is_no_valid_text_still_fails_its_unit_and_goes_on(whole: Any) -> None:
    """As of a file name that is not UTF-8, which Python shows with half surrogates."""
    feed(whole, orch_started(units("a")))
    with pytest.raises(OSError, match="cannot read"), whole.unit("a"):
        raise OSError("cannot read \udcff.txt")
    unit = whole.snapshot().unit("a")
    assert unit.status == "failed"
    assert "cannot read" in unit.error


def test_an_error_that_cannot_be_shown_still_fails_its_unit_and_goes_on(whole: Any) -> None:
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    feed(whole, orch_started(units("a")))
    with pytest.raises(UnspeakableError), whole.unit("a"):
        raise UnspeakableError
    unit = whole.snapshot().unit("a")
    assert (unit.status, "UnspeakableError" in unit.error) == ("failed", True)


def test_the_error_of_a_unit_is_not_lost_when_the_store_is_closed_meanwhile(whole: Any) -> None:
    feed(whole, orch_started(units("a")))

    def work() -> None:
        with whole.unit("a"):
            whole.close()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()


# For those that offer everything: following.


def test_a_subscription_is_the_whole_run_and_then_what_changed(whole: Any) -> None:
    feed(whole, orch_started(diamond()))
    updates = whole.subscribe()
    first = next(updates)
    feed(whole, unit_queued("b"), unit_started("b"), unit_started("d"))
    whole.flush()
    second = next(updates)
    feed(whole, unit_completed("b"))
    third = next(updates)
    assert (first.since, len(first.units)) == (None, 4)
    assert (second.since, [unit.id for unit in second.units]) == (1, ["b", "d"])
    assert (third.since, [unit.id for unit in third.units]) == (4, ["b"])
    assert third.graph is None


def test_a_subscription_goes_on_from_a_cursor(whole: Any) -> None:
    feed(whole, orch_started(diamond()))
    cursor = next(whole.subscribe()).cursor
    feed(whole, unit_started("b"))
    updates = whole.subscribe(since=cursor)
    assert [unit.id for unit in next(updates).units] == ["b"]
    feed(whole, unit_started("c"))
    assert [unit.id for unit in next(updates).units] == ["c"]


def test_who_is_slow_gets_changes_merged(whole: Any) -> None:
    feed(whole, orch_started(units("a", "b")))
    updates = whole.subscribe()
    next(updates)
    feed(whole, unit_started("a"), *[task_started("a") for _ in range(1000)], unit_completed("a"))
    whole.flush()
    update = next(updates)
    assert (update.version, update.units) == (1003, (whole.snapshot().unit("a"),))


def test_two_subscribers_see_the_same_at_their_own_pace(whole: Any) -> None:
    feed(whole, orch_started(diamond()))
    quick, slow = whole.subscribe(), whole.subscribe()
    followers = Follower().take(next(quick)), Follower().take(next(slow))
    for unit in "abc":
        feed(whole, unit_started(unit))
        followers[0].take(next(quick))
    followers[1].take(next(slow))
    assert followers[0].snapshot().json() == followers[1].snapshot().json() == whole.snapshot().json()


def test_a_subscription_waits_for_a_change(whole: Any) -> None:
    feed(whole, orch_started(units("a")))
    updates = whole.subscribe()
    next(updates)
    coming = spawn(next, updates)
    feed(whole, unit_started("a"))
    assert coming.result(SECONDS).units[0].status == "in_progress"


def test_a_subscription_to_no_run_follows_the_one_that_starts(whole: Any) -> None:
    updates = whole.subscribe()
    assert (next(updates).status, whole.snapshot().version) == ("waiting", 0)
    feed(whole, orch_started(units("a"), run="one"))
    one = next(updates)
    feed(whole, unit_started("a", run="one"), orch_started(units("b"), run="two"))
    whole.flush()
    two = next(updates)
    assert (one.run, one.since, [unit.id for unit in one.units]) == ("one", None, ["a"])
    assert (two.run, two.since, [unit.id for unit in two.units]) == ("two", None, ["b"])


def test_a_subscription_to_a_run_stays_with_it(whole: Any) -> None:
    feed(whole, orch_started(units("a"), run="one"))
    updates = whole.subscribe("one")
    next(updates)
    feed(whole, orch_started(units("b"), run="two"), unit_started("b", run="two"))
    feed(whole, unit_started("a", run="one"))
    whole.flush()
    update = next(updates)
    assert (update.run, update.since, [unit.id for unit in update.units]) == ("one", 1, ["a"])


def test_a_run_made_anew_comes_whole(whole: Any) -> None:
    feed(whole, orch_started(units("a", "b")))
    updates = whole.subscribe()
    follower = Follower().take(next(updates))
    feed(whole, orch_started(units("b", "c")))
    follower.take(next(updates))
    assert follower.snapshot().json() == whole.snapshot().json()
    whole.reset()
    assert follower.take(next(updates)).snapshot().units == ()


def test_a_change_of_connected_is_an_update(local: Any) -> None:
    feed(local, orch_started(units("a")))
    updates = local.subscribe()
    assert next(updates).connected is False
    local.set_connected(True)
    update = next(updates)
    assert (update.connected, update.units, update.version) == (True, (), 1)


def test_a_subscription_to_an_unknown_run_is_an_error(whole: Any) -> None:
    with pytest.raises(UnknownRunError):
        next(whole.subscribe("nobody"))


def test_a_subscription_ends_with_its_store_after_the_last_change(whole: Any) -> None:
    feed(whole, orch_started(units("a")))
    updates = whole.subscribe()
    follower = Follower().take(next(updates))
    feed(whole, unit_completed("a"), orch_completed())
    whole.close()
    for update in updates:
        follower.take(update)
    assert follower.snapshot().status == "completed"
    assert follower.snapshot().unit("a").status == "complete"
    assert list(updates) == []


def test_the_last_change_may_be_one_of_connected(local: Any) -> None:
    feed(local, orch_started(units("a")))
    updates = local.subscribe()
    assert next(updates).connected is False
    local.set_connected(True)
    local.close()
    assert [update.connected for update in updates] == [True]


# For those that offer everything: the end of a run, and of a store.


@pytest.mark.parametrize("event", [orch_completed(), orch_failed("boom")], ids=lambda event: event.type)
def test_waiting_returns_the_run_that_has_ended(whole: Any, event: Event) -> None:
    feed(whole, orch_started(units("a")), event)
    assert whole.wait() == whole.snapshot()


def test_waiting_goes_on_until_the_run_has_ended(whole: Any) -> None:
    feed(whole, orch_started(units("a"), run="one"), orch_started(run="two"))
    waiting = spawn(whole.wait, "one")
    feed(whole, unit_completed("a", run="one"), orch_completed(run="two"))
    whole.flush()
    assert not waiting.done()
    feed(whole, orch_failed("boom", run="one"))
    snapshot = waiting.result(SECONDS)
    assert (snapshot.run, snapshot.status, snapshot.error) == ("one", "failed", "boom")


def test_waiting_before_any_run_waits_for_the_one_that_starts(whole: Any) -> None:
    waiting = spawn(whole.wait)
    feed(whole, *whole_run(diamond(), run="one"))
    snapshot = waiting.result(SECONDS)
    assert (snapshot.run, snapshot.status) == ("one", "completed")


def test_waiting_for_an_unknown_run_is_an_error(whole: Any) -> None:
    with pytest.raises(UnknownRunError):
        whole.wait("nobody")


def test_waiting_ends_in_time(whole: Any) -> None:
    feed(whole, orch_started())
    with pytest.raises(StoreTimeoutError) as caught:
        whole.wait(timeout=0.01)
    assert caught.value.waited == 0.01
    assert whole.snapshot().status == "running"


def test_a_closed_store_takes_and_answers_nothing(whole: Any) -> None:
    feed(whole, orch_started())
    whole.close()
    whole.close()
    for method, args in [("handle_event", [unit_queued("a")]), ("handle_lines", [b"\n"]), ("snapshot", [])]:
        with pytest.raises(StoreClosedError):
            getattr(whole, method)(*args)


def test_waiting_ends_when_the_store_is_closed(whole: Any) -> None:
    feed(whole, orch_started())
    waiting = spawn(whole.wait)
    whole.close()
    with pytest.raises(StoreClosedError):
        waiting.result(SECONDS)
