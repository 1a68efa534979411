"""The journal: batches of accepted lines in a file, and checkpoints of what they made of the state.

The file is a SQLite database in WAL mode, with one connection, which is
exclusive. Each batch is one transaction of one statement; a trigger moves
`head` along with it, so that batches which vanish from the end of their table
are missed too. SQLite's own checksums guard against torn writes; whether a row
is what was written is found by the chain of `actorstore.batch`.

Nothing here knows threads or the state. A journal belongs to the thread that
made it, then to the one that it was handed to.

Only this module and `actorstore.journalfile` know `sqlite3`. Reading order:
`journalfile` with its `SCHEMA`, then `Journal`: opening, batches, checkpoints,
the end.
"""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn

from actorstore.batch import Batch, Link, follow
from actorstore.errors import JournalDamagedError, JournalError, JournalFailedError, JournalInUseError
from actorstore.journalfile import (
    BROKEN,
    NO_ROOM,
    PAGE_BYTES,
    Path,
    check_file,
    check_wal,
    create_file,
    exists,
    name,
    take_lock,
    words,
)

FOLD_BYTES: Final = 16 << 20
"""How much may be written to the WAL before it is copied into the database."""

SECOND: Final = 1.0
"""How old a commit may become before it is on disk, with `Durability.LOSE_A_SECOND`."""


class Durability(StrEnum):
    """What a loss of power may lose; after `kill -9` nothing acked is lost with any of them."""

    LOSE_NOTHING = "lose-nothing"
    """Every ack is on disk."""
    LOSE_A_SECOND = "lose-a-second"
    """What was acked in the last second may be lost."""
    LOSE_UNWRITTEN = "lose-unwritten"
    """What the operating system had not yet written may be lost: on Linux, that of some 30 s."""


class NoRoomError(Exception):
    """Raised when a batch cannot be written now; nothing of it is, and trying again is safe."""


class Checkpoint(NamedTuple):
    """A checkpoint that is in the file."""

    seq: int
    """The batch that it comes after."""
    version: int
    """Version of the store there."""
    chain: int
    """Checksum of the chain there."""
    parts: int
    """How many parts it has."""
    size: int
    """Bytes in them."""
    crc: int
    """Checksum of all of it."""

    @property
    def place(self) -> Link:
        """Where in the chain it stands."""
        return Link(self.seq, self.version, self.chain)


class Journal:
    """A journal file that this process has open, from here until `close`.

    Args:
        path: The file; made where it is not there, for this user alone.
        durability: What a loss of power may lose.
        create: Whether to make the file where it is not there.
        salvage: Whether to take what is there, though more was written.

    Raises:
        JournalInUseError: Another process, or another store of this one, has it open.
        JournalDamagedError: It cannot be read.
        JournalError: It is no journal, a newer one, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        durability: Durability = Durability.LOSE_NOTHING,
        *,
        create: bool = True,
        salvage: bool = False,
    ) -> None:
        self.path = os.path.realpath(os.fspath(path))
        self.durability = durability
        self._is_synced = True
        self._synced_at = time.monotonic()
        self._unfolded = 0  # bytes in the WAL, or about
        self._parts = 0, 0, 0  # of the checkpoint that is being written: how many, bytes, checksum
        self._lock = take_lock(self.path, create)
        try:
            if create and not exists(self.path):
                create_file(self.path)
            check_file(self.path)
            if not salvage:
                check_wal(self.path)
            self._connection = self._connect(salvage)
        except BaseException:
            self._lock.release()
            raise

    def _connect(self, salvage: bool) -> sqlite3.Connection:
        with self._opening():
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the WAL is first looked at
                connection.execute("PRAGMA wal_autocheckpoint = 0")  # its errors would be swallowed
                connection.execute("PRAGMA synchronous = FULL")
                (self.store,) = connection.execute("SELECT store FROM origin").fetchone()
                self.head = Link(*connection.execute("SELECT seq, version, crc FROM head").fetchone())
                last = connection.execute("SELECT max(seq), min(seq) FROM batch").fetchone()
                self._first = last[1] or self.head.seq + 1
                if (last[0] or self.head.seq) != self.head.seq and not salvage:
                    raise JournalDamagedError(
                        self.path, f"it ends with batch {self.head.seq}, and the last one there is {last[0]}"
                    )
                if self.durability is not Durability.LOSE_NOTHING:
                    connection.execute("PRAGMA synchronous = NORMAL")
            except BaseException:
                connection.close()
                raise
        return connection

    # Batches.

    def append(self, events: int, steps: bytes, lines: bytes) -> Link:
        """Write a batch, and return where it ends; after that it survives what `durability` promises.

        Args:
            events: How many events there are.
            steps: What happens to accounts, packed.
            lines: The lines of the events.

        Raises:
            NoRoomError: The disk or the quota is full; nothing was written.
            JournalFailedError: The disk failed. Whether the batch is there is not known.
        """
        batch = follow(self.head, events, steps, lines)
        if not self._is_synced and time.monotonic() - self._synced_at >= SECOND:
            self._sync_from_now_on()
        with self._writing():
            self._connection.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?)", batch)
        self._is_written(len(lines))
        self.head = batch.end
        return self.head

    def sync(self) -> None:
        """Have everything on disk that was written until now.

        Raises:
            NoRoomError: There is no room for it.
            JournalFailedError: The disk failed.
        """
        if not self._is_synced:
            self._sync_from_now_on()
            with self._writing():
                self._connection.execute("UPDATE head SET seq = seq")
            self._is_written(0)

    def sync_is_due_in(self) -> float | None:
        """Return in how many seconds `sync` is due; `None` where it is not."""
        if self._is_synced or self.durability is not Durability.LOSE_A_SECOND:
            return None
        return max(0.0, self._synced_at + SECOND - time.monotonic())

    def _sync_from_now_on(self) -> None:
        if self.durability is Durability.LOSE_A_SECOND:
            self._connection.execute("PRAGMA synchronous = FULL")  # a sync of the WAL holds what came before

    def _is_written(self, size: int) -> None:
        self._unfolded += size + 2 * PAGE_BYTES
        if self.durability is Durability.LOSE_A_SECOND:
            if not self._is_synced and time.monotonic() - self._synced_at >= SECOND:
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._is_synced = True
                return
            if self._is_synced:
                self._is_synced, self._synced_at = False, time.monotonic()

    def fold_is_due(self) -> bool:
        """Whether the WAL has become long."""
        return self._unfolded >= FOLD_BYTES

    def fold(self, *, shrinks: bool = False) -> None:
        """Copy the WAL into the database, so that it begins anew.

        Args:
            shrinks: Whether to give the room of the WAL back, which it otherwise keeps.

        Raises:
            NoRoomError: There is no room for it; the WAL grows on.
            JournalFailedError: The disk failed.
        """
        self._unfolded = 0
        with self._writing():
            mode = "TRUNCATE" if shrinks else "PASSIVE"
            self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()

    @property
    def oldest(self) -> int:
        """The oldest version that can be folded from here."""
        if self._first == 1:
            return 0
        checkpoints = self.checkpoints()
        return checkpoints[0].version if checkpoints else self.head.version

    @property
    def first(self) -> int:
        """Number of the first batch that is there, or would be."""
        return self._first

    def batches(self, after: int, size: int = 1 << 20) -> list[Batch]:
        """Return some batches, as they stand in the file; nobody has looked whether they are whole.

        Args:
            after: Number of the batch before the first one.
            size: Bytes of lines after which there are enough.

        Raises:
            JournalDamagedError: SQLite cannot read them.
        """
        found: list[Batch] = []
        left = size
        with self._reading(after):
            rows = self._connection.execute(
                "SELECT seq, version, events, steps, lines, crc FROM batch WHERE seq > ? ORDER BY seq",
                (after,),
            )
            for row in rows:
                found.append(Batch(*row))
                left -= len(row[4]) if isinstance(row[4], bytes) else 0  # which whoever checks it finds
                if left <= 0:
                    break
            rows.close()
        return found

    # Checkpoints.

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints, oldest first."""
        with self._reading(None):
            rows = self._connection.execute(
                "SELECT seq, version, chain, parts, size, crc FROM checkpoint ORDER BY seq"
            ).fetchall()
        return [Checkpoint(*row) for row in rows]

    def parts(self, checkpoint: Checkpoint) -> Iterator[bytes]:
        """Return the parts of a checkpoint, one after the other, and find out whether they are whole.

        Raises:
            JournalDamagedError: They are not.
        """
        crc = 0
        for number in range(checkpoint.parts):
            with self._reading(checkpoint.seq):
                row = self._connection.execute(
                    "SELECT data FROM part WHERE seq = ? AND number = ?", (checkpoint.seq, number)
                ).fetchone()
            if row is None or not isinstance(row[0], bytes):
                break
            crc = zlib.crc32(row[0], crc)
            if number == checkpoint.parts - 1 and self._seal(checkpoint, crc) != checkpoint.crc:
                break
            yield row[0]
        else:
            return
        raise JournalDamagedError(self.path, f"the checkpoint after batch {checkpoint.seq} is not whole")

    def begin_checkpoint(self, seq: int) -> None:
        """Begin to write a checkpoint after that batch; one that was not finished is removed."""
        with self._writing():
            self._connection.execute("DELETE FROM part WHERE seq NOT IN (SELECT seq FROM checkpoint)")
        self._parts = 0, 0, 0

    def add_part(self, seq: int, data: bytes) -> None:
        """Write the next part of it."""
        number, size, crc = self._parts
        with self._writing():
            self._connection.execute("INSERT INTO part VALUES (?, ?, ?)", (seq, number, data))
        self._parts = number + 1, size + len(data), zlib.crc32(data, crc)
        self._is_written(len(data))

    def end_checkpoint(self, place: Link) -> Checkpoint:
        """Make the parts that were written a checkpoint."""
        parts, size, crc = self._parts
        made = Checkpoint(*place, parts, size, 0)
        made = made._replace(crc=self._seal(made, crc))
        with self._writing():
            self._connection.execute("INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?, ?)", made)
        self._is_written(0)
        return made

    def _seal(self, checkpoint: Checkpoint, crc: int) -> int:
        seq, version, chain, parts, size, _ = checkpoint
        return zlib.crc32(f"{self.store} {seq} {version} {chain} {parts} {size}".encode(), crc)

    # Cutting off.

    def cut(self, before: Checkpoint, batches: int) -> bool:
        """Remove some of the oldest batches that come before a checkpoint; say whether there are more.

        Older checkpoints go first, so that nothing is promised which is not there.
        """
        last = min(before.seq, self._first + batches - 1)
        with self._writing():
            self._connection.execute("BEGIN IMMEDIATE")
            for table in ("checkpoint", "part"):
                self._connection.execute(f"DELETE FROM {table} WHERE seq < ?", (before.seq,))
            self._connection.execute("DELETE FROM batch WHERE seq <= ?", (last,))
            self._connection.execute("COMMIT")
        self._first = last + 1
        return last < before.seq

    def shrink(self) -> None:
        """Give the room that was cut off back to the file system; writes all that is left anew."""
        with self._writing():
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def problems(self) -> list[str]:
        """Return what SQLite finds wrong with the file; reads all of it."""
        with self._reading(None):
            found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def size(self) -> int:
        """Return how many bytes the files have."""
        sizes = 0
        for path in (self.path, self.path + "-wal"):
            with suppress(OSError):
                sizes += os.stat(path).st_size
        return sizes

    # The end.

    def close(self) -> None:
        """Have everything in the database, and let the next one open it; closing again does nothing.

        Raises:
            NoRoomError: There was no room; the WAL stays, and is read when the journal is next opened.
            JournalFailedError: The disk failed.
        """
        try:
            if self.head.seq:
                self.fold()
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Let go of the file as it is."""
        with suppress(sqlite3.Error):
            self._connection.close()
        self._lock.release()

    # What SQLite says.

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if name(error).startswith("SQLITE_BUSY"):
                raise JournalInUseError(self.path) from None
            if isinstance(error, sqlite3.DatabaseError) and name(error) in BROKEN:
                raise JournalDamagedError(self.path, f"SQLite cannot read it ({error})") from None
            raise JournalError(self.path, words(error)) from None
        except (TypeError, ValueError):
            raise JournalDamagedError(self.path, "its first rows are missing") from None

    @contextmanager
    def _reading(self, after: int | None) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, TypeError, ValueError) as error:
            where = "" if after is None else f" after batch {after}"
            raise JournalDamagedError(self.path, f"SQLite cannot read on{where} ({error})") from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            if name(error) in NO_ROOM:
                raise NoRoomError(words(error)) from None
            self._fail(error)

    def _fail(self, error: sqlite3.Error) -> NoReturn:
        raise JournalFailedError(self.path, words(error)) from None
