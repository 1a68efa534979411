"""Disks that fail for real: `fsync` by way of strace, and a file system without room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from actorstore import Event, RemoteStore, Store
from actorstore.cli import main
from actorstore.compaction import write as keep
from actorstore.errors import JournalFullError
from actorstore.journal import Journal
from actorstore.recovery import recover
from tests.raw import folder
from tests.threads import ROOT, SECONDS, wait_until

FEED = """
import sys
from actorstore import Event, Store
from actorstore.errors import JournalError, JournalFailedError
try:
    with Store(journal=sys.argv[1]) as store:
        store.handle_event(Event.orch_started({"a": []}))
        for number in range(int(sys.argv[2])):
            store.handle_event(Event.unit_started("a"))
            print(store.flush().accepted, flush=True)
except (JournalError, JournalFailedError) as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(74)
"""


def can_trace() -> bool:
    """Whether processes can be traced here."""
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode
        == 0
    )


@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace")
def test_after_a_failed_sync_nothing_is_acked_and_the_next_start_recovers(tmp_path: Path) -> None:
    number = 0
    while True:
        number += 1
        path = tmp_path / f"j{number}"
        fault = f"inject=fsync,fdatasync:error=EIO:when={number}"
        trace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fsync,fdatasync", "-e", fault]
        done = subprocess.run(
            [*trace, sys.executable, "-c", FEED, str(path), "3"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = done.stdout.split("\n")
        acked = max([int(line) for line in said if line.isdigit()], default=0)
        if "Journal" in done.stdout:
            assert done.returncode == 74, done.stderr
            assert not said[-2].isdigit(), "acked after a failed sync"
        with Store(journal=path) as store:
            assert acked <= store.stats().version <= acked + 2
        if acked == 4 and done.returncode == 0 and "WARNING" not in done.stderr and number > 5:
            break
        assert number < 40
    assert number > 4


def mounted(place: Path, size: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of some MiB: each time it is full, what room the WAL had has become data."""
    with folder() as place:
        if not mounted(place, "16m"):
            pytest.skip("no file system can be mounted here")
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> None:
    """Leave no room."""
    with open(place / "filler", "wb", buffering=0) as file:
        for size in (1 << 16, 4096):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def test_a_disk_that_is_full_twenty_times_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    def troubled(store: Store) -> bool:
        stats = store.stats()
        return stats.journal is not None and stats.journal.trouble is not None

    attempts = 0
    with ExitStack() as stack:
        store = stack.enter_context(Store(journal=small_disk / "j", listen=tmp_path / "s"))
        remote = stack.enter_context(RemoteStore(tmp_path / "s"))
        stack.callback(lambda: (small_disk / "filler").unlink(missing_ok=True))
        remote.handle_event(Event.orch_started({"a": []}))
        remote.flush()
        for _ in range(20):
            fill(small_disk)
            acked = attempts
            while not troubled(store):
                remote.handle_event(Event.unit_failed("a", "x" * 500))
                remote.handle_event(Event.unit_started("a"))
                attempts += 1
            assert acked <= store.snapshot().units[0].attempts <= attempts
            with RemoteStore(tmp_path / "s") as reader:
                assert reader.snapshot().units[0].attempts >= acked
            (small_disk / "filler").unlink()
            remote.flush(SECONDS)
            assert store.snapshot().units[0].attempts == attempts
            wait_until(lambda: not troubled(store))
    with Store(journal=small_disk / "j") as store:
        assert store.snapshot().units[0].attempts == attempts


def test_a_limit_on_the_size_of_files_is_waited_out_too(tmp_path: Path) -> None:
    code = """
import resource, sys
from actorstore import Event, Store, StoreTimeoutError
with Store(journal=sys.argv[1]) as store:
    store.handle_event(Event.orch_started({"a": []}))
    store.flush()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        for _ in range(100):
            store.handle_event(Event.unit_failed("a", "x" * 5000))
            store.flush(0.5)
    except StoreTimeoutError as error:
        print(error)
    assert store.snapshot().status == "running"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    store.flush(20)
    print("version", store.stats().version)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "j")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout
    with Store(journal=tmp_path / "j") as store:
        assert f"version {store.stats().version}" in done.stdout


def traced(path: Path, fault: str) -> subprocess.CompletedProcess[str]:
    """Feed a store some of whose writes fail."""
    trace = [
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        "trace=pwrite64",
        "-e",
        f"inject=pwrite64:{fault}",
    ]
    return subprocess.run(
        [*trace, sys.executable, "-c", FEED, str(path), "30"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace")
def test_a_write_that_fails_is_final_and_the_next_start_recovers(tmp_path: Path) -> None:
    final = 0
    for when in ("60+", "60", "61", "62", "63", "64"):
        path = tmp_path / f"j{when}"
        done = traced(path, f"error=EIO:when={when}")
        said = done.stdout.split("\n")
        acked = max([int(line) for line in said if line.isdigit()])
        if done.returncode:
            assert (done.returncode, said[-2].split()[0]) == (74, "JournalFailedError"), done.stdout
            final += 1
        else:
            assert acked == 31, done.stdout  # it was the mark, which need not be written
        with Store(journal=path) as store:
            assert acked <= store.stats().version <= acked + 2
    assert final >= 3


@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace")
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EFBIG"])
@pytest.mark.parametrize("last", [70, 71, 72, 73])
def test_a_write_that_finds_no_room_is_tried_again(tmp_path: Path, error: str, last: int) -> None:
    done = traced(tmp_path / "j", f"error={error}:when=60..{last}")
    assert done.returncode == 0, done.stdout
    assert done.stdout.split("\n")[-2] == "31"
    with Store(journal=tmp_path / "j") as store:
        assert store.stats().version == 31


@pytest.mark.parametrize("durability", ["lose-nothing", "lose-unwritten"])
def test_a_store_that_was_killed_starts_again_on_a_full_disk(small_disk: Path, durability: str) -> None:
    code = """
import os, signal, sys
from actorstore import Event, Store
store = Store(journal=sys.argv[1], durability=sys.argv[2])
store.handle_event(Event.orch_started({"a": []}))
store.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", code, str(small_disk / "j"), durability]
    for has_lock in (True, False):
        subprocess.run(command, cwd=ROOT, timeout=SECONDS, check=False)
        if not has_lock:
            (small_disk / "j.lock").unlink()
        fill(small_disk)
        with Store(journal=small_disk / "j", durability=durability) as store:
            version = store.stats().version
            assert version == (1 if has_lock else 3)
            assert store.snapshot().status == "running"
            store.handle_event(Event.unit_failed("a", "x" * 500))
            (small_disk / "filler").unlink()
            store.flush(SECONDS)
            assert store.stats().version == version + 1


def test_compaction_on_a_full_disk_says_so_and_loses_nothing(small_disk: Path) -> None:
    path = small_disk / "j"
    journal = Journal(path)
    for number in range(30):
        journal.append(1, b"", b'{"type":"note","payload":"%s"}\n' % (b"x" * 100_000))
        if number % 10 == 9:
            keep(journal, recover(journal))
    journal.close()
    with Store(journal=path) as store:
        fill(small_disk)
        with suppress(JournalFullError):  # or there was room enough in the WAL
            store.compact(keep=5)
        (small_disk / "filler").unlink()
        assert store.compact(keep=5) == 20
        assert store.snapshot(at=25).version == 25
    assert main(["journal", "check", str(path)]) == 0
