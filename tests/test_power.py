"""Losses of power: what was synced is there, only the end is lost, and the store starts.

`POWER_IMAGES=1000` draws so many images a durability; `CHAOS_SEED` draws others.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from actorstore.batch import Count, pack
from actorstore.errors import JournalDamagedError, JournalError
from actorstore.journal import Durability, Journal
from actorstore.markfile import SLOTS
from actorstore.recovery import recover
from tests.chaos.power import Disk, record
from tests.test_faults import can_trace
from tests.test_journal import opened, unit_line, write

SEED = int(os.environ.get("CHAOS_SEED", "1"))
IMAGES = int(os.environ.get("POWER_IMAGES", "60"))


can_record = pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j"


def held(path: Path, durability: Durability) -> tuple[int, int]:
    """Open a journal and write to it, as a store does; return version and checksum of what was there."""
    journal = Journal(path, durability)
    try:
        fold = recover(journal)
        version, crc = journal.head.version, journal.head.crc
        account = fold.accounts.get("p")
        assert fold.state.version == version == (account.lines if account else 0)
        for _ in range(3):
            journal.append(1, pack([Count("p", 1, 1, 0)]), unit_line(1))
        later = path.with_name("later")
        for end in ("", "-wal", ".lock"):  # as if it were killed now
            shutil.copy(f"{path}{end}", f"{later}{end}")
    finally:
        journal.let_go()
    again = Journal(later, durability)
    try:
        assert recover(again).state.version == version + 3
    finally:
        again.let_go()
    return version, crc


@can_record
@pytest.mark.parametrize("has_mark", [True, False], ids=["with its mark", "without"])
@pytest.mark.parametrize("durability", list(Durability))
def test_a_loss_of_power_takes_only_the_end_and_the_store_starts(
    tmp_path: Path, durability: Durability, has_mark: bool
) -> None:
    drawn = random.Random(SEED)
    (tmp_path / "j").mkdir()
    ops = record(tmp_path / "j", durability, 120)
    disk = Disk(tmp_path / "j")
    began = next(number for number, op in enumerate(ops) if op.call == "say")
    cuts = sorted(drawn.choices(range(began, len(ops)), k=IMAGES))
    lost = 0
    for number, op in enumerate(ops):
        disk.do(op)
        for _ in range(cuts.count(number)):
            image = tmp_path / "image"
            image.mkdir()
            way = disk.image(drawn, image)
            if not has_mark:
                (image / "j.lock").unlink(missing_ok=True)
            try:
                version, crc = held(image / "j", durability)
            except (JournalError, AssertionError) as error:
                pytest.fail(f"seed {SEED}, after op {number}, {way}: {error!r}")
            promised = disk.acked if durability is Durability.LOSE_NOTHING else disk.acked[: disk.synced]
            assert len(promised) <= version <= len(disk.acked) + 1, (number, way)
            assert not version or version > len(disk.acked) or disk.acked[version - 1] == (version, crc)
            lost += version < len(disk.acked)
            shutil.rmtree(image)
    assert (lost > 0) == (durability is not Durability.LOSE_NOTHING), "the images are too kind"


SYNC = """
import os, sys
from actorstore import journal as module
journal = module.Journal(sys.argv[1], module.Durability(sys.argv[2]))
journal.append(1, b"", b'{"type":"a"}\\n')
os.write(1, b"written")
journal.sync()
os.write(1, b"synced")
os._exit(0)
"""


@can_record
def test_the_sync_of_a_second_reaches_the_disk_though_nothing_more_is_written(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    ops = record(tmp_path / "j", Durability.LOSE_A_SECOND, 1, SYNC)
    said = [(op.call, op.data.decode() if op.call == "say" else Path(op.path).name) for op in ops]
    assert ("sync", "j-wal") in said[said.index(("say", "written")) : said.index(("say", "synced"))]


# What a loss of power does not explain.


def left(path: Path, batches: int, durability: Durability = Durability.LOSE_NOTHING) -> tuple[bytes, ...]:
    """Leave a journal as a kill does, after a fold in its middle; return database, WAL and lock file."""
    child = os.fork()
    if not child:
        try:
            journal = Journal(path, durability)
            write(journal, batches // 2)
            journal.fold()
            write(journal, batches - batches // 2)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    return tuple(Path(f"{path}{end}").read_bytes() for end in ("", "-wal", ".lock"))


def put(path: Path, files: tuple[bytes, ...]) -> None:
    """Write a journal as it was left."""
    for end, content in zip(("", "-wal", ".lock"), files, strict=True):
        Path(f"{path}{end}").write_bytes(content)


def is_refused(path: Path) -> bool:
    """Whether a journal is found to be damaged, again and again, and left as it is."""
    before = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    for _ in range(2):
        try:
            journal = Journal(path)
        except JournalDamagedError:
            assert (path.read_bytes(), Path(f"{path}-wal").read_bytes()) == before
        else:
            journal.let_go()
            return False
    return True


GARBAGE = random.Random(3).randbytes(1 << 16)


@pytest.mark.parametrize("filler", [GARBAGE, bytes(1 << 16)], ids=["garbage", "zeros"])
@pytest.mark.parametrize("durability", list(Durability))
def test_damage_at_the_start_of_the_wal_is_no_torn_end(
    path: Path, durability: Durability, filler: bytes
) -> None:
    database, wal, lock = left(path, 40, durability)
    for size in (1, 8, 24, 31, 32, 56, 57, 4096, 16384, 1 << 16):
        put(path, (database, filler[:size] + wal[size:], lock))
        assert is_refused(path), size


def test_damage_behind_the_header_of_the_wal_is_no_torn_end(path: Path) -> None:
    database, wal, lock = left(path, 40)
    for size in (1, 24, 4096, 16384, 1 << 16, len(wal) - 32):
        put(path, (database, wal[:32] + (GARBAGE * 99)[:size] + wal[32 + size :], lock))
        assert is_refused(path), size


@pytest.mark.parametrize("durability", list(Durability))
def test_a_wal_that_was_emptied_is_no_torn_end(path: Path, durability: Durability) -> None:
    database, _, lock = left(path, 40, durability)
    for size in (0, 1, 31):
        put(path, (database, GARBAGE[:size], lock))
        assert is_refused(path)


def test_a_wal_that_lost_more_than_a_transaction_is_found_to_the_transaction(path: Path) -> None:
    database, wal, lock = left(path, 20)
    outcomes = []
    for end in range(32, len(wal) + 1, 24 + 16384):
        put(path, (database, wal[:end], lock))
        if is_refused(path):
            outcomes.append(0)
        else:
            outcomes.append(opened(path).state.version)
    assert sorted(set(outcomes)) == [0, 19, 20]


def test_a_wal_that_was_removed_is_missed(path: Path, tmp_path: Path) -> None:
    put(path, left(path, 20))
    Path(f"{path}-wal").unlink()
    journal = Journal(path)  # the database was written anew too, by this test
    assert journal.head.version == 10
    journal.let_go()
    other = tmp_path / "other"
    left(other, 20)
    Path(f"{other}-wal").unlink()
    for _ in range(2):
        with pytest.raises(JournalDamagedError, match="gone"):
            Journal(other)
    Path(f"{other}.lock").unlink()
    assert opened(other).state.version == 10


def test_a_torn_mark_leaves_the_one_before(path: Path) -> None:
    database, wal, lock = left(path, 20)
    for slot in SLOTS:
        torn = bytearray(lock)
        torn[slot + 20] ^= 1
        put(path, (database, wal, bytes(torn)))
        assert opened(path).state.version == 20
        put(path, (database, GARBAGE, bytes(torn)))
        assert is_refused(path)


# Copies.


def test_a_journal_that_was_copied_with_or_without_its_mark_opens(path: Path, tmp_path: Path) -> None:
    files = left(path, 20)
    copy = tmp_path / "copy"
    put(copy, files)
    assert opened(copy).state.version == 20
    for end, content in (("", files[0]), ("-wal", files[1])):
        Path(f"{copy}{end}").write_bytes(content)
    assert opened(copy).state.version == 20


def test_a_mark_of_another_journal_says_nothing(path: Path, tmp_path: Path) -> None:
    left(path, 20)
    other = tmp_path / "other"
    write(made := Journal(other), 3)
    made.close()
    shutil.copy(f"{path}.lock", f"{other}.lock")
    assert opened(other).state.version == 3


@pytest.mark.parametrize("durability", list(Durability))
def test_an_older_copy_put_back_in_place_of_a_journal_that_was_killed_opens_with_a_warning(
    path: Path, durability: Durability, caplog: pytest.LogCaptureFixture
) -> None:
    write(made := Journal(path), 7)
    made.close()
    backup = path.read_bytes()
    left(path, 20, durability)
    path.write_bytes(backup)
    Path(f"{path}-wal").unlink()
    assert opened(path).state.version == 7
    assert "an older one" in caplog.text
    assert opened(path).state.version == 7


def test_a_journal_of_today_without_a_mark_opens_as_before(path: Path) -> None:
    database, wal, _ = left(path, 20)
    put(path, (database, wal, b"1234"))
    assert opened(path).state.version == 20


def test_a_wal_without_its_database_is_refused_and_kept(path: Path) -> None:
    _, wal, _ = left(path, 5)
    path.unlink()
    with pytest.raises(JournalDamagedError, match="database is gone"):
        Journal(path)
    assert Path(f"{path}-wal").read_bytes() == wal
    assert not path.exists()
