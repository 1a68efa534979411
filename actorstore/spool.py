"""A spool: what a producer has handed over and no store has acked, in a file, for the producer after it.

A line is in the file before its caller goes on, so a producer that is killed
loses nothing: the next one that opens the file has its id, and sends what is
left. The file is written to the operating system and not synced: a loss of
power may take its end.

`actorstore.spoolfile` has the format. Positions are counted here as if nothing
were ever cut off, so that they stay the same while the file is written anew.

Reading order: `Spool`: opening, what producers add, what is let go, the end.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from actorstore.errors import SpoolError, SpoolInUseError
from actorstore.ledger import Standing
from actorstore.lockfile import LockedError, LockFile
from actorstore.protocol import Sendable, sendable
from actorstore.spoolfile import LINES_AT, SpoolFile, reason
from actorstore.wire import chunks

REWRITE_BYTES: Final = 16 << 20
"""How many bytes of lines that are acked may lie before others until the file is written anew: four
times as many as are kept by default, so that a byte is copied once for every four that are added."""

LOOK_SECONDS: Final = 1.0
"""How long lines are added until this looks again whether its file is still there."""


class Parcel(NamedTuple):
    """Lines that were added together."""

    lines: Sequence[Sendable]
    """The lines."""
    end: int
    """Where they end, in bytes."""


class Spool:
    """A spool that this process has open, from here until `close`.

    Args:
        path: The file; made where it is not there, for this user alone. A symbolic
            link is followed where it is this user's.

    Raises:
        SpoolInUseError: Another producer has it open.
        SpoolError: It is no spool, or another user's, or there can be none; what
            is there is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _followed(os.path.abspath(os.fspath(path)))
        self.lock = threading.Lock()
        """Held while something is added, and handed over."""
        try:
            self._lock_file = LockFile(self.path + ".lock")
        except LockedError as error:
            raise SpoolInUseError(self.path, error.owner) from None
        except OSError as error:
            raise SpoolError(self.path, reason(error)) from None
        try:
            self._open()
        except OSError as error:
            self._lock_file.release()
            if isinstance(error, SpoolError):
                raise
            raise SpoolError(self.path, reason(error)) from None
        except BaseException:
            self._lock_file.release()
            raise

    def _open(self) -> None:
        file = self._file = SpoolFile(self.path)
        try:
            self.producer = file.header.producer
            """Id of the producer."""
            self.standing = file.header.standing
            """What the store says of the lines before those that are left."""
            self.left = [sendable(chunk) for chunk in chunks(file.lines)]
            """What the producer before has left, to be handed over first."""
            file.lines = b""
        except BaseException:
            file.close()
            raise
        self._first = file.first  # where the first line begins that is not acked
        self._taken: deque[tuple[int, int]] = deque()  # lines of parcels, and where they end
        self._taken_end = self._first  # where the last line ends that is in the ledger
        self._note_taken(self.left)
        self._added: deque[Parcel] = deque()  # not yet taken
        self._is_dirty = file.size > self._taken_end  # whether something may lie behind the end
        self._let_go = 0  # lines of parcels that were in `_taken`
        self._look_at = time.monotonic() + LOOK_SECONDS

    # What producers add; with the lock held.

    def add(self, lines: Sequence[Sendable]) -> None:
        """Write lines; when this returns, they outlive this process.

        Interrupted anywhere, it has added them as a whole or not at all.

        Raises:
            SpoolError: They cannot be written; nothing of them is kept.
        """
        self._file.settle()
        self._look()
        end = self._end()
        data = lines[0].data if len(lines) == 1 else b"".join([part.data for part in lines])
        try:
            if self._is_dirty:
                self._cut_to(end)
            self._is_dirty = True
            self._file.append(data, end - self._file.moved)
        except OSError as error:
            with suppress(OSError):
                self._cut_to(end)  # or the next producer would send those of them that are whole
            raise self._not_handed_over(error.strerror or str(error)) from None
        self._added.append(Parcel(lines, end + len(data)))
        self._is_dirty = False

    def withdraw(self, lines: Sequence[Sendable]) -> None:
        """Take back what was added last, unless it is taken."""
        if self._added and self._added[-1].lines is lines:
            self._file.settle()
            self._is_dirty = True
            self._added.pop()
            with suppress(OSError):
                self._cut_to(self._end())

    def take(self) -> list[Sendable]:
        """Return what was added since the last time."""
        if not self._added:
            return []
        with self.lock:
            taken = [lines for parcel in self._added for lines in parcel.lines]
            self._note_taken(taken)
            self._added.clear()
        return taken

    def waiting(self) -> int:
        """Count the lines that were added and not taken."""
        return sum([lines.lines for parcel in self._added.copy() for lines in parcel.lines])

    def _note_taken(self, taken: Sequence[Sendable]) -> None:
        for lines in taken:
            self._taken_end += len(lines.data)
            self._taken.append((lines.lines, self._taken_end))

    def _end(self) -> int:
        return self._added[-1].end if self._added else self._taken_end

    def _cut_to(self, end: int) -> None:
        self._file.cut_to(end - self._file.moved)
        self._is_dirty = False

    def _look(self) -> None:
        """Look now and then whether the next producer would find what is added here.

        A file that was deleted is written anew, as is a lock. One that was moved away is
        not: it may be opened elsewhere, and then its lines would be sent twice.

        Raises:
            SpoolError: It would not.
        """
        now = time.monotonic()
        if now < self._look_at:
            return
        try:
            self._lock_file.renew()
            if not self._file.is_there():
                if not self._file.is_deleted():
                    raise self._not_handed_over("it was moved away, or replaced; put it back")
                self._rewrite()
        except LockedError as error:
            raise SpoolInUseError(self.path, error.owner) from None
        except OSError as error:
            if isinstance(error, SpoolError):
                raise
            raise self._not_handed_over(
                f"it was deleted, and cannot be made again: {reason(error)}"
            ) from None
        self._look_at = now + LOOK_SECONDS

    def _not_handed_over(self, why: str) -> SpoolError:
        return SpoolError(self.path, f"{why}; nothing of this call is handed over")

    # What is let go.

    def note(self, acked: int, standing: Standing) -> None:
        """Take note of how the store counts.

        Args:
            acked: How many lines were acked since this was opened.
            standing: What the store says of them, and of those before.

        Raises:
            SpoolError: That another store counts them cannot be written; nothing
                may be sent to it before.
        """
        with self.lock:
            self._file.settle()
            while self._taken and self._let_go + self._taken[0][0] <= acked:
                lines, self._first = self._taken.popleft()
                self._let_go += lines
            late = acked - self._let_go  # of a parcel that is not acked as a whole
            counted = standing._replace(lines=standing.lines - late)
            try:
                self._file.let_go(self._first - self._file.moved, counted)
                self._shorten()
            except OSError as error:  # what is said twice to one store counts once
                if self._file.header.standing.store != standing.store:
                    raise SpoolError(self.path, f"{error.strerror}; nothing is sent meanwhile") from None

    def _shorten(self) -> None:
        """Leave out the lines that are acked, where that costs little or they are many."""
        acked = self._file.first - LINES_AT
        if acked and self._first == self._end():
            self._file.clear()
            self._is_dirty = False
        elif acked > REWRITE_BYTES:
            self._rewrite()

    def _rewrite(self) -> None:
        self._file.rewrite(self._end() - self._file.moved)
        self._is_dirty = False

    # The end.

    def keep(self) -> None:
        """Have what is not acked at its place for the next producer, also where that was deleted just now."""
        with self.lock, suppress(SpoolError):
            if not self._file.is_closed:
                self._file.settle()
                self._look_at = 0.0
                self._look()

    def close(self, *, is_done: bool) -> None:
        """Let go of the file; it is removed where all is done, and is there for the next one where not.

        Closing again does nothing.
        """
        with self.lock:  # so that no caller writes to what has the number of this file next
            if self._file.is_closed:
                return
            self._file.settle()
            if is_done:
                self._file.remove()
            self._file.close()
            self._lock_file.release()

    def leave_behind(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self._file.close()


def _followed(path: str) -> str:
    """Return what a symbolic link of this user's leads to; those of others are not followed."""
    with suppress(OSError):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid():
            return os.path.realpath(path)
    return path
