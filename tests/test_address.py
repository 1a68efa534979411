"""Where a store is found: the usual places, one owner, one user, and nothing left behind."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from actorstore import AddressError, SocketInUseError, StoreUnreachableError
from actorstore.address import MAX_PATH_BYTES, SocketFile, connect, default_address, find, peer
from tests.raw import folder, nothing_left
from tests.threads import python


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def room() -> Iterator[Path]:
    with folder() as made:
        yield made


@contextmanager
def owned(path: Path) -> Iterator[SocketFile]:
    """Own a socket file, and listen there."""
    file = SocketFile(path)
    try:
        yield file
    finally:
        file.listener.close()
        file.release()


@contextmanager
def listener(path: Path, backlog: int = 8) -> Iterator[socket.socket]:
    """Listen without a lock, as another program would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(path))
        made.listen(backlog)
        yield made


def left_over(path: Path) -> None:
    """Leave a socket file behind, as a store does that was killed."""
    with listener(path):
        pass
    assert path.is_socket()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


# The usual places.


@pytest.fixture
def home(room: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folders, with nothing in them."""
    monkeypatch.delenv("ACTORSTORE_SOCKET", raising=False)
    monkeypatch.setenv("HOME", str(room / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(room / "runtime"))
    return room


def test_a_store_listens_in_the_runtime_directory(home: Path) -> None:
    assert default_address() == home / "runtime/actorstore/store.sock"


@pytest.mark.parametrize("value", [None, ""])
def test_a_store_listens_at_home_where_there_is_no_runtime_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert default_address() == home / "home/.actorstore/store.sock"
    assert find() == str(home / "home/.actorstore/store.sock")


def test_a_client_looks_in_the_runtime_directory_where_nobody_listens(home: Path) -> None:
    assert find() == str(home / "runtime/actorstore/store.sock")


def test_a_client_finds_a_store_that_listens_at_home(home: Path) -> None:
    with owned(home / "home/.actorstore/store.sock") as file:
        assert find() == file.path


def test_a_client_prefers_the_runtime_directory(home: Path) -> None:
    with owned(home / "home/.actorstore/store.sock"), owned(home / "runtime/actorstore/store.sock") as file:
        assert find() == file.path


def test_the_environment_names_the_socket_and_the_caller_overrules_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTORSTORE_SOCKET", str(home / "a.sock"))
    assert find() == str(home / "a.sock")
    assert find(home / "b.sock") == str(home / "b.sock")


def test_a_path_is_made_absolute_so_that_it_survives_a_change_of_directory(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room)
    assert find("a.sock") == os.path.abspath("a.sock")
    file = SocketFile("b.sock")
    monkeypatch.chdir("/")
    file.listener.close()
    file.release()
    assert list(room.iterdir()) == []


# One owner.


def test_a_live_socket_is_refused_and_names_its_owner(room: Path) -> None:
    with owned(room / "s") as first:
        inode = os.lstat(first.path).st_ino
        with pytest.raises(SocketInUseError) as raised:
            SocketFile(room / "s")
        assert raised.value.owner == os.getpid()
        assert raised.value.address == first.path
        assert str(os.getpid()) in str(raised.value)
        assert os.lstat(first.path).st_ino == inode
        connect(first.path, 1).close()


def test_a_live_socket_is_refused_where_its_lock_file_was_removed(room: Path) -> None:
    with owned(room / "s") as first:
        os.unlink(first.path + ".lock")
        with pytest.raises(SocketInUseError) as raised:
            SocketFile(room / "s")
        assert raised.value.owner == os.getpid()
        connect(first.path, 1).close()


def test_the_socket_of_another_program_is_refused(room: Path) -> None:
    with listener(room / "s"):
        with pytest.raises(SocketInUseError):
            SocketFile(room / "s")
        connect(str(room / "s"), 1).close()
        assert sorted(entry.name for entry in room.iterdir()) == ["s"]


def test_a_live_socket_is_refused_when_so_many_wait_that_it_lets_nobody_in(room: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(listener(room / "s", backlog=0))
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        waiting.connect(str(room / "s"))
        with pytest.raises(StoreUnreachableError, match=r"wait to be let in|nobody answers"):
            connect(str(room / "s"), 0.1)
        with pytest.raises(SocketInUseError), owned(room / "s"):
            pass
        assert (room / "s").is_socket()


def test_a_socket_that_was_left_over_is_replaced(room: Path) -> None:
    left_over(room / "s")
    with owned(room / "s") as file:
        connect(file.path, 1).close()


def test_a_lock_file_that_was_left_over_is_taken_whatever_it_says(room: Path) -> None:
    (room / "s.lock").write_text("1 or something longer that somebody wrote there")
    with owned(room / "s") as file:
        assert Path(file.path + ".lock").read_text() == str(os.getpid())


def test_the_lock_is_released_by_the_one_who_lost_and_by_nobody_else(room: Path) -> None:
    with owned(room / "s"):
        for _ in range(3):
            with pytest.raises(SocketInUseError):
                SocketFile(room / "s")
    with owned(room / "s"):
        pass


# Nothing left behind.


def test_release_leaves_nothing_and_may_be_called_again(room: Path) -> None:
    with owned(room / "s") as file:
        assert sorted(entry.name for entry in room.iterdir()) == ["s", "s.lock"]
        file.listener.close()
        file.release()
        assert list(room.iterdir()) == []
        with owned(room / "s"):
            file.release()
            assert sorted(entry.name for entry in room.iterdir()) == ["s", "s.lock"]


def test_release_leaves_a_socket_that_somebody_else_put_there_meanwhile(room: Path) -> None:
    with owned(room / "s") as file:
        os.unlink(file.path)
        with listener(room / "s"):
            file.listener.close()
            file.release()
            connect(str(room / "s"), 1).close()
    assert sorted(entry.name for entry in room.iterdir()) == ["s"]


def test_release_is_content_where_somebody_removed_the_files(room: Path) -> None:
    with owned(room / "s") as file:
        os.unlink(file.path)
        os.unlink(file.path + ".lock")
        file.release()
    assert list(room.iterdir()) == []


def test_one_that_cannot_listen_leaves_nothing_but_what_was_in_the_way(room: Path) -> None:
    (room / "s").mkdir()
    with pytest.raises(AddressError):
        SocketFile(room / "s")
    assert [entry.name for entry in room.iterdir()] == ["s"]


# One user.


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_the_socket_and_its_lock_are_for_this_user_alone_whatever_the_umask(room: Path, mask: int) -> None:
    with umask(mask), owned(room / "s"):
        assert mode(room / "s") & 0o077 == 0
        assert mode(room / "s.lock") & 0o077 == 0


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_missing_directory_is_made_for_this_user_alone(room: Path, mask: int) -> None:
    with umask(mask), owned(room / "made/s"):
        assert mode(room / "made") == 0o700
        assert mode(room / "made/s") == 0o600


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o377, 0o777])
def test_all_directories_that_are_missing_are_made_for_this_user_alone_whatever_the_umask(
    room: Path, mask: int
) -> None:
    with umask(mask), owned(room / "made/on/the/way/s"):
        folder = room / "made/on/the/way"
        while folder != room:
            assert mode(folder) == 0o700, folder
            folder = folder.parent
        assert mode(room / "made/on/the/way/s") & 0o077 == 0


def test_a_directory_that_somebody_else_makes_at_the_same_time_keeps_its_mode(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def late(path: str, mode: int) -> None:
        mkdir(path, 0o755)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", late)
    with umask(0o022), owned(room / "made/s"):
        assert mode(room / "made") == 0o755


def test_a_directory_that_is_there_keeps_its_mode(room: Path) -> None:
    (room / "there").mkdir()
    (room / "there").chmod(0o755)
    with owned(room / "there/s"):
        assert mode(room / "there") == 0o755


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="this system does not tell")
def test_the_peer_is_known_by_process_and_user(room: Path) -> None:
    with owned(room / "s") as file, connect(file.path, 1) as made:
        assert peer(made) == (os.getpid(), os.geteuid())


# What is in the way.


def test_a_symbolic_link_is_not_followed(room: Path) -> None:
    left_over(room / "elsewhere")
    (room / "s").symlink_to(room / "elsewhere")
    with pytest.raises(AddressError, match="symbolic link") as raised:
        SocketFile(room / "s")
    assert raised.value.address == str(room / "s")
    assert (room / "s").is_symlink()
    assert (room / "elsewhere").is_socket()


def test_a_symbolic_link_to_nowhere_is_in_the_way_too(room: Path) -> None:
    (room / "s").symlink_to(room / "nowhere")
    with pytest.raises(AddressError, match="symbolic link"):
        SocketFile(room / "s")
    assert not (room / "nowhere").exists()


def test_a_symbolic_link_in_place_of_the_lock_is_not_followed(room: Path) -> None:
    (room / "precious").write_text("data")
    (room / "s.lock").symlink_to(room / "precious")
    with pytest.raises(AddressError):
        SocketFile(room / "s")
    assert (room / "precious").read_text() == "data"


def test_another_name_of_a_file_in_place_of_the_lock_is_left_alone(room: Path) -> None:
    (room / "precious").write_text("data")
    (room / "s.lock").hardlink_to(room / "precious")
    with pytest.raises(AddressError, match=r"s\.lock is no lock file"):
        SocketFile(room / "s")
    assert (room / "precious").read_text() == "data"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_lock_file_of_another_user_is_left_alone(room: Path) -> None:
    (room / "s.lock").write_text("data")
    os.chown(room / "s.lock", 12345, 12345)
    with pytest.raises(AddressError, match="belongs to user 12345"):
        SocketFile(room / "s")
    assert (room / "s.lock").read_text() == "data"


@pytest.mark.parametrize("shared", [0o777, 0o1777], ids=oct)
def test_a_symbolic_link_on_the_way_is_not_followed_in_a_directory_of_everybody(
    room: Path, shared: int
) -> None:
    (room / "elsewhere").mkdir()
    (room / "everybody").mkdir()
    (room / "everybody").chmod(shared)
    (room / "everybody/link").symlink_to(room / "elsewhere")
    (room / "mine").symlink_to("everybody/link")
    for path in ("everybody/link/s", "everybody/link/made/s", "mine/s"):
        with pytest.raises(AddressError, match="everybody/link is a symbolic link"):
            SocketFile(room / path)
    assert list((room / "elsewhere").iterdir()) == []


def test_a_symbolic_link_on_the_way_is_followed_in_a_directory_of_ones_own(room: Path) -> None:
    (room / "elsewhere").mkdir()
    (room / "link").symlink_to("elsewhere")
    (room / "other").symlink_to(room / "link")
    with owned(room / "other/made/s") as file:
        assert file.path == str(room / "other/made/s")
        assert (room / "elsewhere/made/s").is_socket()


def test_symbolic_links_that_go_round_in_a_circle_are_an_error(room: Path) -> None:
    (room / "a").symlink_to("b")
    (room / "b").symlink_to("a")
    with pytest.raises(AddressError, match="circle"):
        SocketFile(room / "a/s")


def test_a_symbolic_link_that_is_put_there_while_directories_are_made_is_not_followed(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (room / "elsewhere").mkdir()
    (room / "everybody").mkdir()
    (room / "everybody").chmod(0o1777)

    def late(path: str, mode: int) -> None:
        os.symlink(room / "elsewhere", path)
        raise FileExistsError

    monkeypatch.setattr(os, "mkdir", late)
    with pytest.raises(AddressError, match="symbolic link"):
        SocketFile(room / "everybody/mine/s")
    assert list((room / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_a_directory_that_another_user_has_made_in_one_of_everybody_is_not_used(room: Path) -> None:
    (room / "everybody/theirs").mkdir(parents=True)
    (room / "everybody").chmod(0o1777)
    os.chown(room / "everybody/theirs", 12345, 12345)
    with pytest.raises(AddressError, match=r"theirs belongs to user 12345.*your own"):
        SocketFile(room / "everybody/theirs/s")
    assert list((room / "everybody/theirs").iterdir()) == []


def test_a_file_that_is_no_socket_is_left_alone(room: Path) -> None:
    (room / "s").write_text("data")
    with pytest.raises(AddressError, match="no socket"):
        SocketFile(room / "s")
    assert (room / "s").read_text() == "data"


def test_a_path_below_a_file_is_an_error_that_names_it(room: Path) -> None:
    (room / "file").write_text("data")
    with pytest.raises(AddressError) as raised:
        SocketFile(room / "file/s")
    assert raised.value.address == str(room / "file/s")


# Paths that no socket can have.


def path_of(room: Path, size: int) -> Path:
    return room / ("x" * (size - len(str(room)) - 1))


def test_the_longest_path_of_a_socket_can_be_used(room: Path) -> None:
    with owned(path_of(room, MAX_PATH_BYTES)) as file:
        connect(file.path, 1).close()


def test_a_longer_path_is_an_error_that_says_how_long_it_is(room: Path) -> None:
    path = path_of(room, MAX_PATH_BYTES + 1)
    for use in (SocketFile, connect):
        with pytest.raises(AddressError, match=f"{MAX_PATH_BYTES + 1} bytes.*{MAX_PATH_BYTES}"):
            use(str(path))
    assert list(room.iterdir()) == []


def test_the_length_of_a_path_is_counted_in_bytes(room: Path) -> None:
    with pytest.raises(AddressError, match="bytes"):
        SocketFile(room / ("ä" * 60))


def test_a_path_with_a_nul_is_an_error(room: Path) -> None:
    for use in (SocketFile, connect):
        with pytest.raises(AddressError, match="NUL"):
            use(f"{room}/a\0b")


# Nobody there.


def test_connecting_to_nobody_names_the_address_and_the_reason(room: Path) -> None:
    left_over(room / "s")
    for name, reason in [("none", "no such socket"), ("s", "nobody listens")]:
        with pytest.raises(StoreUnreachableError, match=reason) as raised:
            connect(str(room / name), 1)
        assert raised.value.address == str(room / name)
        assert str(room / name) in str(raised.value)


def test_where_a_store_could_not_start_either_the_error_says_what_is_there(room: Path) -> None:
    (room / "file").write_text("precious")
    (room / "folder").mkdir()
    (room / "loop").symlink_to(room / "loop")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(room / "other"))
        for name, reason in {
            "file": "a file that is no socket is there",
            "folder": "it is a directory",
            "file/s": "a part of the path is a file",
            "loop": "symbolic links",
            "other": "a socket of another kind",
        }.items():
            with pytest.raises(AddressError, match=reason) as raised:
                connect(str(room / name), 1)
            assert raised.value.address == str(room / name)
            assert "serve" not in str(raised.value)


def test_a_link_that_leads_to_nobody_is_an_error_that_names_where_it_leads(room: Path) -> None:
    (room / "link").symlink_to(room / "s")
    with pytest.raises(StoreUnreachableError, match="no such socket") as raised:
        connect(str(room / "link"), 1)
    assert raised.value.address == str(room / "s")  # a store starts there, and at no link


def test_a_directory_that_is_missing_is_named_but_for_those_that_a_store_makes(home: Path) -> None:
    with pytest.raises(StoreUnreachableError, match=f"there is no directory {home}/none"):
        connect(f"{home}/none/s", 1)
    with pytest.raises(StoreUnreachableError, match="there is no such socket"):
        connect(str(default_address()), 1)


CONNECT_AS_NOBODY = """
import os, sys
from actorstore.address import connect
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
connect(sys.argv[1], 1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_socket_of_another_user_is_said_to_be_one(room: Path) -> None:
    with owned(room / "s"):
        assert (
            "there is no permission to look into its directory"
            in python("-c", CONNECT_AS_NOBODY, str(room / "s")).stderr
        )
        room.chmod(0o755)
        said = python("-c", CONNECT_AS_NOBODY, str(room / "s")).stderr.splitlines()[-1]
    assert said.startswith("actorstore.errors.AddressError: ")
    assert "the socket there is that of user 0" in said
    assert "serve" not in said


def test_a_full_disk_keeps_no_store_from_listening(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "ftruncate", full)
    file = SocketFile(room / "s")
    file.release()
    assert list(room.iterdir()) == []


def test_a_user_without_a_home_is_told_that_no_store_answers(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(StoreUnreachableError):
        connect(str(room / "s"))
