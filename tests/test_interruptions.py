"""Interrupted anywhere on their way, stores leave nothing that is in the way of the next one."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import actorstore
from actorstore import RemoteStore, Store, StoreProcess
from actorstore.link import Link
from actorstore.service import Service
from actorstore.shelter import Latch
from tests.builders import unit_queued
from tests.raw import folder
from tests.threads import SECONDS, is_below, wait_until

OURS = (os.path.dirname(actorstore.__file__), __file__)
"""Where the code lies that is interrupted."""

HARMLESS = ("account.py", "handover.py", "intake.py", "throttle.py")
"""Files that have nothing to do with files and threads, so that no time is spent on them."""

STORES: dict[str, Callable[[Path], dict[str, Path]]] = {
    "in memory": lambda room: {},
    "listening": lambda room: {"listen": room / "s"},
    "with a journal": lambda room: {"journal": room / "j"},
    "listening, with a journal": lambda room: {"listen": room / "s", "journal": room / "j"},
}


@pytest.fixture
def room() -> Iterator[Path]:
    with folder() as made:
        yield made


@pytest.fixture(autouse=True)
def _dropped_stores_are_no_news() -> Iterator[None]:
    gc.collect()
    gc.disable()  # so that nothing is closed late, and no finalizer of others is what is interrupted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
    gc.enable()


def descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
        except OSError:
            continue  # it was that of the listing itself
    return sorted(found)


@contextmanager
def nothing_more() -> Iterator[None]:
    """Check that a block leaves no thread and no descriptor."""
    threads, before = threading.active_count(), len(descriptors())
    yield
    try:
        wait_until(lambda: threading.active_count() <= threads and len(descriptors()) <= before, SECONDS / 3)
    except AssertionError:
        raise AssertionError(f"left: {threading.enumerate()}, {descriptors()}") from None


class Interruption:
    """Raises `KeyboardInterrupt` in this thread, at the so-manieth step of what is called.

    Args:
        step: How many lines, calls and returns go before.
    """

    def __init__(self, step: int) -> None:
        self.left = step
        self.place = ""

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        file = frame.f_code.co_filename
        if self.place or not file.startswith(OURS) or file.endswith(HARMLESS):
            return None
        if frame.f_code in (Service.let_go.__code__, Link.let_go.__code__):
            return None  # Python raises nothing out of finalizers
        self.left -= 1
        if self.left < 0:
            self.place = f"{frame.f_code.co_filename}:{frame.f_lineno} {event}"
            raise KeyboardInterrupt
        return self.trace

    def __call__(self, function: Callable[[], object]) -> bool:
        """Call something; say whether it was interrupted."""
        sys.settrace(self.trace)
        try:
            function()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False


def open_again_and_again(options: dict[str, Path], interrupted: type) -> int:
    """Interrupt the opening of a store at one step after the other; the next one opens what that left."""
    made: list[Store] = []

    def make() -> None:
        store = Store(**options)
        made.append(store)  # without an interruption in between

    make()
    made.pop().close()
    return again_and_again(make, interrupted, lambda: [store.close() for store in made] and made.clear())


def again_and_again(
    use: Callable[[], object], interrupted: type, end: Callable[[], object] = lambda: None
) -> int:
    """Interrupt something at one step after the other, which has to leave all as it was; count them."""
    place = "nowhere"
    for step in itertools.count():
        interrupt = interrupted(step)
        try:
            with nothing_more():
                is_interrupted = interrupt(use)
                end()
        except (OSError, AssertionError) as error:
            pytest.fail(f"after it was interrupted at {place}, then at {interrupt.place}: {error!r}")
        if not is_interrupted:
            break
        place = interrupt.place
    return step


@pytest.mark.parametrize("options", STORES.values(), ids=STORES)
def test_a_store_that_is_interrupted_at_any_line_of_its_opening_leaves_all_to_the_next(
    room: Path, options: Callable[[Path], dict[str, Path]]
) -> None:
    assert open_again_and_again(options(room), Interruption) > 20


class Signal:
    """Sends this thread a SIGINT when the thread that opens has come so far, which waits until it is heard.

    Args:
        step: How many lines the other thread does before.
    """

    def __init__(self, step: int) -> None:
        self.left = step
        self.place = ""
        self._main = threading.get_ident()
        self._is_over = False

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        file = frame.f_code.co_filename
        if self.place or not file.startswith(OURS) or threading.current_thread().name != "StoreOpening":
            return None
        if frame.f_code is Latch.set.__code__:
            return None  # this thread may go on by now
        self.left -= event == "line"
        if self.left < 0:
            self.place = f"{file}:{frame.f_lineno}"
            signal.pthread_kill(self._main, signal.SIGINT)
            wait_until(self._is_heard)
        return self.trace

    def _is_heard(self) -> bool:
        return self._is_over or is_below(self._main, "give_up")

    def __call__(self, function: Callable[[], object]) -> bool:
        """Call something; say whether it was interrupted."""
        threading.settrace(self.trace)
        try:
            function()
        except KeyboardInterrupt:
            return True
        finally:
            self._is_over = True
            threading.settrace(None)  # type: ignore[arg-type]
        return False


@pytest.mark.parametrize("kind", ["in memory", "listening, with a journal"])
def test_a_store_that_is_interrupted_while_another_thread_opens_it_is_closed_by_that(
    room: Path, kind: str
) -> None:
    assert open_again_and_again(STORES[kind](room), Signal) > 20


@pytest.mark.parametrize("options", STORES.values(), ids=STORES)
def test_a_store_that_is_interrupted_at_any_line_of_its_block_leaves_all_to_the_next(
    room: Path, options: Callable[[Path], dict[str, Path]]
) -> None:
    def live() -> None:
        with Store(**options(room)) as store:
            store.handle_event(unit_queued("a"))

    assert again_and_again(live, Interruption) > 20


# A store in a child process.


def children() -> list[str]:
    """The children of this process that run, or that it has not looked after."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_a_child_process_that_is_interrupted_at_any_line_of_its_opening_is_ended(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    made: list[StoreProcess] = []

    def make() -> None:
        process = StoreProcess()
        made.append(process)

    def end() -> None:
        while made:
            made.pop().close()
        gc.collect()  # multiprocessing closes its pipes when a process is collected
        assert children() == before
        assert list(room.iterdir()) == []

    make()
    made.pop().close()
    before = children()  # that which spawning starts once and for all
    assert again_and_again(make, Interruption, end) > 20


# A client with a spool.


def test_a_client_that_is_interrupted_at_any_line_of_its_making_leaves_its_spool_to_the_next(
    room: Path,
) -> None:
    made: list[RemoteStore] = []

    def make() -> None:
        store = RemoteStore(room / "s", spool=room / "p")
        made.append(store)  # as above

    def end() -> None:
        while made:
            made.pop().close()
        gc.collect()

    assert again_and_again(make, Interruption, end) > 20
