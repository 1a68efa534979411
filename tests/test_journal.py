"""Journals: what is written is there again, and whatever else is in the file is refused, found or named."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actorstore.account import Account
from actorstore.batch import Batch, Count, Farewell, pack
from actorstore.compaction import cut_off
from actorstore.compaction import write as keep
from actorstore.errors import JournalDamagedError, JournalError, JournalInUseError
from actorstore.journal import Durability, Journal
from actorstore.journalfile import APPLICATION, FORMAT
from actorstore.recovery import Fold, recover
from actorstore.walfile import inspect

every_durability = pytest.mark.parametrize("durability", list(Durability))


def unit_line(number: int) -> bytes:
    return b'{"type":"unit.started","unit":"u%d"}\n' % number


START = (
    b'{"type":"orch.started","payload":{"graph":{"nodes":['
    + b",".join(b'{"id":"u%d"}' % number for number in range(50))
    + b"]}}}\n"
)


def write(journal: Journal, batches: int) -> None:
    """Write so many batches, the first of which starts a run."""
    for _ in range(batches):
        number = journal.head.seq
        lines = unit_line(number % 50) if number else START
        journal.append(1, pack([Count("p", 1, 1, 0)]), lines)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    made = Journal(path)
    yield made
    made.let_go()


def crashed(path: Path, batches: int, durability: Durability = Durability.LOSE_NOTHING) -> bytes:
    """Write batches in a process that is killed, and return the WAL that it leaves."""
    child = os.fork()
    if not child:
        try:
            write(Journal(path, durability), batches)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    return Path(f"{path}-wal").read_bytes()


def opened(path: Path) -> Fold:
    """What a journal holds when it is opened and closed again."""
    journal = Journal(path)
    try:
        return recover(journal)
    finally:
        journal.let_go()


# Writing and reading.


@every_durability
def test_what_was_written_is_there_again(path: Path, durability: Durability) -> None:
    journal = Journal(path, durability)
    write(journal, 20)
    store, head = journal.store, journal.head
    journal.close()
    again = Journal(path)
    assert (again.store, again.head) == (store, head)
    assert b"".join(batch.lines for batch in again.batches(0))[len(START) :] == b"".join(
        unit_line(number) for number in range(1, 20)
    )
    again.close()


def test_a_second_that_ends_while_a_batch_is_written_is_not_taken_for_a_sync(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path, Durability.LOSE_A_SECOND)
    write(journal, 1)
    clock = iter([*[time.monotonic()] * 1, *[time.monotonic() + 10] * 9])
    monkeypatch.setattr(
        "actorstore.journal.time.monotonic", lambda: next(clock)
    )  # when it begins, then later
    write(journal, 1)
    assert journal.sync_is_due_in() == 0.0
    journal.sync()
    assert journal.sync_is_due_in() is None
    journal.let_go()


@every_durability
def test_a_killed_writer_loses_nothing(path: Path, durability: Durability) -> None:
    crashed(path, 30, durability)
    fold = opened(path)
    assert fold.state.version == 30
    assert fold.accounts["p"].lines == 30


def test_batches_are_read_from_any_place_in_pieces(journal: Journal) -> None:
    write(journal, 30)
    assert [batch.seq for batch in journal.batches(10, size=100)] == [11, 12, 13]
    assert [batch.seq for batch in journal.batches(29)] == [30]
    assert journal.batches(30) == []


def test_the_file_belongs_to_its_user_alone_and_a_closed_one_leaves_no_other(path: Path) -> None:
    journal = Journal(path)
    write(journal, 3)
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
    assert modes == {"j": 0o600, "j-wal": 0o600, "j.lock": 0o600}
    journal.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["j"]


def test_each_store_has_an_id_of_its_own(tmp_path: Path) -> None:
    ids = set()
    for name in "ab":
        journal = Journal(tmp_path / name)
        ids.add(journal.store)
        journal.close()
    assert len(ids) == 2


def test_counts_of_producers_come_back_and_a_farewell_forgets(journal: Journal) -> None:
    journal.append(1, pack([Count("p", 3, 1, 1), Count("q", 1, 0, 1)]), START)
    journal.append(0, pack([Count("p", 2, 0, 0), Farewell("q")]), b"")
    accounts = recover(journal).accounts
    assert list(accounts) == ["p"]
    account = accounts["p"]
    assert isinstance(account, Account)
    assert (account.lines, account.taken, account.accepted, account.rejected) == (5, 5, 1, 1)


def test_a_batch_without_events_is_one_all_the_same(journal: Journal) -> None:
    journal.append(0, pack([Count("p", 7, 0, 7)]), b"")
    assert (journal.head.seq, journal.head.version) == (1, 0)
    assert recover(journal).accounts["p"].rejected == 7


def test_folding_twice_gives_the_same_bytes(journal: Journal) -> None:
    write(journal, 40)
    one, two = recover(journal), recover(journal)
    assert one.state.snapshot().json() == two.state.snapshot().json()


def test_a_line_that_can_no_longer_be_read_counts_and_changes_nothing(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    write(journal, 2)
    journal.append(3, b"", unit_line(2) + b'{"type":7}\n' + unit_line(3))
    fold = recover(journal)
    assert fold.state.version == 5
    assert [unit.attempts for unit in fold.state.snapshot().units[1:4]] == [1, 1, 1]
    assert "1 events after version 2" in caplog.text


# Who may open it.


def test_a_second_owner_is_told_who_has_it(journal: Journal, path: Path) -> None:
    with pytest.raises(JournalInUseError) as caught:
        Journal(path)
    assert caught.value.owner == os.getpid()
    write(journal, 1)


def test_a_link_to_it_is_the_same_journal(journal: Journal, path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(JournalInUseError):
        Journal(link)


def test_a_forked_child_leaves_the_journal_to_its_parent(journal: Journal, path: Path) -> None:
    write(journal, 3)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    write(journal, 3)
    with pytest.raises(JournalInUseError):
        Journal(path)
    journal.close()
    assert opened(path).state.version == 6


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()


def newer(path: Path) -> None:
    Journal(path).close()
    content = bytearray(path.read_bytes())
    content[60:64] = (FORMAT + 1).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_text("once upon a time"), "no journal"),
        (lambda path: path.write_bytes(os.urandom(5000)), "no journal"),
        (foreign, "no journal"),
        (newer, "knows those up to"),
    ],
)
def test_a_foreign_or_newer_file_is_refused_and_left_as_it_is(path: Path, make: object, reason: str) -> None:
    make(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(JournalError, match=reason):
        Journal(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["j"]


def test_a_place_where_nothing_can_be_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no directory"):
        Journal(tmp_path / "none" / "j")
    with pytest.raises(JournalError, match="name a file in it"):
        Journal(tmp_path)
    with pytest.raises(JournalError, match="no such file"):
        Journal(tmp_path / "j", create=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_as_good_as_none(path: Path) -> None:
    path.touch()
    Journal(path).close()
    assert path.stat().st_size > 0


def test_a_start_that_was_cut_short_is_made_up_for(path: Path) -> None:
    path.with_name("j.new").write_bytes(b"SQLite format 3\0")
    Journal(path).close()
    assert [entry.name for entry in path.parent.iterdir()] == ["j"]


@pytest.mark.parametrize("end", ["", "-wal", "-journal", "-shm", ".lock"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "device", "link"])
def test_what_is_no_file_is_refused_and_left_as_it_is(path: Path, end: str, kind: str) -> None:
    if end:
        Journal(path).close()
    place = Path(f"{path}{end}")
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(place))
        case "directory":
            place.mkdir()
        case "device" if os.geteuid() == 0:
            os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        case "link" if end:
            place.symlink_to(path.with_name("elsewhere"))
        case "link":  # to a pipe of this test: what does not refuse it replaces what it names
            os.mkfifo(path.with_name("elsewhere"))
            place.symlink_to(path.with_name("elsewhere"))
        case _:
            pytest.skip("takes root")
    before = {entry.name: entry.lstat() for entry in path.parent.iterdir()}
    with pytest.raises(JournalError, match=r"regular file|name a file in it"):
        Journal(path)
    assert {entry.name: entry.lstat() for entry in path.parent.iterdir()} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("end", ["", "-wal", "-journal", "-shm", ".lock"])
def test_a_journal_of_another_user_is_refused_and_left_as_it_is(path: Path, end: str) -> None:
    Journal(path).close()
    place = Path(f"{path}{end}")
    place.touch()
    os.chown(place, 12345, -1)
    before = place.read_bytes()
    with pytest.raises(JournalError, match="belongs to the user with id 12345"):
        Journal(path)
    assert (place.read_bytes(), place.stat().st_uid) == (before, 12345)
    os.chown(place, os.geteuid(), -1)
    Journal(path).close()


@pytest.mark.parametrize("kind", ["directory", "pipe", "link", "another user's"])
def test_what_is_in_the_way_of_a_new_journal_is_named_and_left(path: Path, kind: str) -> None:
    place = path.with_name("j.new")
    match kind:
        case "directory":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
        case "link":
            place.symlink_to(path.with_name("precious"))
        case _:
            place.write_text("theirs")
            if os.geteuid():
                pytest.skip("only root can give files away")
            os.chown(place, 12345, -1)
    before = place.lstat()
    with pytest.raises(JournalError, match=r"j\.new is in the way"):
        Journal(path)
    assert place.lstat() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["j.new"]


def test_the_format_is_in_the_header(path: Path) -> None:
    Journal(path).close()
    head = path.read_bytes()[:100]
    assert (int.from_bytes(head[60:64], "big"), int.from_bytes(head[68:72], "big")) == (FORMAT, APPLICATION)


# Damage.


def test_a_wal_that_is_cut_anywhere_leaves_an_exact_prefix(path: Path) -> None:
    whole = crashed(path, 6)
    database = path.read_bytes()
    versions = []
    frame = 24 + 16384
    ends = range(32, len(whole) + 1, frame)
    cuts = sorted(
        {
            *ends,
            *(end - 1 for end in ends),
            *(end + 25 for end in ends),
            *range(len(whole) - 60, len(whole) + 1),
        }
    )
    for cut in cuts:
        path.write_bytes(database)
        Path(f"{path}-wal").write_bytes(whole[: max(0, cut)])
        Path(f"{path}.lock").unlink(missing_ok=True)  # which would say that more than one is gone
        fold = opened(path)
        versions.append(fold.state.version)
        assert fold.accounts.get("p", Account()).lines == fold.state.version
    assert versions == sorted(versions)
    assert set(versions) == set(range(7))


def test_a_flipped_bit_in_the_wal_is_found_or_costs_the_last_transaction_only(path: Path) -> None:
    whole = crashed(path, 12)
    database = path.read_bytes()
    drawn = random.Random(5)
    found = 0
    for _ in range(150):
        bad = bytearray(whole)
        bad[drawn.randrange(len(bad))] ^= 1 << drawn.randrange(8)
        path.write_bytes(database)
        Path(f"{path}-wal").write_bytes(bad)
        try:
            version = opened(path).state.version
        except JournalDamagedError:
            found += 1
        else:
            assert version >= 11
    assert found > 100


def test_a_flipped_bit_in_the_database_is_never_applied(path: Path) -> None:
    journal = Journal(path)
    write(journal, 30)
    good = recover(journal).state.snapshot().json()
    journal.close()
    database = path.read_bytes()
    drawn = random.Random(6)
    outcomes = {"same": 0, "found": 0}
    for _ in range(300):
        bad = bytearray(database)
        bad[drawn.randrange(len(bad))] ^= 1 << drawn.randrange(8)
        path.write_bytes(bad)
        for end in ("-wal", ".lock"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        try:
            fold = opened(path)
        except JournalError:
            outcomes["found"] += 1
        else:
            assert fold.state.snapshot().json() == good
            outcomes["same"] += 1
    assert outcomes["found"] > 3, outcomes


def test_a_flipped_bit_on_the_first_page_is_refused_or_costs_nothing_now_or_later(path: Path) -> None:
    """The header and the list of tables, which no batch's checksum covers."""
    journal = Journal(path)
    write(journal, 30)
    journal.close()
    good = path.read_bytes()
    start = int.from_bytes(good[105:107], "big")
    drawn = random.Random(7)
    outcomes = {"whole": 0, "refused": 0}
    for place in (*range(120), *range(start, 16384)):
        bad = bytearray(good)
        bad[place] ^= 1 << drawn.randrange(8)
        for end in ("-wal", ".lock"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        path.write_bytes(bad)
        try:
            journal = Journal(path)
        except JournalError:
            outcomes["refused"] += 1
            continue
        outcomes["whole"] += 1
        try:
            assert recover(journal).state.version == 30, place
            write(journal, 5)
            keep(journal, recover(journal))
            journal.close()
        finally:
            journal.let_go()
        journal = Journal(path)
        assert recover(journal).state.version == 35, place
        assert journal.problems() == [], place
        journal.let_go()
    assert outcomes["refused"] > 10 * outcomes["whole"] > 100, outcomes


def test_damage_in_the_list_of_free_pages_is_found_before_anything_is_written(path: Path) -> None:
    journal = Journal(path)
    for _ in range(20):
        journal.append(1, b"", b'{"type":"note","payload":"%s"}\n' % (b"x" * 100_000))
    keep(journal, recover(journal))
    while cut_off(journal, journal.checkpoints()[-1]):
        pass
    journal.close()
    good = path.read_bytes()
    trunk = (int.from_bytes(good[32:36], "big") - 1) * 16384
    assert trunk > 0
    for place, value in (
        (32, b"\0\0\0\2"),
        (36, b"\0\0\0\1"),
        (trunk, b"\0\1\0\0"),
        (trunk + 4, b"\0\0\0\1"),
    ):
        path.write_bytes(good[:place] + value + good[place + 4 :])
        with pytest.raises(JournalDamagedError, match="header"):
            Journal(path)
    path.write_bytes(good)
    assert opened(path).state.version == 20


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM batch WHERE seq = 4",
        "UPDATE batch SET lines = replace(lines, 'u3', 'u4') WHERE seq = 4",
        "UPDATE batch SET events = 2 WHERE seq = 4",
        "UPDATE batch SET steps = x'90' WHERE seq = 4",
        "UPDATE batch SET lines = NULL WHERE seq = 4",
        "UPDATE batch SET lines = (SELECT lines FROM batch WHERE seq = 3) WHERE seq = 4",
    ],
)
def test_damage_is_named_with_its_batch_and_a_cure(path: Path, statement: str) -> None:
    tamper(path, 9, statement)
    with pytest.raises(JournalDamagedError, match="batch 4") as caught:
        opened(path)
    assert "journal export" in str(caught.value)


def test_a_swallowed_checksum_lets_damage_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes the test above worth something."""
    tamper(path, 9, "UPDATE batch SET lines = CAST(replace(lines, 'u3', 'u4') AS BLOB) WHERE seq = 4")
    monkeypatch.setattr(Batch, "follows", lambda *_: True)
    assert opened(path).state.snapshot().units[3].attempts == 0


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM batch WHERE seq = 9",
        "DELETE FROM batch",
        "UPDATE head SET crc = crc + 1",
        "UPDATE head SET seq = 8",
        "UPDATE origin SET store = 'x'",
        "DELETE FROM head",
        "UPDATE batch SET seq = 40 WHERE seq = 4",
        "DROP TABLE batch",
    ],
)
def test_a_journal_whose_end_or_origin_is_another_is_refused(path: Path, statement: str) -> None:
    tamper(path, 9, statement)
    with pytest.raises(JournalDamagedError):
        opened(path)


def tamper(path: Path, batches: int, statement: str) -> None:
    journal = Journal(path)
    write(journal, batches)
    journal.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_whole_transactions_behind_an_altered_place_of_the_wal_are_damage(path: Path) -> None:
    whole = bytearray(crashed(path, 10))
    whole[len(whole) // 2] ^= 1
    wal = Path(f"{path}-wal")
    wal.write_bytes(whole)
    before = path.read_bytes(), wal.read_bytes()
    with pytest.raises(JournalDamagedError, match="WAL is altered"):
        opened(path)
    assert (path.read_bytes(), wal.read_bytes()) == before


def test_a_torn_last_transaction_is_dropped_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = bytearray(crashed(path, 10))
    whole[len(whole) - 2 * 16384] ^= 1
    Path(f"{path}-wal").write_bytes(whole)
    assert opened(path).state.version == 9
    assert "last transaction" in caplog.text


def test_frames_of_an_earlier_wal_are_nothing(path: Path) -> None:
    journal = Journal(path)
    write(journal, 20)
    journal.fold()
    write(journal, 2)
    found = inspect(f"{path}-wal")
    assert (found.commits, found.commits_beyond) == (2, 0)
    journal.close()


def test_a_copy_of_database_and_wal_is_the_journal(path: Path, tmp_path: Path) -> None:
    crashed(path, 5)
    copy = tmp_path / "copy"
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    assert json.loads(opened(copy).state.snapshot().json()) == json.loads(
        opened(path).state.snapshot().json()
    )
