"""Disks that fail for real: `fsync` by way of strace, and a file system without room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from actorstore import Event, RemoteStore, Store
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
