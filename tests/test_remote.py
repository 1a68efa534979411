"""A store in another process: the same answers, and one that goes on when its store is away for a while.

What its methods answer is in test_contract.py, what its link does when the
other end behaves strangely in test_link.py.
"""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from actorstore import (
    Cursor,
    Event,
    FlushResult,
    ProducerSupersededError,
    RemoteStore,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreTimeoutError,
    StoreUnreachableError,
    UnknownRunError,
    UnknownUnitError,
    connect,
)
from tests.builders import (
    Follower,
    chain,
    check_snapshot,
    diamond,
    line,
    lines,
    orch_completed,
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
from tests.raw import Raw, abandon, close_before, folder, nothing_left, unacked, waiting, why_refused
from tests.threads import (
    ANSWERED,
    CALLS,
    SECONDS,
    doom,
    held,
    kill,
    open_questions,
    results,
    spawn,
    wait_until,
)

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


# Copies.


def test_a_unit_of_a_copy_is_looked_up_at_once(remote: RemoteStore) -> None:
    remote.handle_event(orch_started(diamond()))
    remote.handle_event(unit_started("c"))
    snapshot = remote.snapshot()
    assert snapshot.unit("c") is snapshot.units[2]
    assert snapshot.unit("c").status == "in_progress"
    with pytest.raises(UnknownUnitError):
        snapshot.unit("x")


def test_copies_share_what_did_not_change_between_them(remote: RemoteStore) -> None:
    remote.handle_event(orch_started(units("a", "b", "c")))
    before = remote.snapshot()
    remote.handle_event(unit_started("b"))
    after = remote.snapshot()
    assert [old is new for old, new in zip(before.units, after.units, strict=True)] == [True, False, True]
    assert [unit.status for unit in before.units] == ["pending"] * 3


def test_a_copy_is_the_store_s_own_after_whatever_happens(store: Store, remote: RemoteStore) -> None:
    for event in [
        orch_started(diamond()),
        *whole_run(chain(5))[:8],
        unit_added("e", ["a"], tasks=3),
        unit_failed("u1", "boom"),
        *whole_run(units("x")),
        orch_started(diamond()),
        orch_started(units("n"), run="nightly"),
        unit_started("n", run="nightly"),
    ]:
        remote.handle_event(event)
        copy = check_snapshot(remote.snapshot())
        assert copy.json() == store.snapshot().json()
        assert remote.snapshot("").json() == store.snapshot("").json()


def test_the_run_that_started_last_is_followed_by_copies(remote: RemoteStore) -> None:
    remote.handle_event(orch_started(units("a")))
    assert remote.snapshot().run == ""
    remote.handle_event(orch_started(units("b"), run="second"))
    assert [unit.id for unit in remote.snapshot().units] == ["b"]
    assert remote.snapshot().run == "second"
    remote.handle_event(unit_started("a"))
    assert remote.snapshot("").unit("a").status == "in_progress"
    remote.handle_event(orch_started(units("c")))  # which begins the first anew
    assert [unit.id for unit in remote.snapshot().units] == ["c"]


def test_copies_asked_for_by_many_threads_never_go_back(store: Store, remote: RemoteStore) -> None:
    store.handle_event(orch_started(chain(50)))
    done = threading.Event()

    def feed() -> None:
        for task in range(1, 301):
            remote.handle_event(task_started(f"u{task % 50}", task))
        remote.flush()
        done.set()

    def look() -> int:
        seen = []
        while not done.is_set() or not seen:
            seen.append(check_snapshot(remote.snapshot()).version)
        assert seen == sorted(seen)
        return len(seen)

    feeding, looking = spawn(feed), [spawn(look) for _ in range(3)]
    feeding.result(SECONDS)
    assert all(results(looking))
    assert remote.snapshot().json() == store.snapshot().json()


def test_a_copy_says_whether_somebody_is_connected(store: Store, remote: RemoteStore) -> None:
    store.handle_event(orch_started(units("a")))
    assert remote.snapshot().connected is False
    remote.set_connected(True)
    assert remote.snapshot().connected is store.snapshot().connected is True
    remote.set_connected(False)
    assert remote.snapshot().connected is False
    remote.handle_event(unit_queued("a"))  # and one that feeds is connected, whatever is said
    assert remote.snapshot().connected is True
    remote.set_connected(False)
    assert remote.snapshot().connected is True


# The store is away for a while.


def test_what_is_handed_over_while_the_store_is_away_is_sent_to_the_next(path: Path) -> None:
    with Store(listen=path):
        remote = connect(path)
        remote.handle_event(orch_started(units("a")))
        assert remote.flush().accepted == 1
    for _ in range(10):
        remote.handle_event(unit_queued("a"))
        remote.handle_lines(line(unit_started("a")) + b"bad\n")
    with Store(listen=path) as second:
        result = remote.flush(SECONDS)
        assert (result.accepted, result.rejected) == (21, 10)
        stats = second.stats()
        assert (stats.accepted, stats.rejected) == (20, 10)
        remote.close()


def test_unknown_units_are_counted_over_all_stores_that_this_client_has_fed(path: Path) -> None:
    with RemoteStore(path) as remote:
        for _ in range(2):
            with Store(listen=path):
                with connect(path) as other:
                    other.handle_event(unit_queued("nobody"))
                    assert other.flush(SECONDS).unknown_units == 1
                remote.handle_event(orch_started(units("a")))
                remote.handle_event(unit_queued("a"))
                remote.handle_lines(line(unit_queued("nobody")) * 3 + b"bad\n\n")
                remote.flush(SECONDS)
        assert remote.flush(SECONDS) == FlushResult(10, 2, 6)


def test_stores_that_are_closed_under_load_count_each_line_once_between_them(path: Path) -> None:
    remote = RemoteStore(path, kept_bytes=20_000)
    stop = threading.Event()

    def feed() -> int:
        handed = 0
        while not stop.is_set():
            remote.handle_lines(line(unit_queued("a")) * 100)
            handed += 100
        return handed

    feeding = spawn(feed)
    versions = []
    for turn in range(4):
        with Store(listen=path) as store:
            updates = store.subscribe()
            wait_until(lambda: store.stats().accepted)
            if turn == 3:
                stop.set()
                handed = feeding.result(SECONDS)
                assert remote.flush(SECONDS).accepted == handed
                remote.close()
        versions.append(list(updates)[-1].version)
    assert all(versions)
    assert sum(versions) == handed


def test_a_question_while_the_store_is_away_says_so_and_works_again_later(path: Path) -> None:
    with Store(listen=path) as store:
        remote = connect(path)
        store.handle_event(orch_started(units("a")))
        assert remote.snapshot().status == "running"
    for question in (remote.snapshot, remote.graph, remote.runs):
        with pytest.raises(StoreUnreachableError) as raised:
            question(timeout=0.05)
        assert raised.value.address == str(path)
    with Store(listen=path) as store:
        store.handle_event(orch_started(units("b"), run="next"))
        assert [unit.id for unit in remote.snapshot(timeout=SECONDS).units] == ["b"]
        assert [info.run for info in remote.runs()] == ["next"]
        remote.close()


def test_a_question_that_is_asked_while_the_store_is_away_is_answered_by_the_next(path: Path) -> None:
    with Store(listen=path):
        remote = connect(path)
    asked = spawn(lambda: remote.snapshot(timeout=SECONDS))
    waited = spawn(remote.wait)
    with Store(listen=path) as store:
        store.handle_lines(lines(*whole_run(diamond())))
        assert waited.result(SECONDS).status == "completed"
        assert asked.result(SECONDS).version <= store.snapshot().version
        remote.close()


def test_a_subscription_goes_on_with_the_next_store_from_the_whole_run(path: Path) -> None:
    follower = Follower()
    with Store(listen=path) as store:
        remote = connect(path)
        store.handle_event(orch_started(chain(3)))
        updates = remote.subscribe()
        follower.take(next(updates))
        store.handle_event(unit_started("u0"))
        follower.take(next(updates))
    following = spawn(next, updates)
    with Store(listen=path) as store:
        store.handle_event(orch_started(diamond()))
        update = following.result(SECONDS)
        while not update.units:  # it may have come before the run
            update = next(updates)
        assert update.since is None
        assert follower.take(update).snapshot().json() == store.snapshot().json()
        store.handle_event(unit_started("a"))
        update = next(updates)
        assert [unit.id for unit in update.units] == ["a"]
        assert follower.take(update).snapshot().json() == store.snapshot().json()
        updates.close()  # type: ignore[attr-defined]
        remote.close()


def test_a_subscription_misses_nothing_when_only_the_connection_is_lost(
    store: Store, remote: RemoteStore
) -> None:
    store.handle_event(orch_started(chain(5)))
    updates = remote.subscribe()
    follower = Follower().take(next(updates))
    for number in range(5):
        remote._link._socket.shutdown(2)  # type: ignore[union-attr]
        store.handle_event(unit_started(f"u{number}"))
        update = next(updates)
        assert update.since is not None
        follower.take(update)
        while follower.snapshot().version < store.snapshot().version:
            follower.take(next(updates))
    assert follower.snapshot().units == store.snapshot().units


def test_connecting_to_nobody_names_the_address(path: Path) -> None:
    with pytest.raises(StoreUnreachableError, match=str(path)) as raised:
        connect(path)
    assert raised.value.address == str(path)


def test_the_socket_may_be_named_by_the_environment(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTORSTORE_SOCKET", str(path))
    with connect() as remote:
        assert remote.address == str(path)


# Room.


def test_a_producer_waits_while_its_buffer_is_full_and_goes_on_later(store: Store, path: Path) -> None:
    with connect(path, kept_bytes=10_000) as remote:
        with held(store):
            feeding = [
                spawn(lambda: [remote.handle_event(unit_queued("a")) for _ in range(MANY)]),
                spawn(lambda: [remote.handle_lines(line(unit_queued("a")) * 1000) for _ in range(1000)]),
            ]
            wait_until(lambda: waiting(remote) == 2)
            assert not any(future.done() for future in feeding)
        results(feeding)
        assert remote.flush().accepted == MANY + 1_000_000
    assert store.stats().accepted == MANY + 1_000_000


def test_a_question_is_asked_although_the_buffer_is_full(store: Store, path: Path) -> None:
    with connect(path, kept_bytes=1000) as remote:
        with held(store):
            feeding = spawn(lambda: [remote.handle_event(unit_queued("a")) for _ in range(MANY)])
            wait_until(lambda: waiting(remote))
            asked = spawn(lambda: remote.snapshot(timeout=SECONDS))
            with pytest.raises(StoreTimeoutError):
                remote.snapshot(timeout=0.01)
        feeding.result(SECONDS)
        assert asked.result(SECONDS).version > 0


# Order, and counts.


def test_many_threads_hand_over_at_once_and_each_keeps_its_order(store: Store, remote: RemoteStore) -> None:
    ids = ["a", "b", "c", "d"]
    remote.handle_event(orch_started(units(*ids)))

    def feed(id: str) -> None:
        for task in range(1, 1001):
            if task % 3:
                remote.handle_event(task_started(id, task))
            else:
                remote.handle_lines(line(task_started(id, task)))
            if not task % 250:
                assert remote.snapshot().unit(id).current_task == task

    results([spawn(feed, id) for id in ids])
    assert remote.flush().accepted == 4001
    assert [unit.current_task for unit in store.snapshot().units] == [1000] * 4


def test_lines_that_would_control_are_rejected_and_not_obeyed(store: Store, remote: RemoteStore) -> None:
    controls = (
        b'{"bye":{}}\n{"hello":{"protocol":1}}\n {"ask" : {"id":1,"what":"connected","connected":true}}\n'
    )
    remote.handle_lines(controls + line(unit_queued("a")))
    result = remote.flush()
    assert (result.accepted, result.rejected) == (1, 3)
    assert store.stats().rejected == 3
    assert [rejection.line for rejection in store.stats().rejections] == [1, 2, 3]


def test_a_flush_counts_what_this_client_handed_over_and_nobody_else(
    store: Store, remote: RemoteStore, path: Path
) -> None:
    with connect(path) as other:
        other.handle_lines(line(unit_queued("a")) * 10 + b"bad\n")
        store.handle_event(unit_queued("a"))
        remote.handle_lines(b"\n" + line(unit_queued("a")) + b"bad\nbad\n")
        assert (remote.flush().accepted, remote.flush().rejected) == (1, 2)
        assert (other.flush().accepted, other.flush().rejected) == (10, 1)


def test_an_event_whose_payload_does_not_fit_is_rejected_by_the_store(
    store: Store, remote: RemoteStore
) -> None:
    remote.handle_event(Event("orch.started", payload={"graph": "none"}))
    remote.handle_event(unit_queued("a"))
    result = remote.flush()
    assert (result.accepted, result.rejected) == (1, 1)


def test_large_and_small_lines_keep_their_order(remote: RemoteStore) -> None:
    for _ in range(3):
        remote.handle_event(orch_started(chain(3000)))
        remote.handle_event(unit_started("u2999"))
        assert remote.snapshot().unit("u2999").status == "in_progress"
        remote.handle_lines(line(orch_started(chain(2000))) + line(unit_completed("u1999")))
        assert remote.snapshot().unit("u1999").status == "complete"
        assert len(remote.snapshot().units) == 2000


# Waiting, and its end.


def test_waiting_returns_the_run_when_it_has_ended(store: Store, remote: RemoteStore) -> None:
    store.handle_event(orch_started(units("a")))
    waited = spawn(remote.wait)
    wait_until(lambda: open_questions(store) == 1)
    store.handle_event(orch_completed())
    assert waited.result(SECONDS).status == "completed"


@pytest.mark.parametrize("run", ["nightly", None])
def test_waiting_goes_on_when_a_store_without_a_journal_restarts(path: Path, run: str | None) -> None:
    with RemoteStore(path) as remote:
        with Store(listen=path) as store:
            store.handle_event(orch_started(units("a"), run="nightly"))
            waited = spawn(remote.wait, run)
            wait_until(lambda: open_questions(store) == 1)
        with Store(listen=path) as store:
            wait_until(lambda: open_questions(store) == 1)
            store.handle_event(orch_started(units("a"), run="other"))
            assert not waited.done()
            store.handle_event(orch_started(units("a"), run="nightly"))
            store.handle_event(orch_completed(run="nightly"))
            assert waited.result(SECONDS).run == "nightly"
            with pytest.raises(UnknownRunError):
                remote.wait("no run")


@pytest.mark.parametrize("name", ["snapshot", "graph", "runs", "wait", "flush"])
def test_who_waits_in_vain_is_told_in_time_and_leaves_no_question(
    store: Store, remote: RemoteStore, name: str
) -> None:
    store.handle_event(orch_started(units("a")))
    remote.handle_event(unit_queued("a"))
    remote.flush()
    with held(store):
        remote.handle_event(unit_queued("a"))
        with pytest.raises(StoreTimeoutError) as raised:
            getattr(remote, name)(timeout=0.02)
        assert raised.value.pending == 1
    wait_until(lambda: open_questions(store) == 0)
    assert remote.flush(SECONDS).accepted == 2


def test_an_unknown_run_is_an_error_that_names_it(remote: RemoteStore) -> None:
    for question in (remote.snapshot, remote.graph, remote.wait, remote.subscribe):
        with pytest.raises(UnknownRunError) as raised:
            question("nightly")
        assert raised.value.run == "nightly"


def test_a_cursor_of_one_store_works_however_it_is_reached(store: Store, remote: RemoteStore) -> None:
    store.handle_event(orch_started(units("a", "b")))
    there = next(remote.subscribe())
    store.handle_event(unit_started("b"))
    for reached in (store, remote):
        update = next(reached.subscribe(since=there.cursor))
        assert [unit.id for unit in update.units] == ["b"]
        assert next(reached.subscribe(since=Cursor("nonsense"))).since is None


def test_the_stats_count_connections(store: Store, remote: RemoteStore, path: Path) -> None:
    assert remote.stats().connections == 1
    with connect(path):
        assert remote.stats() == msgspec.structs.replace(store.stats(), connections=2)


# Closing.


def test_after_closing_everything_is_refused(store: Store, path: Path) -> None:
    remote = connect(path)
    remote.handle_event(unit_queued("a"))
    remote.close()
    for name, call in CALLS.items():
        with pytest.raises(StoreClosedError):
            call(remote)
        assert name
    remote.close()
    assert store.stats().accepted == 1


def test_closing_sends_what_is_held_and_waits_for_the_acks(store: Store, path: Path) -> None:
    remote = RemoteStore(path)
    remote.handle_lines(line(unit_queued("a")) * 50_000)
    remote.close()
    assert store.stats().accepted == 50_000


def test_closing_may_give_up_waiting_and_goes_on_sending(store: Store, path: Path) -> None:
    remote = connect(path)
    with held(store):
        for _ in range(100):
            remote.handle_event(unit_queued("a"))
        with pytest.raises(StoreTimeoutError, match="100") as raised:
            remote.close(0.05)
        assert raised.value.pending == 100
        with pytest.raises(StoreClosedError):
            remote.handle_event(unit_queued("a"))
    remote.close()
    assert store.stats().accepted == 100


def test_closing_when_the_store_is_gone_ends_with_some_patience_and_counts_what_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorstore.link.PATIENCE_SECONDS", 0.1)
    with Store(listen=path):
        remote = connect(path)
    remote.handle_lines(line(unit_queued("a")) * 7)
    with pytest.raises(StoreUnreachableError, match="7 lines are not acked") as raised:
        remote.close()
    assert raised.value.unacked == 7
    abandon(remote)


def test_closing_lets_everybody_go_who_waits(store: Store, path: Path) -> None:
    store.handle_event(orch_started(units("a")))
    remote = connect(path)
    updates = remote.subscribe()
    next(updates)
    waiting_ones = [spawn(remote.wait), spawn(lambda: list(updates))]
    wait_until(lambda: open_questions(store) == 2)
    remote.close()
    with pytest.raises(StoreClosedError):
        waiting_ones[0].result(SECONDS)
    assert waiting_ones[1].result(SECONDS) == []


def test_a_subscription_sees_the_last_change_of_a_client_that_is_closed(store: Store, path: Path) -> None:
    store.handle_event(orch_started(units("a")))
    remote = connect(path)
    updates = remote.subscribe()
    next(updates)
    remote.handle_event(unit_started("a"))
    remote.close()
    assert [update.units[0].status for update in updates if update.units] == ["in_progress"]


def test_closing_from_many_threads_is_closing_once(store: Store, path: Path) -> None:
    remote = connect(path)
    remote.handle_lines(line(unit_queued("a")) * 1000)
    results([spawn(remote.close) for _ in range(4)])
    assert store.stats().accepted == 1000


def test_one_that_is_closed_is_forgotten_by_the_store(store: Store, path: Path) -> None:
    for _ in range(5):
        with connect(path) as remote:
            remote.handle_event(unit_queued("a"))
    wait_until(lambda: store.stats().connections == 0)
    wait_until(lambda: not store._mailbox.ask(lambda actor: len(actor._producers), SECONDS))


def test_one_that_is_forgotten_sends_what_it_holds_and_ends(store: Store, path: Path) -> None:
    remote = RemoteStore(path)
    remote.handle_lines(line(unit_queued("a")) * 1000)
    gone = weakref.ref(remote)
    del remote
    gc.collect()
    assert gone() is None
    wait_until(lambda: store.stats().accepted == 1000)
    wait_until(lambda: store.stats().connections == 0)


def test_a_subscription_keeps_its_client_alive(store: Store, path: Path) -> None:
    store.handle_event(orch_started(units("a")))
    updates = connect(path).subscribe()
    gc.collect()
    next(updates)
    store.handle_event(unit_started("a"))
    assert next(updates).units[0].status == "in_progress"
    updates.close()  # type: ignore[attr-defined]


# Others.


def test_a_client_pickles_to_its_address_and_options(store: Store, path: Path) -> None:
    with connect(path, kept_bytes=12_345) as remote:
        remote.handle_event(unit_queued("a"))
        data = pickle.dumps(remote)
        with pickle.loads(data) as copy:
            assert copy.address == str(path)
            assert copy._link.kept_bytes == 12_345
            copy.handle_event(unit_queued("a"))
            assert copy.flush().accepted == 1
        assert remote.flush().accepted == 1
    assert store.stats().accepted == 2


def test_what_pickles_holds_nothing_that_was_handed_over(store: Store, remote: RemoteStore) -> None:
    remote.handle_event(unit_failed("a", "secret"))
    assert b"secret" not in pickle.dumps(remote)


def test_a_listening_store_pickles_to_a_client(store: Store, path: Path) -> None:
    with pickle.loads(pickle.dumps(store)) as copy:
        assert isinstance(copy, RemoteStore)
        copy.handle_event(unit_queued("a"))
        copy.flush()
    assert store.stats().accepted == 1


def test_a_client_of_a_forgotten_id_is_superseded_and_says_so(
    store: Store, remote: RemoteStore, path: Path
) -> None:
    remote.handle_event(unit_queued("a"))
    remote.flush()
    waiting_one = spawn(remote.wait)
    wait_until(lambda: open_questions(store) == 1)
    with Raw(path) as other:
        assert other.hello(remote._link._ledger.producer)["lines"] == 1
        assert isinstance(why_refused(remote), ProducerSupersededError)
        with pytest.raises(ProducerSupersededError):
            waiting_one.result(SECONDS)
        for name in ANSWERED:
            with pytest.raises(ProducerSupersededError):
                CALLS[name](remote)
        assert other.send(line(unit_queued("a"))).acked(2)


def test_a_store_that_has_failed_says_so_to_who_waits(store: Store, remote: RemoteStore) -> None:
    store.handle_event(orch_started(units("a")))
    updates = remote.subscribe()
    next(updates)
    waiting_ones = [spawn(remote.wait), spawn(next, updates)]
    wait_until(lambda: open_questions(store) == 2)
    kill(store)
    for future in waiting_ones:
        with pytest.raises(StoreFailedError):
            future.result(SECONDS)
    with pytest.raises(StoreUnreachableError, match="died"):
        remote.snapshot(timeout=0.1)


def test_lines_that_a_failed_store_has_not_applied_are_sent_to_the_next(path: Path) -> None:
    store = Store(listen=path)
    remote = connect(path)
    doom(store)
    remote.handle_lines(line(unit_queued("a")) * 3)
    with pytest.raises(StoreUnreachableError, match="died"):
        remote.flush(1)
    assert unacked(remote) == 3
    store.close()
    with Store(listen=path) as second:
        assert remote.flush(SECONDS).accepted == 3
        assert second.stats().accepted == 3
        remote.close()


def test_threads_of_an_executor_share_a_client(store: Store, remote: RemoteStore) -> None:
    store.handle_event(orch_started(chain(20)))

    def work(number: int) -> str:
        with remote.unit(f"u{number}"):
            remote.handle_event(task_started(f"u{number}"))
        return remote.snapshot().unit(f"u{number}").status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(20))) == {"complete"}
    assert store.snapshot().summary.complete == 20


@pytest.mark.parametrize("is_awaited", [False, True])
def test_lines_that_come_while_a_client_is_closed_are_counted_as_far_as_they_are_sent(
    store: Store, remote: RemoteStore, is_awaited: bool
) -> None:
    data = line(unit_queued("a")) * 5000
    close_before(remote._link.handover, 3)
    with pytest.raises(StoreClosedError, match="only the first") as caught:
        asyncio.run(remote.aio.handle_lines(data)) if is_awaited else remote.handle_lines(data)
    remote.close()
    assert 0 < caught.value.handed < 5000
    assert store.stats().version == caught.value.handed
