"""Spools: what a producer has handed over outlives it, in order, and counts once."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from actorstore import Event, RemoteStore, Store, connect
from actorstore import spool as spooling
from actorstore.errors import (
    JournalRegressionError,
    ProducerSupersededError,
    SpoolError,
    SpoolInUseError,
    StoreClosedError,
    StoreTimeoutError,
    StoreUnreachableError,
)
from actorstore.ledger import Standing
from actorstore.protocol import Sendable
from actorstore.spool import Spool
from actorstore.spoolfile import HEADER_BYTES, LINES_AT
from tests.builders import unit_queued
from tests.chaos.daemon import Daemon
from tests.heirs import breeder
from tests.raw import ByHand, abandon, folder, unacked
from tests.threads import ROOT, SECONDS, python, results, spawn, wait_until


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def some(first: int, last: int) -> Sendable:
    """Lines with their numbers."""
    lines = b"".join(b'{"type":"n%d"}\n' % number for number in range(first, last + 1))
    return Sendable(lines, last - first + 1, 0)


def add(spool: Spool, *lines: Sendable) -> None:
    """Add lines, and have them sent."""
    with spool.lock:
        spool.add(lines)
    spool.take()


def left(path: Path) -> bytes:
    """What the next producer finds."""
    spool = Spool(path)
    try:
        return b"".join([lines.data for lines in spool.left])
    finally:
        spool.close(is_done=False)


# The file.


def test_what_was_added_is_there_for_the_next_one_under_the_same_id(path: Path) -> None:
    first = Spool(path)
    add(first, some(1, 3))
    add(first, some(4, 4))
    first.close(is_done=False)
    second = Spool(path)
    assert (second.producer, second.left) == (first.producer, [some(1, 4)])
    second.close(is_done=True)
    assert list(path.parent.iterdir()) == []


def test_what_is_acked_is_let_go(path: Path) -> None:
    spool = Spool(path)
    for number in range(1, 6):
        add(spool, some(number, number))
    spool.note(2, Standing("s", 2, 0))
    spool.close(is_done=False)
    again = Spool(path)
    assert again.left == [some(3, 5)]
    assert again.standing == Standing("s", 2, 0)
    again.note(3, Standing("s", 5, 1))
    assert path.stat().st_size == HEADER_BYTES
    add(again, some(6, 6))
    again.close(is_done=False)
    assert left(path) == some(6, 6).data


def test_lines_that_are_acked_in_the_middle_of_a_parcel_stay_with_it(path: Path) -> None:
    spool = Spool(path)
    add(spool, some(1, 10))
    spool.note(4, Standing("s", 4, 0))
    spool.close(is_done=False)
    again = Spool(path)
    assert (again.left, again.standing.lines) == ([some(1, 10)], 0)
    again.close(is_done=False)


def test_half_a_line_at_the_end_was_never_handed_over(path: Path) -> None:
    spool = Spool(path)
    add(spool, some(1, 3))
    spool.close(is_done=False)
    whole = path.read_bytes()
    for cut in range(HEADER_BYTES, len(whole) + 1):
        path.write_bytes(whole[:cut])
        found = left(path)
        assert some(1, 3).data.startswith(found)
        assert not found or found.endswith(b"\n")
        assert found.count(b"\n") == whole[HEADER_BYTES:cut].count(b"\n")


def test_what_comes_after_half_a_line_is_whole(path: Path) -> None:
    spool = Spool(path)
    add(spool, some(1, 1))
    spool.close(is_done=False)
    with path.open("ab") as file:
        file.write(b'{"type":"half of a long line that is never finished')
    spool = Spool(path)
    add(spool, some(2, 2))
    spool.close(is_done=False)
    assert left(path) == some(1, 2).data


def test_the_file_does_not_grow_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "REWRITE_BYTES", 1000)
    spool = Spool(path)
    for number in range(1, 1001):
        add(spool, some(number, number))
        spool.note(max(0, number - 5), Standing("s", max(0, number - 5), 0))
        assert path.stat().st_size < LINES_AT + 1200
    spool.close(is_done=False)
    assert left(path) == some(996, 1000).data


def test_a_second_producer_is_told_who_has_it(path: Path) -> None:
    spool = Spool(path)
    with pytest.raises(SpoolInUseError) as caught:
        Spool(path)
    assert caught.value.owner == os.getpid()
    spool.close(is_done=True)
    Spool(path).close(is_done=True)


@pytest.mark.parametrize("content", [b"once upon a time\n", b"\0" * 600, b'{"spool":3,"producer":"p"}\n'])
def test_a_file_that_is_no_spool_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(SpoolError, match=r"left as it (is|was)"):
        Spool(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["spool"]


def test_a_place_where_nothing_can_be_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "spool"):
        with pytest.raises(SpoolError):
            Spool(path)


def test_a_line_that_cannot_be_written_is_not_handed_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(path)
    add(spool, some(1, 1))
    real = os.pwrite

    def full(file: int, data: bytes, start: int) -> int:
        real(file, bytes(data)[:5], start)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(SpoolError, match="No space left"):
            add(spool, some(2, 2))
    add(spool, some(3, 3))
    spool.close(is_done=False)
    assert left(path) == some(1, 1).data + some(3, 3).data


# Producers.


def test_a_producer_leaves_nothing_behind_once_all_is_acked(place: Path) -> None:
    with Store(listen=place / "s") as store:
        with RemoteStore(place / "s", spool=place / "p") as remote:
            remote.handle_event(Event.orch_started({"a": []}))
            remote.handle_lines(b'{"type":"unit.started","unit":"a"}\n\nbad')
            assert (remote.flush().accepted, remote.flush().rejected) == (2, 1)
        assert store.snapshot().units[0].attempts == 1
        assert sorted(entry.name for entry in place.iterdir()) == ["s", "s.lock"]


def test_a_producer_is_not_closed_before_its_spool_is_gone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, reached, go_on = Spool.close, threading.Event(), threading.Event()

    def slow(spool: Spool, *, is_done: bool) -> None:
        reached.set()
        assert go_on.wait(SECONDS)
        real(spool, is_done=is_done)

    with Store(listen=place / "s"):
        remote = connect(place / "s", spool=place / "p")
        remote.handle_event(Event.orch_started())
        remote.flush(SECONDS)
        monkeypatch.setattr(Spool, "close", slow)
        closing = spawn(remote.close)
        assert reached.wait(SECONDS)
        with pytest.raises(TimeoutError):
            closing.result(0.1)
        go_on.set()
        closing.result(SECONDS)
        assert not (place / "p").exists()


def test_a_spool_that_was_never_used_leaves_nothing_behind(place: Path) -> None:
    RemoteStore(place / "s", spool=place / "p").close()
    assert list(place.iterdir()) == []


def test_what_could_not_be_sent_is_sent_by_the_next_one(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = RemoteStore(place / "s", spool=place / "p")
    first.handle_event(Event.orch_started({"a": []}))
    first.handle_event(Event.unit_started("a"))
    with pytest.raises((StoreTimeoutError, OSError)):
        first.close(0.1)
    first._link.abandon()
    wait_until(lambda: not (place / "p.lock").exists())
    with Store(listen=place / "s") as store:
        with RemoteStore(place / "s", spool=place / "p") as second:
            assert second.flush(SECONDS).accepted == 2
        assert store.snapshot().units[0].attempts == 1
    assert not (place / "p").exists()


def test_threads_are_sent_in_the_order_in_which_the_file_has_them(place: Path) -> None:
    with Store(listen=place / "s") as store, RemoteStore(place / "s", spool=place / "p") as remote:
        remote.handle_event(Event.orch_started())

        def work(name: str) -> None:
            for number in range(200):
                remote.handle_event(Event.unit_added(f"{name}{number}"))

        results([spawn(work, name) for name in "abcd"])
        assert remote.flush(SECONDS).accepted == 801
        ids = [unit.id for unit in store.snapshot().units]
        for name in "abcd":
            assert [id for id in ids if id[0] == name] == [f"{name}{number}" for number in range(200)]


def test_a_forked_child_is_a_producer_of_its_own(place: Path) -> None:
    with Store(listen=place / "s") as store, RemoteStore(place / "s", spool=place / "p") as remote:
        remote.handle_event(Event.orch_started({"a": []}))
        remote.flush()
        child = os.fork()
        if not child:
            try:
                remote.handle_event(Event.unit_started("a"))
                remote.flush(SECONDS)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        remote.handle_event(Event.unit_started("a"))
        assert remote.flush(SECONDS).accepted == 2
        assert store.snapshot().units[0].attempts == 2


def test_a_store_that_knows_less_than_the_one_before_has_acked_is_refused(place: Path) -> None:
    spool = Spool(place / "p")
    with Store(listen=place / "s") as store:
        id = store._mailbox.ask(lambda actor: actor.store_id, SECONDS)
        add(spool, some(1, 9))
        spool.note(9, Standing(id, 9, 0))
        add(spool, some(10, 10))
        spool.close(is_done=False)
        with pytest.raises(JournalRegressionError):
            connect(place / "s", spool=place / "p")
    assert (place / "p").exists()


# Connecting with what was left.


def leave(path: Path, first: int, last: int) -> None:
    """Leave lines in a spool, as a producer does that is killed."""
    spool = Spool(path)
    add(spool, some(first, last))
    spool.close(is_done=False)


def test_a_producer_with_lines_that_were_left_connects_once(place: Path) -> None:
    leave(place / "p", 1, 3)
    with ByHand(place / "s") as store:
        opening = spawn(partial(connect, place / "s", spool=place / "p"))
        connection, _ = store.welcome()
        remote = opening.result(SECONDS)
        assert connection.socket.recv(1 << 16) == some(1, 3).data
        connection.say(ack={"lines": 3})
        assert remote.flush(SECONDS).accepted == 3
        assert store.hears_nobody()
        remote.close()


def test_a_producer_that_is_not_let_in_keeps_what_was_left(place: Path) -> None:
    leave(place / "p", 1, 3)
    with pytest.raises(StoreUnreachableError, match="3 lines"):
        connect(place / "s", spool=place / "p")
    with ByHand(place / "s") as store:
        opening = spawn(partial(connect, place / "s", spool=place / "p"))
        store.accept().say(error={"code": "superseded", "message": "no"})
        with pytest.raises(ProducerSupersededError):
            opening.result(SECONDS)
    assert left(place / "p") == some(1, 3).data


def test_what_was_left_is_sent_though_nothing_is_handed_over(place: Path) -> None:
    for make in (connect, RemoteStore):
        leave(place / "p", 1, 3)
        with Store(listen=place / "s") as store:
            make(place / "s", spool=place / "p").close()
            assert store.stats().version == 3
        assert list(place.iterdir()) == []


def test_a_store_and_a_producer_that_are_killed_go_on_where_they_were(place: Path) -> None:
    daemon = Daemon(place / "s", journal=place / "j")
    with ExitStack() as stack, breeder() as run:
        stack.callback(lambda: daemon.kill())
        for name in range(20):
            outliving = spawn(run, place, "outlive", name)
            wait_until((place / f"met {name}").exists)
            daemon.kill()
            assert outliving.result(SECONDS) == -signal.SIGKILL
            daemon = Daemon(place / "s", journal=place / "j", begins=False)
            assert run(place, "go_on", name) == 0, name
            with connect(place / "s") as reader:
                ids = [unit.id for unit in reader.snapshot("").units[-3:]]
            assert ids == [f"{name}.0", f"{name}.1", f"{name}.2"]
            assert not (place / "p").exists()


def test_the_command_line_sends_what_was_left_and_nothing_else(place: Path) -> None:
    with Store(listen=place / "s") as store:
        for number in range(1, 21):
            leave(place / "p", number, number)
            command = ["-m", "actorstore", "emit", "--socket", str(place / "s"), "--spool", str(place / "p")]
            done = python(*command)
            assert (done.returncode, done.stderr) == (0, "")
            assert store.stats().version == number


# Lines that do not fit.


def full_beyond(size: int) -> Callable[[int, bytes, int], int]:
    """Return `os.pwrite` for a disk where no file grows beyond so many bytes."""
    real = os.pwrite

    def pwrite(file: int, data: bytes, start: int) -> int:
        room = size - start
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, memoryview(data)[:room], start)

    return pwrite


BIG = b"".join(b'{"type":"unit.added","unit":"u%d"}\n' % number for number in range(9000))
"""Some chunks of lines."""


@pytest.mark.parametrize("size", [1100, 70_000, 150_000, 299_000])
def test_lines_of_which_some_do_not_fit_are_not_handed_over_at_all(
    place: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    assert len(BIG) > 300_000
    first = b'{"type":"orch.started"}\n'
    remote = RemoteStore(place / "s", spool=place / "p")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "pwrite", full_beyond(size))
        remote.handle_lines(first)
        for _ in range(2):
            with pytest.raises(SpoolError, match=r"No space left.*nothing of this call is handed over"):
                remote.handle_lines(BIG)
        with pytest.raises(SpoolError, match="No space left"):
            asyncio.run(remote.aio.handle_lines(BIG))
        asyncio.run(remote.aio.handle_lines(b""))
        remote.handle_lines(b"")
    assert unacked(remote) == 1
    abandon(remote)
    wait_until(lambda: not (place / "p.lock").exists())
    assert left(place / "p") == first
    with Store(listen=place / "s") as store, RemoteStore(place / "s", spool=place / "p") as remote:
        remote.handle_lines(BIG)
        asyncio.run(remote.aio.handle_lines(BIG.replace(b'"unit":"u', b'"unit":"v')))
        assert remote.flush(SECONDS).accepted == 18001
        assert [unit.id[0] for unit in store.snapshot().units] == ["u"] * 9000 + ["v"] * 9000


def test_lines_that_come_while_a_producer_is_closed_are_not_handed_over_at_all(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = RemoteStore(place / "s", spool=place / "p")
    remote.handle_lines(some(1, 1).data)
    real = Spool.add

    def slow(spool: Spool, lines: Sequence[Sendable]) -> None:
        real(spool, lines)
        remote._link.handover.refuse(StoreClosedError)

    with monkeypatch.context() as patched:
        patched.setattr(Spool, "add", slow)
        with pytest.raises(StoreClosedError):
            remote.handle_lines(BIG)
    abandon(remote)
    wait_until(lambda: not (place / "p.lock").exists())
    assert left(place / "p") == some(1, 1).data


PRODUCE = """
import sys
from actorstore import Event, RemoteStore
remote = RemoteStore(sys.argv[1], spool=sys.argv[2])
number = int(sys.argv[3])
while True:
    remote.handle_event(Event.unit_added(f"u{number}"))
    print(number, flush=True)
    number += 1
"""


def test_producers_that_are_killed_lose_nothing_that_handle_event_returned_for(place: Path) -> None:
    with Store(listen=place / "s", journal=place / "j") as store:
        store.handle_event(Event.orch_started())
        last = -1
        for _ in range(8):
            command = [sys.executable, "-c", PRODUCE, str(place / "s"), str(place / "p"), str(last + 1)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as producer:
                assert producer.stdout is not None
                told: list[int] = []
                reading = threading.Thread(target=lambda: told.extend(map(int, producer.stdout or ())))
                reading.start()
                wait_until(lambda: len(told) > 3)
                time.sleep(0.02)  # so that it is met somewhere
                producer.send_signal(signal.SIGKILL)
                reading.join()
            with RemoteStore(place / "s", spool=place / "p") as successor:
                successor.flush(SECONDS)
            ids = [int(unit.id[1:]) for unit in store.snapshot().units]
            assert ids == list(range(len(ids)))
            assert ids[-1] >= told[-1]
            last = ids[-1]
        assert store.stats().version == last + 2


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_file_in_the_place_of_the_lock_that_is_none_is_left_as_it_is(path: Path, is_linked: bool) -> None:
    other = path.with_name("uv.lock") if not is_linked else path.with_name("text")
    other.write_text("version = 1\n" if not is_linked else "12345")
    if is_linked:
        os.link(other, path.with_name("uv.lock"))
    before = other.read_text()
    with pytest.raises(SpoolError, match="no lock"):
        RemoteStore(spool=path.with_name("uv"))
    assert other.read_text() == before
    assert path.with_name("uv.lock").exists()


def test_a_spool_that_was_deleted_is_there_again_when_its_producer_has_closed(place: Path) -> None:
    remote = RemoteStore(place / "s", spool=place / "p")
    remote.handle_event(unit_queued("a"))
    (place / "p").unlink()
    with pytest.raises((StoreTimeoutError, StoreUnreachableError)):
        remote.close(timeout=0)
    assert (place / "p").exists()
    with Store(listen=place / "s") as store:
        remote.close(SECONDS)
        assert store.stats().accepted == 1
