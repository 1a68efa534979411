"""Recovery: from what a journal holds to the state that it stands for.

The newest checkpoint that is whole, and the batches after it. Whatever does not
fit into the chain ends it with the name of the batch; nothing from there on is
applied. An event that a later version of this package would not take any more
is counted, and changes nothing.

Reading order: `recover`, `Fold`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from actorstore.account import Account
from actorstore.batch import NOBODY, Batch, Count, Farewell, Link, start, unpack, unpack_counts
from actorstore.checkpoint import CheckpointError, restore
from actorstore.errors import JournalDamagedError
from actorstore.event import Event
from actorstore.journal import Checkpoint, Journal
from actorstore.logs import say
from actorstore.state import State
from actorstore.wire import Chunk, chunks, decode

logger = logging.getLogger("actorstore")

UNREADABLE = Event("journal.unreadable")
"""Stands for an event of the journal that cannot be read any more: it counts, and changes nothing."""


class Fold:
    """A state that is made from a journal, batch by batch.

    Args:
        journal: Path of the journal, for what is said.
        state: What it begins with.
        accounts: The accounts of producers there.
        place: Where in the chain that is.
    """

    def __init__(self, journal: str, state: State, accounts: dict[str, Account], place: Link) -> None:
        self.journal = journal
        self.state = state
        self.accounts = accounts
        self.place = place
        self.added_bytes = 0
        """Bytes of lines that were added."""
        self._unknown: deque[int] = deque()  # versions of the events of unknown units in this batch

    def add(self, batch: Batch) -> None:
        """Apply a whole batch.

        Raises:
            JournalDamagedError: It is not what was written there.
        """
        self.check(batch)
        for chunk in chunks(batch.lines):
            self.apply(chunk)
        self.end(batch)

    def check(self, batch: Batch) -> None:
        """Find out whether a batch is what was written there.

        Raises:
            JournalDamagedError: It is not.
        """
        if batch.follows(self.place):
            return
        reason = "its checksum is another one"
        if batch.seq != self.place.seq + 1:
            reason = f"batch {batch.seq} comes next"
        raise self._damage(batch, reason)

    def apply(self, chunk: bytes, most: int | None = None) -> None:
        """Apply lines of a batch that was checked, the first so many of them where that is said."""
        read = decode(chunk, max_line_bytes=len(chunk) + 1)
        events = read.events if not read.rejections else self._with_gaps(read)
        self.state.apply(events if most is None else events[:most])
        if self.state.unknown:
            self._unknown += [version for version, _, _ in self.state.unknown]
            self.state.unknown = []

    def end(self, batch: Batch) -> None:
        """Take note that all of a batch is applied."""
        if self.state.version != batch.version:
            raise self._damage(batch, f"it holds {self.state.version - self.place.version} events")
        try:
            steps = unpack(batch.steps)
        except msgspec.MsgspecError as error:
            raise self._damage(batch, str(error)) from None
        if sum([step.accepted for step in steps if isinstance(step, Count)]) != batch.events:
            self._unknown.clear()  # an older version did not say which events are nobody's
        version = self.place.version
        for step in steps:
            if isinstance(step, Farewell):
                self.accounts.pop(step.producer, None)
                continue
            version += step.accepted
            unknown_units = self._take_unknown(version)
            if step.producer != NOBODY:
                self._add(step, unknown_units)
        self._unknown.clear()
        self.place = batch.end
        self.added_bytes += len(batch.lines)

    def _add(self, step: Count, unknown_units: int) -> None:
        account = self.accounts.get(step.producer) or Account(step.producer)
        self.accounts[step.producer] = Account(
            step.producer,
            account.lines + step.lines,
            account.accepted + step.accepted,
            account.rejected + step.rejected,
            account.unknown_units + unknown_units,
        )

    def _take_unknown(self, version: int) -> int:
        """Count the events of unknown units up to a version, once."""
        before = len(self._unknown)
        while self._unknown and self._unknown[0] <= version:
            self._unknown.popleft()
        return before - len(self._unknown)

    def _with_gaps(self, read: Chunk) -> list[Event]:
        """Return the events of lines, and something in place of those that cannot be read any more."""
        events = list(read.events)
        for rejection in read.rejections:
            events.insert((rejection.line or 1) - 1, UNREADABLE)
        text = "%d events after version %d of the journal %s cannot be read any more, and change nothing: %s"
        version, first = self.state.version, read.rejections[0]
        say(logger.error, text, len(read.rejections), version, self.journal, first.reason)
        return events

    def _damage(self, batch: Batch, reason: str) -> JournalDamagedError:
        seq, version = self.place.seq + 1, self.place.version
        return JournalDamagedError(
            self.journal,
            f"batch {seq}, which begins after version {version}, is not as it was written: {reason}",
        )


def recover(journal: Journal) -> Fold:
    """Return what the journal holds: the state, the accounts of producers, and where it ends.

    Raises:
        JournalDamagedError: It does not hold what was written into it.
    """
    fold = begin(journal, journal.head.version)
    while fold.place.seq < journal.head.seq:
        batches = journal.batches(fold.place.seq)
        if not batches:
            raise JournalDamagedError(journal.path, f"batch {fold.place.seq + 1} is missing")
        for batch in batches:
            fold.add(batch)
    if fold.place != journal.head:
        raise JournalDamagedError(
            journal.path, f"it ends with another batch {journal.head.seq} than was written"
        )
    if fold.state.faults:
        faults, fold.state.faults = fold.state.faults, []
        text = (
            "%d events of the journal %s count, and their effect may be incomplete, as when they came first"
        )
        say(logger.error, text, len(faults), journal.path)
    return fold


def begin(journal: Journal, last: int) -> Fold:
    """Return what to begin with: the newest checkpoint up to a version that is whole, or nothing.

    Raises:
        JournalDamagedError: There is none, and the first batches were cut off.
    """
    for checkpoint in reversed(journal.checkpoints()):
        if checkpoint.version > last:
            continue
        with suppress(JournalDamagedError):
            return at_checkpoint(journal.path, checkpoint, journal.parts(checkpoint))
        say(
            logger.warning,
            "the checkpoint after batch %d of the journal %s is damaged; the one before it is used",
            checkpoint.seq,
            journal.path,
        )
    return at_start(journal)


def at_start(journal: Journal) -> Fold:
    """Return nothing, to begin with.

    Raises:
        JournalDamagedError: The first batches were cut off, so it takes more.
    """
    if journal.first > 1:
        raise JournalDamagedError(
            journal.path,
            f"batches before {journal.first} were cut off, and no checkpoint after them is whole",
        )
    return Fold(journal.path, State(journal.store), {}, start(journal.store))


def at_checkpoint(path: str, checkpoint: Checkpoint, parts: Iterable[bytes]) -> Fold:
    """Return what a checkpoint holds.

    Raises:
        JournalDamagedError: It is not whole.
    """
    left = iter(parts)
    try:
        counts = unpack_counts(next(left))
        state = restore(left)
    except (CheckpointError, StopIteration, msgspec.MsgspecError) as error:
        raise JournalDamagedError(path, f"the checkpoint after batch {checkpoint.seq}: {error}") from None
    accounts = {count.producer: Account(*count) for count in counts}
    return Fold(path, state, accounts, checkpoint.place)
