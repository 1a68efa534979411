"""The tests that the seed lists, with the behaviour written there; their names are the seed's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actorstore import Store
from tests.builders import (
    check_snapshot,
    diamond,
    orch_completed,
    orch_failed,
    orch_planned,
    orch_started,
    task_started,
    unit_blocked,
    unit_completed,
    unit_failed,
    unit_queued,
    unit_started,
    units,
)
from tests.threads import results, spawn


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


def test_new_store(store: Store) -> None:
    snapshot = store.snapshot()
    assert snapshot.status == "waiting"
    assert snapshot.connected is False
    assert snapshot.units == ()
    assert store.graph() is None


def test_handle_orch_started(store: Store) -> None:
    store.handle_event(orch_planned({"id": "a", "tasks": 3}, {"id": "b"}, edges=[("b", "a")], parallelism=4))
    snapshot = store.snapshot()
    assert snapshot.status == "running"
    assert snapshot.parallelism == 4
    assert [(unit.id, unit.status, unit.total_tasks) for unit in snapshot.units] == [
        ("a", "pending", 3),
        ("b", "pending", 0),
    ]
    graph = store.graph()
    assert [(edge.from_, edge.to) for edge in graph.edges] == [("b", "a")]
    assert graph.levels == (("a",), ("b",))


def test_handle_unit_lifecycle(store: Store) -> None:
    store.handle_event(orch_started(units("a", "b")))
    seen = []
    for event in (unit_queued("a"), unit_started("a"), unit_completed("a"), unit_failed("b", "boom")):
        store.handle_event(event)
        unit = store.snapshot().unit(event.unit)
        seen.append((unit.id, unit.status, unit.error))
    assert seen == [
        ("a", "ready", None),
        ("a", "in_progress", None),
        ("a", "complete", None),
        ("b", "failed", "boom"),
    ]


def test_handle_unit_blocked(store: Store) -> None:
    store.handle_event(orch_started(units("a")))
    store.handle_event(unit_blocked("a"))
    assert store.snapshot().unit("a").status == "blocked"


def test_handle_task_started(store: Store) -> None:
    store.handle_event(orch_started(units("a")))
    store.handle_event(task_started("a"))
    store.handle_event(task_started("a"))
    assert store.snapshot().unit("a").current_task == 2


def test_handle_orch_completed(store: Store) -> None:
    store.handle_event(orch_started())
    store.handle_event(orch_completed())
    assert store.snapshot().status == "completed"


def test_handle_orch_failed(store: Store) -> None:
    store.handle_event(orch_started())
    store.handle_event(orch_failed("boom"))
    assert store.snapshot().status == "failed"
    assert store.snapshot().error == "boom"


def test_unknown_event_types_and_units_are_ignored(store: Store) -> None:
    store.handle_event(orch_started(units("a")))
    before = store.snapshot()
    store.handle_event(unit_started("nobody"))
    store.handle_lines(b'{"type":"unit.danced","unit":"a"}\n')
    assert store.snapshot().units == before.units
    assert store.snapshot().status == "running"


def test_summary_calculation(store: Store) -> None:
    store.handle_event(orch_started(units("a", "b", "c", "d", "e", "f", "g")))
    events = [unit_queued("b"), unit_started("c"), unit_completed("d"), unit_failed("e"), unit_blocked("f")]
    for event in events:
        store.handle_event(event)
    summary = check_snapshot(store.snapshot()).summary
    assert summary.total == 7
    assert summary.pending == 2
    assert summary.ready == summary.in_progress == summary.complete == summary.failed == summary.blocked == 1


def test_set_connected(store: Store) -> None:
    store.set_connected(True)
    assert store.snapshot().connected is True
    store.set_connected(False)
    assert store.snapshot().connected is False


def test_reset(store: Store) -> None:
    store.handle_event(orch_started(diamond(), parallelism=2))
    store.reset()
    snapshot = store.snapshot()
    assert snapshot.status == "waiting"
    assert snapshot.units == ()
    assert snapshot.parallelism == 0
    assert store.graph() is None


def test_concurrent_access(store: Store) -> None:
    store.handle_event(orch_started(units("a", "b", "c", "d")))

    def write(unit: str) -> None:
        for _ in range(500):
            store.handle_event(task_started(unit))
        store.handle_event(unit_completed(unit))

    def read() -> None:
        for _ in range(100):
            check_snapshot(store.snapshot())
            store.graph()

    def connect() -> None:
        for number in range(100):
            store.set_connected(number % 2 == 0)

    results([*[spawn(write, unit) for unit in "abcd"], spawn(read), spawn(read), spawn(connect)])
    snapshot = store.snapshot()
    assert [unit.current_task for unit in snapshot.units] == [500] * 4
    assert snapshot.summary.complete == 4
    assert snapshot.version == 1 + 4 * 501
    assert snapshot.connected is False
