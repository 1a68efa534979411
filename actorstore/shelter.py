"""Work and waiting that an interruption of the caller leaves whole.

Python raises `KeyboardInterrupt`, and whatever else a signal handler raises, in
the main thread, between any two of its instructions: also between the call that
opened a file and the statement that keeps its descriptor, which is lost then,
and locked for as long as the process lives. Nothing in the main thread prevents
that. Another thread is never interrupted.

`threading.Event` and `Thread.join` are of no use for waiting here: interrupted in
the wrong place, the first keeps its lock for good, and the second takes the
thread for ended (CPython 3.11, bpo-45274).
"""

from __future__ import annotations

import threading
from _thread import allocate_lock, start_new_thread
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class Latch:
    """Something that happens once; takes no lock, so that finalizers may use it."""

    def __init__(self) -> None:
        self.is_set = False
        self._callbacks: deque[Callable[[], object]] = deque()

    def set(self) -> None:
        """Say that it has happened; saying so again does nothing."""
        self.is_set = True
        with suppress(IndexError):
            while True:
                self._callbacks.popleft()()

    def call(self, callback: Callable[[], object]) -> None:
        """Call something once, when it happens, in the thread that says so; at once where it has happened."""
        self._callbacks.append(callback)
        if self.is_set:
            self.set()  # whichever thread takes it from the deque calls it

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it happens, so many seconds at most; return whether it has."""
        if self.is_set:
            return True
        happened = allocate_lock()
        happened.acquire()
        callback = happened.release
        self.call(callback)
        try:
            happened.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        finally:
            if not self.is_set:  # or it is taken already
                with suppress(ValueError):
                    self._callbacks.remove(callback)
        return self.is_set


def sheltered(work: Callable[[], object], undo: Callable[[], object]) -> None:
    """Do some work in a thread of its own, and wait for it; undo it where the caller is interrupted.

    An interrupted caller waits until it is undone; one that is interrupted
    again does not.

    Args:
        work: Leaves nothing behind where it raises.
        undo: Undoes the work; may be called twice, and where nothing was done.

    Raises:
        BaseException: What the work raises, or what has interrupted the caller.
    """
    shelter = _Shelter(work, undo)
    try:
        start_new_thread(shelter.start, ())  # at once or not at all, which `Thread.start` does not promise
        shelter.over.wait()
    except BaseException:
        shelter.give_up()
        raise
    shelter.check()


class _Shelter:
    """Work that is done for a caller who may give it up."""

    def __init__(self, work: Callable[[], object], undo: Callable[[], object]) -> None:
        self.over = Latch()
        self._work = work
        self._undo = undo
        self._lock = threading.Lock()  # of the next three
        self._has_begun = False
        self._is_done = False
        self._is_given_up = False
        self._error: BaseException | None = None

    def start(self) -> None:
        """Start the thread, in one that Python's threads do not know, and that must not ask who it is."""
        with self._lock:
            if self._is_given_up:
                return
            self._has_begun = True
        try:
            threading.Thread(target=self._run, name="StoreOpening", daemon=True).start()
        except BaseException as error:
            self._end(error)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            self._is_done = True
            is_given_up = self._is_given_up
            self._error = None if is_given_up else error
        try:
            if is_given_up:
                self._undo()
        finally:
            self.over.set()

    def give_up(self) -> None:
        """Have the work undone, and wait until it is."""
        with self._lock:
            self._is_given_up = True
            has_begun, is_done = self._has_begun, self._is_done
        if is_done:
            self._undo()
        elif has_begun:
            self.over.wait()

    def check(self) -> None:
        """Raise what the work has raised."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # which refers to this frame
