"""A spool: what a producer has handed over and no store has acked, in a file, for whoever comes after it.

A line is in the file before its caller goes on, so a producer that is killed
loses nothing: the next one that opens the file has its id, and sends what is
left. The file is written to the operating system and not synced: a loss of
power may take its end.

A header of fixed size, then lines as they are sent. The header says whose they
are, and how many lines of that producer come before the first one at `offset`,
as the store counts them that was last talked to. It is written anew in place,
in one call, which a kill does not cut in two.

Reading order: `Spool`: opening, what producers add, what is let go, the end.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from typing import Final

import msgspec

from actorstore.errors import SpoolError, SpoolInUseError
from actorstore.ledger import Standing
from actorstore.lockfile import LockedError, LockFile
from actorstore.protocol import Sendable, count_blank

FORMAT: Final = 1
"""Version of the file's format; others are refused."""

HEADER_BYTES: Final = 512
"""Room for the header, which ends in LF."""

REWRITE_BYTES: Final = 16 << 20
"""How many bytes of lines that are acked may lie before the others until the file is written anew."""


class Header(msgspec.Struct):
    """The first line of the file."""

    spool: int
    """Version of the format."""
    producer: str
    """Id of the producer."""
    offset: int = HEADER_BYTES
    """Where the first line begins that is not acked."""
    standing: Standing = Standing()
    """What the store says of the lines before that."""


class Spool:
    """A spool that this process has open, from here until `close`.

    Args:
        path: The file; made where it is not there, for this user alone.

    Raises:
        SpoolInUseError: Another producer has it open.
        SpoolError: It is no spool, or there can be none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(os.fspath(path))
        self.lock = threading.Lock()
        """Held while something is added, and handed over."""
        try:
            self._lock_file = LockFile(self.path + ".lock")
        except LockedError as error:
            raise SpoolInUseError(self.path, error.owner) from None
        except OSError as error:
            raise SpoolError(self.path, error.strerror or str(error)) from None
        try:
            self._open()
        except OSError as error:
            self._lock_file.release()
            if isinstance(error, SpoolError):
                raise
            raise SpoolError(self.path, error.strerror or str(error)) from None
        except BaseException:
            self._lock_file.release()
            raise

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o600)
        try:
            size = os.fstat(self._file).st_size
            self._header = self._read_header(size)
            self._end = size
            lines = _read(self._file, self._header.offset, size) if size > self._header.offset else b""
            lines = lines[: lines.rfind(b"\n") + 1]  # half a line was never handed over
            self._end = self._header.offset + len(lines)
            self._is_dirty = True  # whether something may lie behind the end
        except BaseException:
            os.close(self._file)
            raise
        count = lines.count(b"\n")
        self.left = Sendable(lines, count, count_blank(lines)) if lines else None
        """What the producer before has left, to be handed over first."""
        self._parcels: deque[tuple[int, int]] = deque([(count, len(lines))] if lines else [])
        self._added: deque[Sendable] = deque()  # not yet taken
        self._let_go = 0  # lines of the first parcel's predecessors, as `let_go` counts them

    def _read_header(self, size: int) -> Header:
        if size == 0:
            header = Header(FORMAT, os.urandom(8).hex())
            self._header = header
            self._write_header()
            return header
        try:
            header = msgspec.json.decode(_read(self._file, 0, min(size, HEADER_BYTES)), type=Header)
        except msgspec.MsgspecError:
            raise SpoolError(self.path, "it is no spool, and was left as it is; name another file") from None
        if header.spool != FORMAT:
            raise SpoolError(
                self.path,
                f"it has format {header.spool}, and this actorstore knows {FORMAT}; it was left as it is. "
                "Open it with the version that wrote it",
            )
        return header

    @property
    def producer(self) -> str:
        """Id of the producer."""
        return self._header.producer

    @property
    def standing(self) -> Standing:
        """What the store says of the lines before those that are left."""
        return self._header.standing

    # What producers add; with the lock held.

    def add(self, lines: Sendable) -> None:
        """Write lines; when this returns, they outlive this process.

        Raises:
            SpoolError: They cannot be written; nothing of them is kept.
        """
        try:
            if self._is_dirty:
                os.ftruncate(self._file, self._end)
            self._is_dirty = True
            _write(self._file, lines.data, self._end)
        except OSError as error:
            raise SpoolError(self.path, f"{error.strerror}; the event is not handed over") from None
        self._parcels.append((lines.lines, len(lines.data)))
        self._added.append(lines)
        self._end += len(lines.data)
        self._is_dirty = False

    def withdraw(self, lines: Sendable) -> None:
        """Take back what was added last, unless it is taken."""
        if self._added and self._added[-1] is lines:
            self._added.pop()
            _, size = self._parcels.pop()
            self._end -= size
            self._is_dirty = True

    def take(self) -> list[Sendable]:
        """Return what was added since the last time."""
        if not self._added:
            return []
        with self.lock:
            taken = list(self._added)
            self._added.clear()
        return taken

    def waiting(self) -> int:
        """Count the lines that were added and not taken."""
        return sum([lines.lines for lines in self._added.copy()])

    # What is let go.

    def note(self, acked: int, standing: Standing) -> None:
        """Take note of how the store counts.

        Args:
            acked: How many lines were acked since this was opened.
            standing: What the store says of them, and of those before.
        """
        with self.lock:
            first = self._header.offset
            while self._parcels and self._let_go + self._parcels[0][0] <= acked:
                lines, size = self._parcels.popleft()
                self._let_go += lines
                first += size
            late = acked - self._let_go  # of a parcel that is not acked as a whole
            standing = standing._replace(lines=standing.lines - late)
            if (first, standing) == (self._header.offset, self._header.standing):
                return
            with suppress(OSError):  # what is said twice to the store counts once
                self._keep_from(first, standing)

    def _keep_from(self, first: int, standing: Standing) -> None:
        self._header.standing = standing
        if not self._parcels:
            os.ftruncate(self._file, HEADER_BYTES)  # first, or lines would stand there with other numbers
            self._end = first = HEADER_BYTES
        self._header.offset = first
        if first - HEADER_BYTES > REWRITE_BYTES:
            self._rewrite()
        else:
            self._write_header()

    def _rewrite(self) -> None:
        """Write the lines that are left to a new file, and put it in the place of this one."""
        lines = _read(self._file, self._header.offset, self._end)
        self._header.offset = HEADER_BYTES
        made = self.path + ".new"
        with suppress(FileNotFoundError):
            os.unlink(made)
        descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        _write(descriptor, self._packed() + lines, 0)
        os.rename(made, self.path)
        before, self._file = self._file, descriptor
        os.close(before)
        self._end = HEADER_BYTES + len(lines)
        self._is_dirty = False

    def _write_header(self) -> None:
        _write(self._file, self._packed(), 0)

    def _packed(self) -> bytes:
        return msgspec.json.encode(self._header).ljust(HEADER_BYTES - 1) + b"\n"

    # The end.

    def close(self, *, is_done: bool) -> None:
        """Let go of the file; it is removed where all is done, and is there for the next one where not."""
        if is_done:
            with suppress(OSError):
                os.unlink(self.path)
        os.close(self._file)
        self._lock_file.release()

    def leave_behind(self) -> None:
        """In a forked child: let go of what is the parent's."""
        os.close(self._file)


def _read(file: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := os.pread(file, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _write(file: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, start)
        view = view[written:]
        start += written
