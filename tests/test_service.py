"""What works behind a store: kept at every end of a process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from actorstore import Store
from actorstore.journal import Journal
from tests.builders import unit_queued
from tests.threads import python

EVENTS = 20_001


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j"


def kept(path: Path) -> int:
    """How many events a journal holds; no store has it open."""
    journal = Journal(path, create=False)
    journal.close()
    return journal.head.version


# The end of the process.

PRELUDE = f"""
import atexit, contextlib, gc, logging, multiprocessing, os, signal, sys, threading
from actorstore import Event, Store, StoreTimeoutError
path = {{path!r}}
def feed(store, events={EVENTS}):
    for _ in range(events):
        store.handle_event(Event("note", unit="a"))
def fed():
    store = Store(journal=path)
    feed(store)
    return store
"""


def ended(path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, to its end."""
    script = path.with_name("script.py")
    script.write_text(PRELUDE.format(path=str(path)) + code)
    return python(str(script))


ENDS = {
    "the script ends": ("store = fed()", 0),
    "the script exits": ("store = fed(); sys.exit(3)", 3),
    "an exception ends it": ("store = fed(); raise KeyError('mine')", 1),
    "ctrl-c ends it": ("store = fed(); signal.raise_signal(signal.SIGINT)", -2),
    "a handler of SIGTERM exits": (
        "store = fed(); signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); signal.raise_signal(15)",
        4,
    ),
    "the store was dropped before": ("fed()", 0),
    "the store is in a circle": ("circle = [fed()]; circle.append(circle); del circle", 0),
    "the store was dropped, and collected": ("fed(); gc.collect()", 0),
    "the store is listening": (
        "store = Store(journal=path, listen=path + '.sock'); feed(store)",
        0,
    ),
    "the store was closed, in too short a time": (
        "store = fed()\nwith contextlib.suppress(StoreTimeoutError): store.close(timeout=0)",
        0,
    ),
    "there are two stores": ("store = fed(); other = Store(journal=path + '.other'); feed(other, 9000)", 0),
    "a thread is still feeding": (
        "store = Store(journal=path); threading.Thread(target=feed, args=[store]).start()",
        0,
    ),
    "the store is closed at exit": ("store = fed(); atexit.register(store.close)", 0),
}
if sys.version_info < (3, 12):  # from then on no thread is started so late
    ENDS["the store was made at exit"] = ("atexit.register(lambda: globals().update(store=fed()))", 0)


@pytest.mark.parametrize(("code", "status"), ENDS.values(), ids=ENDS)
def test_all_that_was_handed_over_is_in_the_journal_however_a_process_ends(
    path: Path, code: str, status: int
) -> None:
    result = ended(path, code)
    assert result.returncode == status, result.stderr
    assert "lost" not in result.stderr
    assert kept(path) == EVENTS
    other = path.with_name("j.other")
    assert not other.exists() or kept(other) == 9000


CHILD = """
def work(fails):
    store = fed()
    if fails:
        sys.exit(5)
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    process = context.Process(target=work, args=({fails},))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "exits"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_all_that_was_handed_over_is_in_the_journal_when_a_worker_ends(
    path: Path, method: str, fails: bool
) -> None:
    result = ended(path, CHILD.format(method=method, fails=fails))
    assert (result.returncode, result.stderr) == (5 if fails else 0, "")
    assert kept(path) == EVENTS


def test_all_that_was_handed_over_is_in_the_journal_when_a_pool_ends(path: Path) -> None:
    code = """
import concurrent.futures
def work():
    globals()["kept"] = fed()
if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        pool.submit(work).result()
"""
    result = ended(path, code)
    assert (result.returncode, result.stderr) == (0, "")
    assert kept(path) == EVENTS


def test_a_worker_of_a_parent_that_has_a_store_closes_its_own(path: Path) -> None:
    code = """
def work():
    store = fed()
outer = Store(journal=path + ".outer")
feed(outer, 10)
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
feed(outer, 10)
"""
    result = ended(path, code)
    assert (result.returncode, result.stderr) == (0, "")
    assert kept(path) == EVENTS
    assert kept(path.with_name("j.outer")) == 20


def test_what_a_daemon_thread_had_handed_over_when_the_process_began_to_end_is_in_the_journal(
    path: Path,
) -> None:
    code = """
store = Store(journal=path)
handed_over = 0
enough = threading.Event()
def go_on():
    global handed_over
    with contextlib.suppress(Exception):
        while True:
            store.handle_event(Event("note", unit="a"))
            handed_over += 1
            if handed_over == 20_000:
                enough.set()
threading.Thread(target=go_on, daemon=True).start()
enough.wait()
atexit.register(lambda: print(handed_over))
"""
    result = ended(path, code)
    assert (result.returncode, result.stderr) == (0, "")
    assert kept(path) >= int(result.stdout) >= 20_000


STALLED = """
from actorstore import endings
from actorstore.journal import Journal, NoRoomError
endings.PATIENCE_SECONDS = 0.5
append, tries = Journal.append, []
def stalled(self, *args):
    tries.append(0)
    if len(tries) > 1:
        {how}
    return append(self, *args)
Journal.append = stalled
store = Store(journal=path)
feed(store, 1)
store.flush()
feed(store, {more})
"""
FULL = "raise NoRoomError('no space left on the device')"
HANGS = "threading.Event().wait()"


@pytest.mark.parametrize(
    ("how", "more", "lost"),
    [
        (
            FULL,
            1,
            "1 event is lost with this process: not in the journal {} yet (no space left on the device)",
        ),
        (
            FULL,
            20_000,
            "20,000 events are lost with this process: not in the journal {} yet (no space left on",
        ),
        (
            HANGS,
            20_000,
            "20,000 events are lost with this process: not in the journal {} yet (the disk takes",
        ),
    ],
    ids=["full", "full, many", "hangs"],
)
def test_what_a_stalled_disk_does_not_take_in_time_is_counted_aloud(
    path: Path, how: str, more: int, lost: str
) -> None:
    result = ended(path, STALLED.format(how=how, more=more))
    assert result.returncode == 0
    assert lost.format(path) in result.stderr
    assert kept(path) == 1


def test_a_log_that_is_kept_in_a_file_holds_what_was_lost(path: Path) -> None:
    log = path.with_name("log")
    code = f"logging.basicConfig(filename={str(log)!r})\n" + STALLED.format(how=FULL, more=7)
    assert ended(path, code).returncode == 0
    assert re.search(r"ERROR:actorstore:7 events are lost", log.read_text())


def test_a_process_that_has_lost_nothing_says_nothing(path: Path) -> None:
    result = ended(path, "store = fed()")
    assert (result.stdout, result.stderr) == ("", "")


# Dropped.


def test_a_store_that_is_dropped_with_its_queue_full_loses_nothing(path: Path) -> None:
    def drop() -> None:
        store = Store(journal=path)
        for _ in range(EVENTS):
            store.handle_event(unit_queued("a"))

    with pytest.warns(ResourceWarning, match="was not closed"):
        drop()
    with Store(journal=path) as again:  # which waits for the first
        assert again.stats().version == EVENTS
