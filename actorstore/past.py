"""The past: a run as it was at a version, folded from the journal by whoever asks.

The actor takes no part in it. The journal is read in short pieces, between the
transactions of its writer, and what they hold is applied to a state of its own,
which begins with the checkpoint before the version. While the store is busy,
this rests now and then, because both share one interpreter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, TypeVar

from actorstore.answers import StateSnapshot
from actorstore.api import check_version
from actorstore.batch import Batch
from actorstore.errors import JournalDamagedError, StoreTimeoutError, VersionGoneError
from actorstore.journal import Checkpoint, Journal
from actorstore.recovery import Fold, at_checkpoint, at_start
from actorstore.wire import chunks

T = TypeVar("T")

PIECE_BYTES: Final = 256 << 10
"""Bytes of lines that are read at a time: some batches, a fraction of a millisecond."""

WORK_SECONDS: Final = 0.01
"""How long this works at a time: who gets the interpreter back from a busy store has waited 5 ms for it."""

REST: Final = 0.5
"""How long this rests while the store is busy, as a share of the time it works."""


class Journals(Protocol):
    """Who does things with a journal for others."""

    path: str

    def ask(self, do: Callable[[Journal], T]) -> T:
        """Do something short with the journal, and return what comes of it."""


class Past:
    """What a store was; safe to use from any thread.

    Args:
        writer: Who owns the journal.
        is_busy: Whether the store has something else to do just now.
    """

    def __init__(self, writer: Journals, is_busy: Callable[[], bool]) -> None:
        self.path = writer.path
        self._writer = writer
        self._is_busy = is_busy

    def snapshot(
        self,
        run: str | None,
        at: int,
        timeout: float | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> StateSnapshot:
        """Return a run as it was when the store had accepted so many events; `connected` is false.

        Args:
            run: Id of the run; `None` for the one that started last.
            at: The version.
            timeout: Seconds that it may take.
            is_wanted: Whether somebody still waits for it.

        Raises:
            VersionGoneError: The journal does not hold that version.
            UnknownRunError: There was no such run.
            StoreTimeoutError: It took longer than this, or nobody waits any more.
            JournalDamagedError: The journal does not hold what was written into it.
            StoreClosedError: The store is closed.
            ValueError: `at` has more than 53 bits.
        """
        check_version(at)
        until = None if timeout is None else time.monotonic() + timeout

        def check() -> None:
            if (until is not None and time.monotonic() >= until) or not is_wanted():
                raise StoreTimeoutError(timeout or 0, 0)

        try:
            check()
            fold = self._begin(at, check)
            for _ in self._fold(fold, at):
                check()
        except JournalDamagedError:
            self._writer.ask(lambda journal: _check(journal, at))  # it may have been cut off meanwhile
            raise
        return fold.state.snapshot(run)

    def _begin(self, at: int, check: Callable[[], None]) -> Fold:
        """Return what to begin with: the newest checkpoint before the version that is whole, or nothing."""
        for checkpoint in self._writer.ask(lambda journal: _before(journal, at)):
            with suppress(JournalDamagedError):
                parts = self._writer.ask(partial(Journal.parts, checkpoint=checkpoint))
                return at_checkpoint(self.path, checkpoint, self._read(parts, check))
        return self._writer.ask(at_start)

    def _read(self, parts: Iterator[bytes], check: Callable[[], None]) -> Iterator[bytes]:
        while (part := self._writer.ask(lambda _: next(parts, None))) is not None:
            yield part
            check()
            self._rest()

    def _fold(self, fold: Fold, at: int) -> Iterator[None]:
        """Apply batches until the version is reached, and yield now and then."""
        while fold.state.version < at:
            after = fold.place.seq
            batches = self._writer.ask(lambda journal: journal.batches(after, PIECE_BYTES))
            if not batches:
                raise JournalDamagedError(fold.journal, f"batch {after + 1} is missing")
            for batch in batches:
                yield from self._add(fold, batch, at)
                if fold.state.version >= at:
                    return

    def _add(self, fold: Fold, batch: Batch, at: int) -> Iterator[None]:
        fold.check(batch)
        began = time.thread_time()
        for chunk in chunks(batch.lines):
            fold.apply(chunk, at - fold.state.version)
            if fold.state.version >= at:
                return
            if time.thread_time() - began >= WORK_SECONDS:
                yield
                self._rest()
                began = time.thread_time()
        fold.end(batch)

    def _rest(self) -> None:
        if self._is_busy():
            time.sleep(REST * WORK_SECONDS)  # so that intake has the interpreter


def _check(journal: Journal, at: int) -> None:
    if not journal.oldest <= at <= journal.head.version:
        raise VersionGoneError(at, journal.oldest, journal.head.version)


def _before(journal: Journal, at: int) -> list[Checkpoint]:
    """Return the checkpoints up to a version, newest first.

    Raises:
        VersionGoneError: The journal does not hold that version.
    """
    _check(journal, at)
    return [kept for kept in reversed(journal.checkpoints()) if kept.version <= at]
