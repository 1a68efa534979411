"""A store in a child process: it starts, says why it cannot, and ends with its parent in whatever way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actorstore import (
    AddressError,
    RemoteStore,
    SocketInUseError,
    Store,
    StoreClosedError,
    StoreProcess,
    StoreUnreachableError,
    connect,
)
from tests.builders import diamond, line, lines, orch_started, task_started, unit_queued, units, whole_run
from tests.raw import Raw, folder, nothing_left
from tests.threads import ROOT, SECONDS, python, wait_until


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def path() -> Iterator[Path]:
    with folder() as room:
        yield room / "s"


def is_alive(pid: int | None) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_child_holds_the_store_and_ends_when_closed() -> None:
    process = StoreProcess()
    pid, address = process.pid, process.remote.address
    with process as remote:
        assert isinstance(remote, RemoteStore)
        assert pid != os.getpid()
        assert is_alive(pid)
        remote.handle_lines(lines(*whole_run(diamond())))
        assert remote.snapshot().summary.complete == 4
        assert str(pid) in repr(process)
    assert not is_alive(pid)
    assert not Path(address).parent.exists()
    process.close()
    with pytest.raises(StoreClosedError):
        remote.snapshot()


def test_the_private_folder_is_for_this_user_alone() -> None:
    with StoreProcess() as remote:
        folder = Path(remote.address).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert Path(remote.address).stat().st_mode & 0o777 == 0o600
    assert not folder.exists()


def test_others_may_connect_where_it_was_told_to_listen(path: Path) -> None:
    with StoreProcess(listen=path, max_line_bytes=1000) as remote, connect(path) as other:
        assert remote.address == str(path)
        other.handle_lines(line(unit_queued("a")) + b"x" * 2000 + b"\n")
        assert (other.flush().accepted, other.flush().rejected) == (1, 1)
        assert remote.stats().version == 1
    assert list(path.parent.iterdir()) == []


def test_a_socket_in_use_is_refused_with_its_owner(path: Path) -> None:
    with Store(listen=path) as store:
        with pytest.raises(SocketInUseError) as raised:
            StoreProcess(listen=path)
        assert (raised.value.owner, raised.value.address) == (os.getpid(), str(path))
        assert store.stats().connections == 0


def test_a_path_that_cannot_be_is_refused_with_the_reason(path: Path) -> None:
    path.write_text("in the way")
    with pytest.raises(AddressError, match="no socket") as raised:
        StoreProcess(listen=path)
    assert raised.value.address == str(path)
    with pytest.raises(AddressError, match="bytes"):
        StoreProcess(listen=path.parent / ("x" * 200))


def test_what_was_handed_over_is_applied_before_the_child_ends(path: Path) -> None:
    process = StoreProcess(listen=path)
    with Raw(path) as follower:
        follower.hello()
        process.remote.handle_event(orch_started(units("a")))
        process.remote.handle_lines(line(task_started("a", 7)) * 20_000)
        process.close()
        assert follower.rest()[-1]["error"]["code"] == "closed"
    with pytest.raises(StoreClosedError):
        process.remote.flush()


def test_sigterm_ends_the_child_with_all_that_was_written_acked(path: Path) -> None:
    process = StoreProcess(listen=path)
    with Raw(path) as producer:
        producer.hello("p")
        producer.send(line(unit_queued("a")) * 5000)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGTERM)
        acked = [message["ack"]["lines"] for message in producer.rest() if "ack" in message]
        assert acked[-1] == 5000
    wait_until(lambda: not is_alive(process.pid))
    assert list(path.parent.iterdir()) == []
    process.close(SECONDS)


# The parent.


def test_a_parent_that_forgets_to_close_has_all_sent_before_the_child_ends(path: Path) -> None:
    script = path.parent / "parent.py"
    script.write_text(f"""
from actorstore import Event, StoreProcess
if __name__ == "__main__":
    process = StoreProcess(listen={str(path)!r}, journal={str(path) + "j"!r})
    print(process.pid)
    for _ in range(20_001):
        process.remote.handle_event(Event("note", unit="a"))
""")
    result = python(str(script))
    assert (result.returncode, result.stderr) == (0, "")
    assert not is_alive(int(result.stdout))
    with Store(journal=f"{path}j") as store:
        assert store.stats().version == 20_001


PARENT = """
import os, signal, sys, time
from actorstore import Event, StoreProcess
if __name__ == "__main__":
    process = StoreProcess(listen=sys.argv[1])
    process.remote.handle_event(Event.orch_started({"a": []}))
    process.remote.flush()
    print(process.pid, flush=True)
    try:
        sys.stdin.readline()
    except KeyboardInterrupt:
        process.remote.handle_event(Event.orch_completed())
        process.remote.flush()
        print(process.remote.snapshot().status, flush=True)
        sys.stdin.readline()
    process.close()
    print("closed", flush=True)
"""


class Parent:
    """A script that has a `StoreProcess`, in a process group of its own."""

    def __init__(self, path: Path) -> None:
        script = path.parent / "parent.py"
        script.write_text(PARENT)
        self.popen = subprocess.Popen(
            [sys.executable, str(script), str(path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.child = int(self.read())

    def read(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def __enter__(self) -> Parent:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.communicate(timeout=SECONDS)


def test_the_child_ends_when_its_parent_is_killed(path: Path) -> None:
    with Parent(path) as parent:
        parent.popen.kill()
        parent.popen.wait(SECONDS)
        wait_until(lambda: not is_alive(parent.child))
    assert not path.exists()
    with pytest.raises(StoreUnreachableError):
        connect(path)


def test_ctrl_c_does_not_end_the_child_before_the_parent_does(path: Path) -> None:
    with Parent(path) as parent, connect(path) as other:
        assert other.snapshot().status == "running"
        os.killpg(parent.popen.pid, signal.SIGINT)
        assert parent.read() == "completed"
        assert is_alive(parent.child)
        assert other.snapshot().status == "completed"
        parent.go_on()
        assert parent.read() == "closed"
        assert parent.popen.wait(SECONDS) == 0
        assert not is_alive(parent.child)


# Children of the parent.


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@needs_fork
def test_a_forked_child_that_lives_on_does_not_keep_the_store_from_ending(path: Path) -> None:
    process = StoreProcess(listen=path)
    here, there = socket.socketpair()
    child = os.fork()
    if not child:
        here.close()
        there.recv(1)  # until it is let go
        os._exit(0)
    there.close()
    try:
        process.close()
        assert process._child.process.exitcode == 0  # it ended by itself, and was not killed
        assert list(path.parent.iterdir()) == []
    finally:
        here.close()
        os.waitpid(child, 0)


@needs_fork
def test_a_forked_child_that_ends_leaves_the_store_of_its_parent_alone() -> None:
    code = """
import os, sys
from actorstore import StoreProcess, connect
with StoreProcess() as remote:
    child = os.fork()
    if not child:
        sys.exit()
    os.waitpid(child, 0)
    with connect(remote.address) as other:
        print(other.snapshot().status)
"""
    result = python(code=code)
    assert (result.stdout, result.stderr, result.returncode) == ("waiting\n", "", 0)


@needs_fork
def test_a_forked_child_may_use_the_client_as_a_producer_of_its_own() -> None:
    with StoreProcess() as remote:
        remote.handle_event(unit_queued("a"))
        pid = os.fork()
        if not pid:
            try:
                remote.handle_event(unit_queued("a"))
                remote.close()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        remote.flush()
        assert remote.stats().accepted == 2


def test_starting_and_stopping_leaves_nothing_behind() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with StoreProcess() as remote:
        remote.handle_event(unit_queued("a"))
    end = time.monotonic() + SECONDS
    while len(os.listdir("/proc/self/fd")) > len(before) + 1:  # the resource tracker of spawn stays
        assert time.monotonic() < end
