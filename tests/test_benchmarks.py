"""The benchmarks run, at size 1; and the peers do the same work, without which no time is worth comparing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import pytest

from actorstore import Store
from actorstore.wire import chunks
from benchmarks import report, rounds, workloads
from benchmarks.__main__ import QUESTIONS
from benchmarks.crowd import split
from benchmarks.peers import go_store, redis_state
from benchmarks.peers.lock import LockedStore
from benchmarks.peers.mp_manager import ManagerStore
from benchmarks.peers.mp_queue import QueueStore
from benchmarks.peers.proxy import ProxyStore
from benchmarks.peers.state import Totals, totals_of
from benchmarks.report import main, page
from benchmarks.table import amount, faster, markdown, skipped, slower, text

UNITS, TASKS = 50, 6


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()  # the benchmarks freeze what they find, and pytest goes on in this process


def by_store_lines(data: bytes) -> Totals:
    with Store() as store:
        store.handle_lines(data)
        snapshot = store.snapshot()
    return totals_of(snapshot.units, snapshot.version)


def by_store_events(data: bytes) -> Totals:
    with Store() as store:
        for event in workloads.decoded(data):
            store.handle_event(event)
        snapshot = store.snapshot()
    return totals_of(snapshot.units, snapshot.version)


def by_lock_lines(data: bytes) -> Totals:
    store = LockedStore()
    store.handle_lines(data)
    return store.totals()


def by_lock_events(data: bytes) -> Totals:
    store = LockedStore()
    for event in workloads.decoded(data):
        store.handle_event(event)
    return store.totals()


def by_proxy(data: bytes) -> Totals:
    store = ProxyStore()
    try:
        for event in workloads.decoded(data):
            store.handle_event(event)
        return store.totals()
    finally:
        store.close()


def by_celery(data: bytes) -> Totals:
    pytest.importorskip("celery")
    from benchmarks.peers.celery_state import CeleryStore

    store = CeleryStore()
    store.handle_events(store.convert(workloads.decoded(data)))
    return store.totals()


def by_go(data: bytes) -> Totals:
    if reason := go_store.unavailable():
        pytest.skip(reason)
    times = go_store.run(data)
    assert times.rejected == 0
    return times.totals


def by_manager_lines(data: bytes) -> Totals:
    store = ManagerStore()
    try:
        for line in data.splitlines(keepends=True):
            store.handle_line(line)
        return store.totals()
    finally:
        store.close()


def by_manager_chunks(data: bytes) -> Totals:
    store = ManagerStore()
    try:
        for chunk in chunks(data):
            store.handle_lines(chunk)
        return store.totals()
    finally:
        store.close()


def by_queue_lines(data: bytes) -> Totals:
    return _by_queue(data.splitlines(keepends=True), chunks=False)


def by_queue_chunks(data: bytes) -> Totals:
    return _by_queue(chunks(data), chunks=True)


def _by_queue(items: Iterable[bytes], *, chunks: bool) -> Totals:
    store = QueueStore(chunks=chunks)
    try:
        for item in items:
            store.put(item)
        totals = store.totals()
        assert store.flush() == totals.accepted
        return totals
    finally:
        store.close()


def by_redis(data: bytes, *, lean: bool = False) -> Totals:
    if reason := redis_state.unavailable():
        pytest.skip(reason)
    store = redis_state.RedisStore(lean=lean)
    try:
        for chunk in chunks(data):
            store.handle_lines(chunk)
        return store.totals()
    finally:
        store.close()


def by_lean_redis(data: bytes) -> Totals:
    return by_redis(data, lean=True)


TROUBLE = b"""\
{"type":"orch.started","payload":{"graph":{"nodes":[{"id":"a","tasks":2},{"id":"b"},{"id":"c","tasks":1}]}}}
{"type":"unit.queued","unit":"a"}
{"type":"unit.started","unit":"a"}
{"type":"task.started","unit":"a"}
{"type":"unit.failed","unit":"a","error":"no space left"}
{"type":"unit.blocked","unit":"b"}
{"type":"unit.queued","unit":"a"}
{"type":"unit.started","unit":"a","payload":{"total_tasks":3,"completed_tasks":1}}
{"type":"task.started","unit":"a"}
{"type":"unit.started","unit":"nobody"}
{"type":"coffee.spilled","unit":"c"}
"""
"""One that fails and is tried again, one that is blocked, one that waits; a unit and a type nobody knows."""


def whole() -> bytes:
    return workloads.stream(UNITS, TASKS)


def half() -> bytes:
    lines = workloads.stream(UNITS, TASKS, window=8).splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 2])


def trouble() -> bytes:
    return TROUBLE


@cache
def recorded() -> bytes:
    data = workloads.instances()
    return data if data is not None else pytest.skip(f"no instances in {workloads.INSTANCES}")


ACROSS_PROCESSES = [
    by_manager_lines,
    by_manager_chunks,
    by_queue_lines,
    by_queue_chunks,
    by_redis,
    by_lean_redis,
]


@pytest.mark.parametrize(
    "fed",
    [by_store_events, by_lock_lines, by_lock_events, by_proxy, by_celery, by_go, *ACROSS_PROCESSES],
)
@pytest.mark.parametrize("data", [whole, half, trouble, recorded])
def test_every_peer_ends_in_the_totals_of_the_store(
    fed: Callable[[bytes], Totals], data: Callable[[], bytes]
) -> None:
    assert fed(data()) == by_store_lines(data())


def test_the_streams_end_where_they_say() -> None:
    everything = Totals(
        accepted=UNITS * (3 + 2 * TASKS) + 2,
        total=UNITS,
        complete=UNITS,
        current_tasks=UNITS * TASKS,
        attempts=UNITS,
    )
    assert by_store_lines(whole()) == everything
    middle = by_store_lines(half())
    assert min(middle.complete, middle.in_progress, middle.pending) > 0
    assert by_store_lines(TROUBLE) == Totals(
        accepted=11, total=3, pending=1, in_progress=1, blocked=1, current_tasks=2, attempts=2
    )


BOUNDS = {
    "throughput": {"<= 1.9", ">= 2.7", ">= 0.95", ">= 15", ">= 20", ">= 0.75", ">= 1.2"},
    "latency": {"<= 2.5", "<= 15", "<= 3"},
    "encoding": {">= 5", "<= 1"},
    "memory": {"<= 320", "<= 420"},
    "import": {"<= 60"},
    "remote": {">= 0.6", ">= 30", ">= 5", ">= 10", ">= 200000"},
    "distance": {"<= 0.5", "<= 3", "<= 0.3", "<= 1.5", "<= 2", "<= 10", "<= 120"},
    "idle": {"<= 20", ">= 0.95"},
    "journal": {">= 0.6", ">= 8", ">= 500", "<= 1.3", "<= 2", "<= 3", ">= 0.7"},
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_is_answered_with_rows_that_hold_a_number_or_say_why_not(question: str) -> None:
    rows = list(QUESTIONS[question](rounds.SMALLEST))
    assert all(bool(row.values) != bool(row.skipped) for row in rows)
    assert {str(row.bound) for row in rows if row.bound} == BOUNDS[question]
    assert len(text(rows).splitlines()) == len(rows) + 1


def test_a_peer_that_is_missing_is_skipped_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go_store, "unavailable", lambda: "go is not installed")
    monkeypatch.setitem(sys.modules, "benchmarks.peers.celery_state", None)
    rows = [row for name in ("throughput", "encoding") for row in QUESTIONS[name](rounds.SMALLEST)]
    reasons = {row.what.rpartition("against ")[2]: row.skipped for row in rows if row.skipped}
    celery = "celery is not installed"
    assert reasons == {"Go": "go is not installed", "Celery": celery, "Celery, lean": celery}


def test_redis_is_skipped_with_a_word_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_state, "unavailable", lambda: "redis-server is not installed")
    rows = list(QUESTIONS["remote"](rounds.SMALLEST))
    skipped = [row for row in rows if row.skipped]
    assert {row.skipped for row in skipped} == {"redis-server is not installed"}
    assert all("against Redis" in row.what for row in skipped)
    assert [str(row.bound) for row in skipped if row.bound] == [">= 10"]


def test_a_stream_is_the_same_for_the_same_arguments() -> None:
    assert workloads.stream(UNITS) == workloads.stream(UNITS)
    assert workloads.stream(UNITS) != workloads.stream(UNITS, seed=2)


def test_each_unit_belongs_to_one_producer_which_keeps_the_order() -> None:
    data = workloads.stream(UNITS, TASKS)
    graph, parts = split(data)
    _, *events, _ = workloads.decoded(data)
    assert data.startswith(graph)
    assert graph.count(b"\n") == 1
    owners = [{event.unit for event in part} for part in parts]
    assert sum(map(len, owners)) == UNITS
    assert [[event for event in events if event.unit in units] for units in owners] == parts


def test_turns_alternate_and_rotate() -> None:
    taken: list[str] = []

    def turn(name: str) -> Callable[[], float]:
        return lambda: taken.append(name) or float(len(taken))

    assert rounds.alternate(3, {"a": turn("a"), "b": turn("b")}) == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert taken == ["a", "b", "b", "a", "a", "b"]


def test_a_ratio_is_best_against_best_and_shows_the_spread_of_the_rounds() -> None:
    row = slower("ours", [2.0, 3.0, 9.0], [1.0, 4.0, 3.0], "", 1.9)
    assert row.cells() == ("ours", "2.00 times", "2.00 (0.75 to 3.00)", "<= 1.9: missed", "")
    assert row.cells(judge=False)[3] == "<= 1.9"


def test_a_peer_wins_where_ours_is_slower_by_a_ratio_below_one() -> None:
    assert faster("ours", [2.0], [1.0], "", 0.4, peer="the lock").lost
    assert not faster("ours", [1.0], [2.0], "", 3, peer="the lock").lost
    assert faster("ours", [1.0], [2.0], "", 3, peer="the lock").missed


def test_the_page_says_first_where_a_peer_wins_and_then_what_misses_its_bound() -> None:
    lost = faster("snapshot", [2.0], [1.0], "ours 2, Go 1 ms", peer="Go")
    missed = amount("memory", [321.0, 330.0], "bytes", 320)
    absent = skipped("against Celery", "celery is not installed", 20)
    began = report.datetime(2026, 1, 5, tzinfo=report.UTC)
    parts = page({"latency": [lost], "memory": [missed, absent]}, began, rounds.FULL).split("\n## ")
    assert parts[1].startswith("Where a peer wins\n\n- snapshot: 0.50 times (ours 2, Go 1 ms)\n")
    assert parts[2].startswith(
        "What does not reach its bound\n\n- memory: 321 bytes, where <= 320 is the least"
    )
    assert markdown([absent]).endswith("| against Celery | skipped | celery is not installed | >= 20 |  |")
    assert "2026-01-05" in parts[-1]


@pytest.mark.parametrize(
    ("arguments", "written"),
    [([], True), (["--quick"], False), (["one"], False), (["--quick", "one"], False)],
)
def test_the_page_is_written_only_where_all_was_measured_at_full_size(
    arguments: list[str],
    written: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: report.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(report, "PAGE", tmp_path / "docs" / "benchmarks.md")
    main({"one": lambda scale: [amount("one", [float(scale.units)], "units")]}, arguments)
    assert (tmp_path / "docs" / "benchmarks.md").exists() is written
    assert ("200 units" if "--quick" in arguments else "10,000 units") in capsys.readouterr().out


def test_a_question_that_is_not_asked_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(QUESTIONS, ["thruput"])
    assert "no such question: thruput" in capsys.readouterr().err
