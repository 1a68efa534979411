"""Stores with a journal: what was acked is there again, and faults are waited out or end the service."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from actorstore import (
    Event,
    RemoteStore,
    Store,
    StoreProcess,
)
from actorstore.errors import (
    JournalDamagedError,
    JournalFailedError,
    JournalFullError,
    JournalInUseError,
    NoJournalError,
    StoreClosedError,
    StoreTimeoutError,
    UnknownRunError,
    VersionGoneError,
)
from actorstore.journal import Durability, Journal, NoRoomError
from actorstore.writer import Writer
from tests.raw import Raw
from tests.threads import SECONDS, spawn, wait_until

GRAPH = {"a": [], "b": ["a"], "c": ["b"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j"


def feed(store: Store | RemoteStore, events: int, *, first: int = 0) -> None:
    """Start the run where nothing has, and start its units in turn."""
    if not first:
        store.handle_event(Event.orch_started(GRAPH))
    for number in range(max(first, 1), events):
        store.handle_event(Event.unit_started("abc"[number % 3]))


def troubled(store: Store) -> bool:
    stats = store.stats()
    return stats.journal is not None and stats.journal.trouble is not None


def snapped(store: Store) -> bool:
    """Whether no checkpoint is being written."""
    return store._writer is not None and not store._writer._keeps


class Disk:
    """Writes of journals, which can be made to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Callable[[], Exception] | None = None
        self.tries = 0
        real = Journal.append

        def append(journal: Journal, *args: object) -> object:
            self.tries += 1
            if self.error is not None:
                raise self.error()
            return real(journal, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Journal, "append", append)

    @contextmanager
    def full(self) -> Iterator[None]:
        self.error = lambda: NoRoomError("no space left on the device")
        try:
            yield
        finally:
            self.error = None


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


# What was acked is there again.


@pytest.mark.parametrize("durability", list(Durability))
def test_a_store_goes_on_from_its_journal(path: Path, durability: str) -> None:
    with Store(journal=path, durability=durability) as store:
        feed(store, 5)
        store.handle_lines(b'{"type":"unit.failed","unit":"a","error":"boom"}\n{"type":7}\n\n')
        before = store.snapshot().json()
        graph = store.graph()
        assert store.flush().rejected == 1
    with Store(journal=path, durability=durability) as store:
        assert store.snapshot().json() == before
        assert store.graph() == graph
        stats = store.stats()
        assert (stats.version, stats.accepted) == (6, 0)
        feed(store, 9, first=6)
        assert store.snapshot().version == 9
        assert store.stats().accepted == 3


def test_an_unknown_durability_is_refused_and_makes_no_file(path: Path) -> None:
    with pytest.raises(ValueError, match="lose-nothing, lose-a-second, lose-unwritten"):
        Store(journal=path, durability="none")
    assert not path.exists()


def test_events_of_every_kind_come_back_as_they_were(path: Path) -> None:
    with Store(journal=path) as store:
        feed(store, 4)
        store.handle_event(Event.unit_added("d", tasks=3, depends_on=["a"]))
        store.handle_event(Event.unit_started("d", total_tasks=7, completed_tasks=2))
        store.handle_event(Event("note", payload={"any": [1, "\u00e9", None]}, unit="d", pr=7))
        store.handle_event(
            Event("unit.failed", unit="b", time="2026-01-01T00:00:00+05:30", error="\u20ac \n x")
        )
        store.handle_event(Event.orch_started({"x": []}, parallelism=4, run="r2"))
        store.reset("r2")
        before = [store.snapshot(run).json() for run in ("", "r2")]
        graph = store.graph("")
    with Store(journal=path) as store:
        assert [store.snapshot(run).json() for run in ("", "r2")] == before
        assert store.graph("") == graph


def test_a_cursor_from_before_a_restart_is_answered_without_a_hole(path: Path) -> None:
    with Store(journal=path) as store:
        feed(store, 4)
        follower = store.subscribe("")
        first = next(follower)
        store.handle_event(Event.unit_failed("b", "boom"))
        cursor = next(follower).cursor
    with Store(journal=path) as store:
        store.handle_event(Event.unit_completed("c"))
        for since in (first.cursor, cursor):
            update = next(store.subscribe("", since=since))
            named = {unit.id for unit in update.units}
            assert update.since is None or {"b", "c"} <= named | ({"b"} if since == cursor else set())
            assert update.version == 6


def test_a_store_of_a_child_process_has_a_journal_too(path: Path) -> None:
    with StoreProcess(journal=path) as remote:
        feed(remote, 5)
        remote.flush()
        stats = remote.stats()
        assert stats.journal is not None
        assert stats.journal.path == str(path)
    with StoreProcess(journal=path, durability="lose-a-second") as remote:
        assert remote.snapshot().version == 5
    with pytest.raises(JournalInUseError) as caught, Store(journal=path):
        StoreProcess(journal=path)
    assert caught.value.owner == os.getpid()


def test_coroutines_wait_for_the_disk_as_threads_do(path: Path, disk: Disk) -> None:
    async def work() -> None:
        with Store(journal=path) as store:
            await store.aio.handle_event(Event.orch_started(GRAPH))
            assert (await store.aio.flush()).accepted == 1
            assert (await store.aio.snapshot(at=0)).version == 0
            with disk.full():
                await store.aio.handle_event(Event.unit_started("a"))
                with pytest.raises(StoreTimeoutError, match="no space left"):
                    await store.aio.flush(0.2)
            await store.aio.flush()

    asyncio.run(work())


def test_a_forked_child_that_ends_leaves_the_journal_to_its_parent(tmp_path: Path, path: Path) -> None:
    with Store(journal=path, listen=tmp_path / "s") as store:
        feed(store, 3)
        store.flush()
        child = os.fork()
        if not child:
            try:
                feed(store, 2, first=1)  # over the socket, as a producer of its own
                store.flush(SECONDS)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert store.snapshot().version == 4
        assert path.with_name("j-wal").exists()
    with Store(journal=path) as store:
        assert store.snapshot().version == 4


# Committed only, and read your writes.


def test_an_answer_shows_what_its_caller_handed_over_and_is_durable(path: Path) -> None:
    with Store(journal=path) as store:
        for number in range(1, 40):
            feed(store, number, first=number - 1)
            assert store.snapshot("").version == number


def test_nothing_is_seen_before_it_is_durable(path: Path, disk: Disk) -> None:
    with Store(journal=path) as store:
        feed(store, 3)
        store.flush()
        with disk.full():
            feed(store, 6, first=3)
            wait_until(lambda: troubled(store))
            assert store.snapshot().version == 3
            stats = store.stats()
            assert (stats.version, stats.pending) == (3, 3)
            assert stats.journal is not None
            assert "no space left" in (stats.journal.trouble or "")
            with pytest.raises(StoreTimeoutError, match="journal cannot be written: no space left"):
                store.flush(0.1)
        assert store.flush(SECONDS).accepted == 6
        stats = store.stats()
        assert stats.journal is not None
        assert (stats.pending, stats.journal.trouble) == (0, None)


def test_a_disk_that_is_full_again_and_again_loses_nothing(path: Path, disk: Disk) -> None:
    with Store(journal=path) as store:
        for number in range(20):
            with disk.full():
                feed(store, number + 1, first=number)
                tries = disk.tries
                wait_until(lambda tries=tries: disk.tries > tries)
            store.flush(SECONDS)
        assert store.snapshot().version == 20
    with Store(journal=path) as store:
        assert store.snapshot().version == 20


def test_producers_wait_while_the_disk_is_full_and_memory_is_bounded(path: Path, disk: Disk) -> None:
    line = b'{"type":"unit.started","unit":"a","error":"%s"}\n' % (b"x" * 1000)
    with Store(journal=path) as store:
        feed(store, 1)
        store.flush()
        with disk.full():
            feeding = spawn(store.handle_lines, line * 40_000)
            wait_until(lambda: store.stats().pending > 8000)
            assert not feeding.done()
            assert store.snapshot().version == 1
            assert store.stats().pending < 12_000
        feeding.result()
        assert store.flush(SECONDS).accepted == 40_001


def test_others_read_over_the_socket_while_the_disk_is_full(tmp_path: Path, path: Path, disk: Disk) -> None:
    with Store(journal=path, listen=tmp_path / "s") as store, RemoteStore(tmp_path / "s") as feeder:
        feed(feeder, 3)
        feeder.flush()
        with disk.full():
            feed(feeder, 5, first=3)
            wait_until(lambda: troubled(store))
            with RemoteStore(tmp_path / "s") as reader:
                assert reader.snapshot().version == 3
                assert reader.snapshot(at=2).version == 2
            with pytest.raises(StoreTimeoutError):
                feeder.flush(0.2)
        assert feeder.flush(SECONDS).accepted == 5


def test_a_store_that_is_closed_while_the_disk_is_full_gives_up_in_time(path: Path, disk: Disk) -> None:
    store = Store(journal=path)
    feed(store, 2)
    store.flush()
    with disk.full():
        feed(store, 4, first=2)
        with pytest.raises(StoreTimeoutError, match="no space left"):
            store.close(0.3)
    store.close(SECONDS)
    with Store(journal=path) as again:
        assert again.snapshot().version == 4


# The disk fails.


def test_a_failed_sync_ends_the_service_with_the_reason(path: Path, disk: Disk) -> None:
    store = Store(journal=path)
    feed(store, 3)
    store.flush()
    disk.error = lambda: JournalFailedError(str(path), "fsync failed")
    follower = store.subscribe("")
    next(follower)
    store.handle_event(Event.unit_completed("a"))
    with pytest.raises(JournalFailedError, match="fsync failed"):
        store.flush(SECONDS)
    with pytest.raises(JournalFailedError):
        next(follower)
    for call in (store.snapshot, store.stats, lambda: store.handle_event(Event.unit_completed("b"))):
        with pytest.raises(JournalFailedError):
            call()
    store.close()
    disk.error = None
    with Store(journal=path) as store:
        assert store.snapshot().version == 3


def test_a_dead_writer_is_a_refused_service(path: Path, disk: Disk) -> None:
    store = Store(journal=path)
    disk.error = lambda: ZeroDivisionError("a bug")
    store.handle_event(Event.orch_started(GRAPH))
    with pytest.raises(JournalFailedError, match="a bug"):
        store.flush(SECONDS)
    store.close()


def test_a_producer_keeps_what_a_failed_store_has_not_acked(tmp_path: Path, path: Path, disk: Disk) -> None:
    with RemoteStore(tmp_path / "s") as producer:
        with Store(journal=path, listen=tmp_path / "s") as store:
            feed(producer, 3)
            producer.flush()
            disk.error = lambda: JournalFailedError(str(path), "fsync failed")
            feed(producer, 6, first=3)
            wait_until(lambda: store._intake.closed is not None)
            with pytest.raises(JournalFailedError):
                store.flush()
        disk.error = None
        with Store(journal=path, listen=tmp_path / "s") as store:
            assert producer.flush(SECONDS).accepted == 6
            assert store.snapshot().version == 6


def test_a_bug_in_the_actor_is_a_refused_service_and_lets_go_of_the_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from actorstore.state import State

    store = Store(journal=path)
    monkeypatch.setattr(State, "apply", lambda *_: 1 / 0)
    store.handle_event(Event.orch_started(GRAPH))
    with pytest.raises(StoreClosedError):
        store.flush(SECONDS)
    store.close()
    monkeypatch.undo()
    wait_until(lambda: not path.with_name("j.lock").exists())
    with Store(journal=path) as store:
        assert store.snapshot().version in (0, 1)


# Exactly once, for good.


def test_a_producer_that_comes_back_to_a_restarted_store_goes_on_from_its_count(
    tmp_path: Path, path: Path
) -> None:
    with Store(journal=path, listen=tmp_path / "s"), Raw(tmp_path / "s") as raw:
        assert raw.hello("p")["lines"] == 0
        raw.send(b'{"type":"orch.started"}\nbad\n\n').acked(3)
    with Store(journal=path, listen=tmp_path / "s") as store, Raw(tmp_path / "s") as raw:
        welcome = raw.hello("p")
        assert (welcome["lines"], welcome["rejected"], welcome["version"]) == (3, 1, 1)
        raw.send(b'{"type":"orch.completed"}\n').acked(4)
        assert store.snapshot().version == 2


def test_a_store_has_the_same_id_for_as_long_as_its_journal_lives(tmp_path: Path, path: Path) -> None:
    ids = set()
    for _ in range(2):
        with Store(journal=path, listen=tmp_path / "s"), Raw(tmp_path / "s") as raw:
            ids.add(raw.hello()["store"])
    assert len(ids) == 1


def test_a_goodbye_is_remembered_too(tmp_path: Path, path: Path) -> None:
    with Store(journal=path, listen=tmp_path / "s") as store:
        with RemoteStore(tmp_path / "s") as producer:
            feed(producer, 3)
        wait_until(lambda: store.stats().connections == 0)
        with Raw(tmp_path / "s") as raw:
            raw.hello("p")
            raw.send(b'{"type":"x"}\n').acked(1)
    journal = Journal(path)
    steps = [batch.steps for batch in journal.batches(0)]
    journal.close()
    assert any(b"\xff" in each for each in steps)
    with Store(journal=path, listen=tmp_path / "s"), Raw(tmp_path / "s") as raw:
        assert raw.hello("p")["lines"] == 1


def test_who_only_reads_leaves_nothing_in_the_journal(tmp_path: Path, path: Path) -> None:
    with Store(journal=path, listen=tmp_path / "s") as store:
        feed(store, 2)
        store.flush()
        before = store.stats().journal
        for _ in range(5):
            with RemoteStore(tmp_path / "s") as reader:
                reader.snapshot()
        wait_until(lambda: store.stats().connections == 0)
        after = store.stats().journal
        assert before is not None
        assert after is not None
        assert after.batches == before.batches


# Checkpoints, the past, and its end.


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint every few hundred bytes of lines."""
    monkeypatch.setattr(Writer, "wants_checkpoint", lambda self: not self._keeps)


def checkpoints(path: Path) -> int:
    journal = Journal(path)
    try:
        return len(journal.checkpoints())
    finally:
        journal.close()


def test_a_store_recovers_from_a_checkpoint_and_what_came_after(path: Path, dense: None) -> None:
    with Store(journal=path) as store:
        for number in range(30):
            feed(store, number + 1, first=number)
            store.flush()
        before, graph = store.snapshot().json(), store.graph()
    assert checkpoints(path) > 3
    with Store(journal=path) as store:
        assert (store.snapshot().json(), store.graph()) == (before, graph)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    path: Path, dense: None, caplog: pytest.LogCaptureFixture
) -> None:
    import sqlite3

    with Store(journal=path) as store:
        for number in range(10):
            feed(store, number + 1, first=number)
            store.flush()
        before = store.snapshot().json()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE part SET data = x'5b5d' WHERE seq = (SELECT max(seq) FROM checkpoint)")
    connection.close()
    with Store(journal=path) as store:
        assert store.snapshot().json() == before
    assert "the one before it is used" in caplog.text


def test_every_version_can_be_seen_again(path: Path, dense: None) -> None:
    seen = {}
    with Store(journal=path) as store:
        for number in range(25):
            feed(store, number + 1, first=number)
            snapshot = store.snapshot()
            seen[snapshot.version] = snapshot.json()
        assert {at: store.snapshot(at=at).json() for at in seen} == seen
        assert store.snapshot(at=0).status == "waiting"
        with pytest.raises(VersionGoneError, match="has not come yet; ask for one of 0 to 25"):
            store.snapshot(at=26)
        with pytest.raises(VersionGoneError):
            store.snapshot(at=-1)
        with pytest.raises(UnknownRunError):
            store.snapshot("r", at=5)
    with Store(journal=path) as store:
        assert {at: store.snapshot(at=at).json() for at in seen} == seen


def test_a_version_in_the_middle_of_a_batch_can_be_seen(path: Path) -> None:
    with Store(journal=path) as store:
        store.handle_lines(
            b'{"type":"orch.started","payload":{"graph":{"nodes":[{"id":"a"}]}}}\n'
            + b'{"type":"unit.started","unit":"a"}\n' * 5000
        )
        for at in (1, 2, 700, 4999, 5001):
            assert store.snapshot(at=at).units[0].attempts == at - 1


def test_a_store_without_a_journal_says_how_to_have_a_past(tmp_path: Path) -> None:
    with Store(listen=tmp_path / "s") as store:
        with pytest.raises(NoJournalError, match="journal=FILE"):
            store.snapshot(at=1)
        with pytest.raises(NoJournalError):
            store.compact(keep=1)
        with RemoteStore(tmp_path / "s") as remote, pytest.raises(NoJournalError):
            remote.snapshot(at=1)


def test_the_past_is_cut_off_and_counts_stay(tmp_path: Path, path: Path, dense: None) -> None:
    with Store(journal=path, listen=tmp_path / "s") as store, Raw(tmp_path / "s") as raw:
        raw.hello("p")
        for number in range(1, 31):
            raw.send(b'{"type":"orch.started"}\n').acked(number)
            store.flush()
        wait_until(lambda: snapped(store))
        oldest = store.compact(keep=10)
        assert 0 < oldest <= 20
        stats = store.stats()
        assert stats.journal is not None
        assert stats.journal.oldest == oldest
        assert store.snapshot("", at=oldest).version == oldest
        with pytest.raises(VersionGoneError, match="cut off"):
            store.snapshot("", at=oldest - 1)
        with RemoteStore(tmp_path / "s") as remote, pytest.raises(VersionGoneError) as caught:
            remote.snapshot("", at=oldest - 1)
        assert (caught.value.at, caught.value.oldest) == (oldest - 1, oldest)
    with Store(journal=path, listen=tmp_path / "s") as store, Raw(tmp_path / "s") as raw:
        assert raw.hello("p")["lines"] == 30
        assert store.snapshot("").version == 30
        assert store.snapshot("", at=oldest).version == oldest


def test_a_cut_journal_whose_checkpoints_are_gone_is_damaged(path: Path, dense: None) -> None:
    import sqlite3

    with Store(journal=path) as store:
        for number in range(20):
            feed(store, number + 1, first=number)
            store.flush()
        wait_until(lambda: snapped(store))
        assert store.compact(keep=5)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DELETE FROM part")
    connection.close()
    with pytest.raises(JournalDamagedError, match="cut off"):
        Store(journal=path)


def test_the_past_is_read_while_producers_feed(path: Path, dense: None) -> None:
    with Store(journal=path) as store:
        feed(store, 50)
        store.flush()
        done = threading.Event()

        def produce() -> None:
            number = 50
            while not done.is_set():
                feed(store, number + 1, first=number)
                number += 1

        feeding = spawn(produce)
        try:
            assert [store.snapshot(at=at).version for at in range(0, 50, 7)] == list(range(0, 50, 7))
        finally:
            done.set()
        feeding.result()


# A process that is killed.


@pytest.mark.parametrize("durability", list(Durability))
def test_a_killed_process_loses_nothing_that_flush_returned_for(path: Path, durability: str) -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            store = Store(journal=path, durability=durability)
            for number in range(10_000):
                feed(store, number + 1, first=number)
                store.flush()
                os.write(write, b".")
        finally:
            os._exit(1)
    os.close(write)
    acked = len(os.read(read, 1))
    time.sleep(0.05)  # so that it is met somewhere
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 65536):
        acked += len(more)
    os.close(read)
    with Store(journal=path) as store:
        assert acked <= store.snapshot().version <= acked + 1


# Files that are taken away.


TAKEN = {
    "the journal is removed": lambda path: path.unlink(),
    "the journal is moved": lambda path: path.rename(path.with_name("moved")),
    "the journal is replaced": lambda path: (
        shutil.copy(path, path.with_name("c")) and os.replace(path.with_name("c"), path)
    ),
    "the WAL is removed": lambda path: path.with_name("j-wal").unlink(),
    "the WAL is moved": lambda path: path.with_name("j-wal").rename(path.with_name("moved-wal")),
}


@pytest.mark.parametrize("durability", list(Durability))
@pytest.mark.parametrize("what", TAKEN)
def test_nothing_is_acked_into_a_file_that_was_taken_away(path: Path, what: str, durability: str) -> None:
    store = Store(journal=path, durability=durability)
    feed(store, 5)
    store.flush()
    TAKEN[what](path)
    feed(store, 6, first=5)
    with pytest.raises(JournalFailedError, match="removed, moved or replaced"):
        store.flush()
    with pytest.raises(JournalFailedError):
        store.handle_event(Event.unit_started("a"))
    store.close()
    if "WAL" in what:  # what was in it is in the database now
        with Store(journal=path) as store:
            assert 5 <= store.stats().version <= 6
        return
    if "replaced" not in what:
        with pytest.raises(JournalDamagedError, match="database is gone"):
            Store(journal=path)
    if "is moved" in what:
        path.with_name("moved").rename(path)
        with Store(journal=path) as store:
            assert 5 <= store.stats().version <= 6


@pytest.mark.parametrize("what", TAKEN)
def test_a_store_whose_files_were_taken_away_says_so_when_it_is_closed(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(journal=path) as store:
        feed(store, 5)
        store.flush()
        TAKEN[what](path)
    assert "removed, moved or replaced" in caplog.text
    if "WAL" in what:
        with Store(journal=path) as store:
            assert store.stats().version == 5


def test_another_file_in_the_directory_changes_nothing(path: Path) -> None:
    with Store(journal=path) as store:
        for number in range(30):
            feed(store, number + 1, first=number)
            path.with_name(f"other{number}").touch()
            assert store.flush().accepted == number + 1


def test_compaction_without_room_says_so_and_loses_nothing(
    path: Path, dense: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(journal=path) as store:
        for number in range(30):
            feed(store, number + 1, first=number)
            store.flush()
        wait_until(lambda: snapped(store))

        def full(*_: object) -> bool:
            raise NoRoomError("no space left on the device")

        with monkeypatch.context() as patched:
            patched.setattr(Journal, "cut", full)
            with pytest.raises(JournalFullError, match="no space left on the device; make room"):
                store.compact(keep=5)
        assert store.snapshot(at=3).version == 3
        oldest = store.compact(keep=5)
        assert 0 < oldest <= 25
        assert store.snapshot().version == 30


@pytest.mark.parametrize("at", [2**53, 2**64, -(2**70)])
def test_a_version_beyond_53_bits_is_refused_everywhere(tmp_path: Path, path: Path, at: int) -> None:
    with Store(journal=path, listen=tmp_path / "s") as store, RemoteStore(tmp_path / "s") as remote:
        feed(store, 3)
        for asked in (store, remote):
            with pytest.raises(ValueError, match="53 bits"):
                asked.snapshot(at=at)

        async def ask() -> None:
            for asked in (store, remote):
                with pytest.raises(ValueError, match="53 bits"):
                    await asked.aio.snapshot(at=at)

        asyncio.run(ask())
        with Raw(tmp_path / "s") as raw:
            raw.hello()
            raw.send(b'{"ask":{"id":1,"what":"snapshot","at":%d}}\n' % at)
            assert raw.rest()[-1]["error"]["code"] == "bad_ask"
        with pytest.raises(VersionGoneError):
            remote.snapshot(at=2**53 - 1)


def test_a_store_whose_directory_is_moved_away_acks_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    store = Store(journal=tmp_path / "room" / "j")
    assert store._writer is not None
    watch = store._writer._journal._watch

    def is_settled() -> bool:
        store.handle_event(Event("note"))
        store.flush()
        return watch._seen >= 0

    wait_until(is_settled)  # from then on, only what happens to the directory is looked at
    (tmp_path / "room").rename(tmp_path / "elsewhere")
    (tmp_path / "room").mkdir()
    with suppress(JournalFailedError):
        store.handle_event(Event("note"))
    with pytest.raises(JournalFailedError):
        store.flush(SECONDS)
    with suppress(JournalFailedError):
        store.close()
