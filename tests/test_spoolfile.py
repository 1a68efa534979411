"""The file of a spool: its two formats, damage, what else may be at its path, and files that go away."""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from actorstore import Event, Store, connect, spoolfile
from actorstore import spool as spooling
from actorstore.errors import SpoolError, SpoolInUseError
from actorstore.ledger import Standing
from actorstore.lockfile import LockFile
from actorstore.spool import Spool
from actorstore.spoolfile import HEADER_BYTES, SLOT_BYTES
from tests.heirs import HOWS, DiedError, doomed
from tests.raw import Raw, folder
from tests.test_spool import add, left, some
from tests.threads import SECONDS

SOMEBODY = 12345
"""Id of another user."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def first_format(
    lines: bytes, offset: int = SLOT_BYTES, standing: tuple[str, int, int] = ("", 0, 0)
) -> bytes:
    """A file of format 1, as it was written once."""
    header = {"spool": 1, "producer": "an-old-one", "offset": offset, "standing": standing}
    return json.dumps(header, separators=(",", ":")).encode().ljust(SLOT_BYTES - 1) + b"\n" + lines


# Formats.


def test_a_file_of_the_first_format_is_handed_over(path: Path) -> None:
    acked, rest = some(1, 2), some(3, 5)
    offset = SLOT_BYTES + len(acked.data)
    path.write_bytes(first_format(acked.data + rest.data + b'{"half', offset, ("s", 2, 1)))
    spool = Spool(path)
    assert (spool.producer, spool.standing, spool.left) == ("an-old-one", Standing("s", 2, 1), [rest])
    add(spool, some(6, 6))
    spool.close(is_done=False)
    again = Spool(path)
    assert (again.producer, again.standing) == ("an-old-one", Standing("s", 2, 1))
    assert b"".join([lines.data for lines in again.left]) == some(3, 6).data
    again.close(is_done=True)


@pytest.mark.parametrize("how", HOWS)
def test_bringing_a_file_to_the_second_format_may_be_interrupted_at_each_write(path: Path, how: str) -> None:
    for number in itertools.count(1):
        path.write_bytes(first_format(some(1, 3).data, standing=("s", 7, 0)))
        with doomed(number, how) as doom, suppress(DiedError):
            Spool(path).close(is_done=False)
        spool = Spool(path)
        assert (spool.producer, spool.standing, spool.left) == (
            "an-old-one",
            Standing("s", 7, 0),
            [some(1, 3)],
        )
        spool.close(is_done=True)
        assert list(path.parent.iterdir()) == []
        if not doom.is_over:
            break
    assert number > 3


def test_a_file_of_the_first_format_that_was_cut_off_without_its_header_is_no_conflict() -> None:
    with folder() as place, Store(listen=place / "s") as store:
        with Raw(place / "s") as raw:
            id = raw.hello("an-old-one")["store"]
            raw.send(some(1, 5).data).acked(5)
        (place / "p").write_bytes(first_format(b"", 600, (id, 3, 0)))
        with connect(place / "s", spool=place / "p") as second:
            second.handle_lines(some(6, 7).data)
            assert second.flush(SECONDS).accepted == 2
        assert store.stats().version == 7


# Damage.


def test_a_slot_that_is_damaged_leaves_the_other_one(path: Path) -> None:
    spool = Spool(path)
    for number in range(1, 5):
        add(spool, some(number, number))
    spool.note(1, Standing("s", 1, 0))
    spool.note(2, Standing("s", 2, 0))
    spool.close(is_done=False)
    whole = path.read_bytes()
    found = set()
    for place in range(HEADER_BYTES):
        if whole[place] in b" \n":
            continue
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        spool = Spool(path)
        found.add((spool.standing.lines, b"".join([lines.data for lines in spool.left])))
        spool.close(is_done=False)
    assert found == {(1, some(2, 4).data), (2, some(3, 4).data)}


def test_a_file_with_two_damaged_slots_is_left_as_it_is(path: Path) -> None:
    spool = Spool(path)
    add(spool, some(1, 1))
    spool.note(0, Standing("s", 0, 0))
    spool.close(is_done=False)
    damaged = path.read_bytes().replace(b'"producer":"', b'"producer":"x')
    path.write_bytes(damaged)
    with pytest.raises(SpoolError, match="its header is damaged, and was left as it is"):
        Spool(path)
    assert path.read_bytes() == damaged


def test_the_id_of_a_store_that_does_not_fit_overwrites_nothing(path: Path) -> None:
    spool = Spool(path)
    add(spool, some(1, 3))
    with pytest.raises(SpoolError, match="too long"):
        spool.note(0, Standing("s" * SLOT_BYTES, 0, 0))
    spool.close(is_done=False)
    assert left(path) == some(1, 3).data


# What else may be there.


def fifo(path: Path) -> None:
    """Make one."""
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    """Leave one."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def device(path: Path) -> None:
    """Make one that is `/dev/null`."""
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))


@pytest.mark.parametrize("make", [fifo, a_socket, pytest.param(device, marks=as_root), Path.mkdir])
@pytest.mark.parametrize("name", ["p", "p.lock"])
def test_what_is_no_ordinary_file_is_refused_and_left(make: Callable[[Path], None], name: str) -> None:
    with folder() as place:
        make(place / name)
        before = os.lstat(place / name)
        with pytest.raises(SpoolError):
            Spool(place / "p")
        assert os.path.samestat(before, os.lstat(place / name))
        assert [entry.name for entry in place.iterdir()] == [name]


@as_root
def test_a_spool_of_another_user_is_refused_and_left(path: Path) -> None:
    spool = Spool(path)
    add(spool, some(1, 3))
    spool.close(is_done=False)
    os.chown(path, SOMEBODY, -1)
    before = path.read_bytes()
    with pytest.raises(SpoolError, match=f"it belongs to user {SOMEBODY}, and was left as it is"):
        Spool(path)
    assert path.read_bytes() == before


@as_root
def test_a_lock_file_of_another_user_is_refused_and_left(path: Path) -> None:
    lock = path.with_name("spool.lock")
    lock.touch(0o666)
    os.chown(lock, SOMEBODY, -1)
    with pytest.raises(SpoolError, match="belongs to another user"):
        Spool(path)
    assert lock.exists()
    assert not path.exists()


def test_a_symbolic_link_of_ones_own_is_followed(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    spool = Spool(link)
    add(spool, some(1, 3))
    with pytest.raises(SpoolInUseError):
        Spool(path)
    spool.close(is_done=False)
    assert left(path) == some(1, 3).data


@as_root
def test_a_symbolic_link_of_another_user_is_not_followed(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    os.chown(link, SOMEBODY, -1, follow_symlinks=False)
    with pytest.raises(SpoolError, match="symbolic link of another user"):
        Spool(link)
    assert not path.exists()


def test_an_empty_file_becomes_a_spool(path: Path) -> None:
    path.touch()
    spool = Spool(path)
    add(spool, some(1, 1))
    spool.close(is_done=False)
    assert left(path) == some(1, 1).data
    assert path.stat().st_mode & 0o777 == 0o600


# Files that go away.


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have spools look at each line, and not now and then."""
    monkeypatch.setattr(spooling, "LOOK_SECONDS", 0.0)


@pytest.mark.usefixtures("watchful")
def test_a_file_that_is_deleted_is_written_anew_with_all_that_is_not_acked(path: Path) -> None:
    spool = Spool(path)
    for number in range(1, 5):
        add(spool, some(number, number))
    spool.note(2, Standing("s", 2, 0))
    path.unlink()
    add(spool, some(5, 5))
    spool.note(3, Standing("s", 3, 0))
    spool.close(is_done=False)
    again = Spool(path)
    assert b"".join([lines.data for lines in again.left]) == some(4, 5).data
    assert (again.producer, again.standing) == (spool.producer, Standing("s", 3, 0))
    again.close(is_done=True)
    assert list(path.parent.iterdir()) == []


@pytest.mark.usefixtures("watchful")
def test_nothing_is_handed_over_to_a_file_that_was_moved_away_until_it_is_back(path: Path) -> None:
    spool = Spool(path)
    add(spool, some(1, 1))
    path.rename(path.with_name("elsewhere"))
    for _ in range(2):
        with pytest.raises(SpoolError, match=r"moved away.*nothing of this call is handed over"):
            add(spool, some(2, 2))
    assert spool.take() == []
    path.with_name("elsewhere").rename(path)
    add(spool, some(3, 3))
    spool.close(is_done=False)
    assert left(path) == some(1, 1).data + some(3, 3).data


@pytest.mark.usefixtures("watchful")
@pytest.mark.parametrize("rewrite_bytes", [1, spooling.REWRITE_BYTES])
def test_a_file_that_has_taken_its_place_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, rewrite_bytes: int
) -> None:
    monkeypatch.setattr(spooling, "REWRITE_BYTES", rewrite_bytes)
    spool = Spool(path)
    add(spool, some(1, 1), some(2, 2))
    path.unlink()
    path.write_text("mine")
    with pytest.raises(SpoolError, match="replaced"):
        add(spool, some(3, 3))
    spool.note(1, Standing("s", 1, 0))
    spool.note(2, Standing("s", 2, 0))
    spool.close(is_done=True)
    assert path.read_text() == "mine"
    assert [entry.name for entry in path.parent.iterdir()] == ["spool"]


@pytest.mark.usefixtures("watchful")
def test_a_file_whose_directory_is_gone_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    spool = Spool(tmp_path / "there" / "p")
    for entry in (tmp_path / "there").iterdir():
        entry.unlink()
    (tmp_path / "there").rmdir()
    with pytest.raises(SpoolError, match="its directory is not there"):
        add(spool, some(1, 1))
    assert spool.take() == []
    spool.close(is_done=True)


@pytest.mark.usefixtures("watchful")
def test_a_lock_that_is_deleted_is_taken_again(path: Path) -> None:
    spool = Spool(path)
    path.with_name("spool.lock").unlink()
    add(spool, some(1, 1))
    with pytest.raises(SpoolInUseError) as caught:
        Spool(path)
    assert caught.value.owner == os.getpid()
    spool.close(is_done=True)
    assert list(path.parent.iterdir()) == []


@pytest.mark.usefixtures("watchful")
def test_nothing_is_handed_over_once_another_producer_has_the_lock(path: Path) -> None:
    spool = Spool(path)
    path.with_name("spool.lock").unlink()
    other = LockFile(str(path) + ".lock")
    with pytest.raises(SpoolInUseError):
        add(spool, some(1, 1))
    spool.close(is_done=False)
    assert path.with_name("spool.lock").exists()
    other.release()
    assert left(path) == b""


def test_a_producer_goes_on_over_a_spool_that_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "LOOK_SECONDS", 0.0)
    with folder() as place, Store(listen=place / "s") as store:
        with connect(place / "s", spool=place / "p") as remote:
            remote.handle_event(Event.orch_started({"a": []}))
            remote.flush(SECONDS)
            (place / "p").unlink()
            remote.handle_event(Event.unit_started("a"))
            assert (place / "p").exists()
            assert remote.flush(SECONDS).accepted == 2
        assert store.stats().version == 2
        assert not (place / "p").exists()


def test_what_was_left_is_found_on_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(path)
    add(spool, some(1, 3))
    spool.close(is_done=False)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        assert left(path) == some(1, 3).data
        with pytest.raises(SpoolError, match="no room"):
            Spool(path.with_name("another"))
    assert [entry.name for entry in path.parent.iterdir()] == ["spool"]


@pytest.mark.usefixtures("watchful")
@pytest.mark.parametrize("renames", [False, True])
def test_a_producer_that_is_interrupted_while_its_file_is_made_again_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, renames: bool
) -> None:
    spool = Spool(path)
    add(spool, some(1, 2))
    spool.note(0, Standing("s", 0, 0))
    path.unlink()
    real, is_at = os.rename, spoolfile._is_at

    def interrupt(*_: object) -> bool:
        monkeypatch.setattr(spoolfile, "_is_at", is_at)
        raise KeyboardInterrupt

    def rename(made: str, to: str) -> None:
        monkeypatch.setattr(os, "rename", real)
        monkeypatch.setattr(spoolfile, "_is_at", interrupt)  # which is asked next
        if renames:
            real(made, to)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        add(spool, some(3, 3))
    add(spool, some(4, 4))
    spool.note(2, Standing("s", 2, 0))
    spool.close(is_done=False)
    assert left(path) == some(4, 4).data
    assert [entry.name for entry in path.parent.iterdir()] == ["spool"]
