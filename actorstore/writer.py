"""The writer: a thread that puts entries into the journal, many of them in one transaction.

The actor appends and goes on. While one transaction is brought to disk, entries
gather, and all of them are the next one; so many producers share one sync, and
nobody waits for a disk but those who wait for an ack. Between two transactions
it does what others have to do with the file, in short pieces: it writes parts of
checkpoints, and reads for those who ask for the past.

Where the disk is full it tries again until there is room. Where it fails, or
this thread does, nothing is committed any more, and whoever appends finds out.

Reading order: `Writer` and what it offers to the actor, then its thread, from
`_work` on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Final, NamedTuple, TypeAlias, TypeVar, cast

from actorstore.answers import JournalStats
from actorstore.batch import Count, Link, pack
from actorstore.checkpoint import Frozen, encode
from actorstore.compaction import cut_off, fitting, pack_accounts
from actorstore.errors import (
    JournalDamagedError,
    JournalFailedError,
    JournalFullError,
    StoreClosedError,
    StoreFailedError,
)
from actorstore.journal import Checkpoint, Journal, NoRoomError
from actorstore.keeper import Committed, Entry
from actorstore.logs import say
from actorstore.reply import Receiver, Reply

T = TypeVar("T")

FULL_BYTES: Final = 8 << 20
"""Bytes of lines that may wait for the disk before nothing more is taken in."""

FULL_ENTRIES: Final = 4096
"""Entries that may; an entry is what one caller has handed over, a chunk at most."""

TRANSACTION_BYTES: Final = 4 << 20
"""About how many bytes of lines go into one transaction at most."""

CHECKPOINT_BYTES: Final = 16 << 20
"""After how many bytes of lines there is a checkpoint: recovery folds as many, in a tenth of a second."""

CHECKPOINT_SHARE: Final = 10
"""How many times the bytes of a checkpoint lie between it and the next: at most a tenth of the file."""

FIRST_WAIT: Final = 0.05
"""Seconds until a write that found no room is tried again; each further try waits twice as long."""

LAST_WAIT: Final = 0.5
"""Seconds between tries, at most."""

logger = logging.getLogger("actorstore")


class Task(NamedTuple):
    """Something that others have to do with the journal, in its thread, between two transactions."""

    do: Callable[[Journal], object]
    receiver: Receiver


class _Snap(NamedTuple):
    """A state to be kept."""

    place: Link
    frozen: Frozen
    accounts: list[Count]


class _End(NamedTuple):
    """The last message: all that came before it is to be written still, or not."""

    in_order: bool


Message: TypeAlias = Entry | Task | _Snap | _End


class Writer:
    """Writes entries to a journal, from the moment it is made until `finish` or `abandon`.

    Args:
        journal: Owned by the writer from here on.
        tail_bytes: Bytes of lines after its last checkpoint.
        checkpoint_bytes: After how many bytes of lines there is a checkpoint.
    """

    def __init__(
        self, journal: Journal, tail_bytes: int = 0, checkpoint_bytes: int = CHECKPOINT_BYTES
    ) -> None:
        self.path = journal.path
        self.durability = journal.durability
        self.committed = Committed(0, journal.head)
        self.trouble: str | None = None
        self.failure: StoreFailedError | None = None
        self._journal = journal
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._wake: Callable[[], None] = _nobody
        self._appended = self._written = 0  # entries
        self._appended_bytes = self._written_bytes = 0  # of lines
        self._batches = 0
        self._oldest = journal.oldest
        self._checkpoint_bytes = checkpoint_bytes
        self._kept_at = -tail_bytes  # bytes written when the last checkpoint was
        self._kept_bytes = sum([checkpoint.size for checkpoint in journal.checkpoints()[-1:]])
        self._keeps = False  # whether one is being written
        self._parts: Iterator[None] | None = None
        self._tasks: deque[Task] = deque()
        self._held: list[Entry] = []  # what came in while there was no room
        self._end: _End | None = None
        self._thread = threading.Thread(target=self._run, name="StoreJournal", daemon=True)
        self._thread.start()

    # For the actor, as its keeper.

    def attach(self, wake: Callable[[], None]) -> None:
        """Say how to wake the actor."""
        self._wake = wake

    def append(self, entry: Entry) -> None:
        """Have an entry written; does not wait."""
        self._appended += 1
        self._appended_bytes += len(entry.data)
        self._messages.put(entry)

    def is_full(self) -> bool:
        """Whether so much waits for the disk that nothing more ought to be taken in."""
        return (
            self._appended_bytes - self._written_bytes >= FULL_BYTES
            or self._appended - self._written >= FULL_ENTRIES
        )

    def wants_checkpoint(self) -> bool:
        """Whether there were many events since the last checkpoint."""
        since = self._written_bytes - self._kept_at
        least = max(self._checkpoint_bytes, CHECKPOINT_SHARE * self._kept_bytes)
        return since >= least and not self._keeps

    def checkpoint(self, place: Link, frozen: Frozen, accounts: list[Count]) -> None:
        """Have a state kept, in parts between the next transactions."""
        self._keeps = True
        self._kept_at = self._written_bytes
        self._messages.put(_Snap(place, frozen, accounts))

    def stats(self) -> JournalStats:
        """Return how the journal is doing."""
        size = self._journal.size()
        return JournalStats(self.path, str(self.durability), self._oldest, self._batches, size, self.trouble)

    def finish(self) -> None:
        """Wait until all that was appended is written, and the file is closed."""
        self._messages.put(_End(in_order=True))
        self._thread.join()

    def abandon(self) -> None:
        """Close the file soon, whatever is written."""
        self._end = _End(in_order=False)
        self._messages.put(self._end)

    # For those who read the past, or cut it off.

    def ask(self, do: Callable[[Journal], T]) -> T:
        """Do something short with the journal, between two transactions, and return what comes of it.

        Raises:
            StoreClosedError: It is closed.
        """
        reply = Reply()
        self._messages.put(Task(do, reply))
        while not reply.wait(0.5):
            if not self._thread.is_alive() and not reply.wait(0):
                raise (self.failure or StoreClosedError())
        return cast(T, reply.result())

    def compact(self, keep: int) -> int:
        """Cut off what lies before the newest checkpoint that leaves so many versions.

        Others go on meanwhile: it is done in short pieces.

        Returns:
            The oldest version that is left.

        Raises:
            StoreClosedError: It is closed.
            JournalFullError: There is no room to write down what is cut off.
        """
        before = next(filter(self._is_whole, self.ask(lambda journal: fitting(journal, keep))), None)
        try:
            if before is not None:
                while self.ask(partial(_cut_off, before=before)):
                    pass
        except NoRoomError as error:
            raise JournalFullError(self.path, str(error)) from None
        finally:
            self._oldest = self.ask(lambda journal: journal.oldest)
        return self._oldest

    def _is_whole(self, checkpoint: Checkpoint) -> bool:
        """Whether the state can be had from a checkpoint."""
        try:
            parts = self.ask(partial(Journal.parts, checkpoint=checkpoint))
            while self.ask(lambda _: next(parts, None)) is not None:
                pass
        except JournalDamagedError as error:
            say(logger.warning, "%s", error)
            return False
        return True

    # The thread.

    def _run(self) -> None:
        try:
            self._work()
        except JournalFailedError as error:
            self._fail(error)
        except BaseException as error:
            say(logger.exception, "the journal %s is closed over a bug in actorstore", self.path)
            self._fail(JournalFailedError(self.path, f"{type(error).__name__}: {error}"))
        finally:
            self._leave()

    def _work(self) -> None:
        while self._end is None:
            entries = self._gather(self._idle_seconds())
            while entries and self._end_allows():
                self._commit(entries)
                entries, self._held = self._held, []
            self._do_between()

    def _end_allows(self) -> bool:
        return self._end is None or self._end.in_order

    def _idle_seconds(self) -> float | None:
        """Return how long to wait for messages."""
        if self._parts is not None or self._tasks:
            return 0.0
        return self._journal.sync_is_due_in()

    def _gather(self, seconds: float | None, most: int = TRANSACTION_BYTES) -> list[Entry]:
        """Take what has come in, about so many bytes of lines at most; wait so long for the first of it."""
        entries, self._held = self._held, []
        size = sum([len(entry.data) for entry in entries])
        wait = self._end is None and not entries and seconds != 0
        with suppress(queue.Empty):
            while size < most and not (self._end and self._end.in_order):
                message = self._messages.get(timeout=seconds) if wait else self._messages.get_nowait()
                wait = False
                match message:
                    case Entry():
                        entries.append(message)
                        size += len(message.data)
                    case Task():
                        self._tasks.append(message)
                    case _Snap():
                        self._parts = self._kept(message)
                    case _End():
                        self._end = message
        return entries

    def _commit(self, entries: list[Entry]) -> None:
        """Write entries as one batch, however long there is no room for it."""
        events = sum([len(entry.events) for entry in entries])
        steps = pack(chain.from_iterable([entry.steps() for entry in entries]))
        lines = b"".join([entry.data for entry in entries])
        if events or steps:
            self._with_room(lambda: self._journal.append(events, steps, lines))
            self._batches += 1
        self._written_bytes += len(lines)
        self._written += len(entries)
        self.committed = Committed(self._written, self._journal.head)
        self._wake()

    def _with_room(self, write: Callable[[], object]) -> None:
        wait = FIRST_WAIT
        began = time.monotonic()
        while True:
            try:
                try:
                    write()
                except NoRoomError:
                    self._journal.fold(shrinks=True)  # the WAL has many copies of a page
                    write()
                break
            except NoRoomError as error:
                if self.trouble is None:
                    text = "the journal %s cannot be written: %s; nothing is acked until it can"
                    say(logger.warning, text, self.path, error)
                    self.trouble = str(error)
                    self._wake()
            until = time.monotonic() + wait
            while (left := until - time.monotonic()) > 0:
                if not self._wait_without_room(left):
                    raise JournalFailedError(self.path, f"closed while there was trouble: {self.trouble}")
            wait = min(2 * wait, LAST_WAIT)
        if self.trouble is not None:
            self.trouble = None
            say(
                logger.warning,
                "the journal %s is written again, after %.1f s",
                self.path,
                time.monotonic() - began,
            )

    def _wait_without_room(self, seconds: float) -> bool:
        """Do what others ask for meanwhile; `False` where nobody waits for the entries any more."""
        self._held = self._gather(0.0, most=2 * FULL_BYTES)  # all there is: a task may be the last of it
        self._do_tasks()
        time.sleep(min(seconds, FIRST_WAIT))  # nothing tells when there is room
        return self._end_allows()

    def _do_between(self) -> None:
        """Do some of what is to be done between two transactions."""
        self._do_tasks()
        if self._parts is not None:
            try:
                next(self._parts)
            except StopIteration:
                self._parts = None
            except NoRoomError:
                self._parts, self._keeps = None, False  # there will be another one
        if self._journal.sync_is_due_in() == 0.0:
            self._with_room(self._journal.sync)
        if self._journal.fold_is_due():
            with suppress(NoRoomError):
                self._journal.fold()

    def _do_tasks(self) -> None:
        for _ in range(len(self._tasks)):
            task = self._tasks.popleft()
            try:
                task.receiver.set(task.do(self._journal))
            except JournalFailedError as error:
                task.receiver.fail(error)
                raise
            except Exception as error:
                task.receiver.fail(error)

    def _kept(self, snap: _Snap) -> Iterator[None]:
        """Write a checkpoint, one part after the other."""
        seq = snap.place.seq
        self._journal.begin_checkpoint(seq)
        self._journal.add_part(seq, pack_accounts(snap.accounts))
        for part in encode(snap.frozen):
            yield
            self._journal.add_part(seq, part)
        made = self._journal.end_checkpoint(snap.place)
        self._kept_bytes = made.size
        self._keeps = False

    def _fail(self, error: JournalFailedError) -> None:
        if self._end_allows():
            say(logger.critical, "%s", error)
        self.failure = error

    def _leave(self) -> None:
        """Close the file, and let everybody go."""
        if self.failure is None and self._end_allows():
            try:
                self._journal.close()
            except (NoRoomError, JournalFailedError) as error:
                say(logger.warning, "the journal %s was left as it is: %s", self.path, error)
        self._journal.let_go()
        with suppress(queue.Empty):
            while True:
                message = self._messages.get_nowait()
                if isinstance(message, Task):
                    self._tasks.append(message)
        for task in self._tasks:
            task.receiver.fail(self.failure or StoreClosedError())
        self._wake()


def _cut_off(journal: Journal, before: Checkpoint) -> bool:
    """Cut off some batches; where there is no room for that, in a WAL that begins anew."""
    try:
        return cut_off(journal, before)
    except NoRoomError:
        journal.fold(shrinks=True)
        return cut_off(journal, before)


def _nobody() -> None:
    """Wake nobody: there is no actor yet."""
