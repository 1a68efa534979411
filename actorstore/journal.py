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
from contextlib import ExitStack, closing, contextmanager, suppress
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn

from actorstore.batch import Batch, Link, follow
from actorstore.errors import JournalDamagedError, JournalError, JournalFailedError, JournalInUseError
from actorstore.filewatch import FileWatch
from actorstore.inspection import check_database, check_header, check_kind, check_wal, settle
from actorstore.journalfile import (
    BROKEN,
    NO_ROOM,
    PAGE_BYTES,
    Path,
    change,
    check_file,
    check_schema,
    create_file,
    exists,
    lack_of_room,
    name,
    reason,
    take_lock,
    words,
)
from actorstore.markfile import Mark, Marker
from actorstore.walfile import Wal

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
        self._syncs = False  # whether the next transaction is synced, though not each of them is
        self._is_synced = True
        self._synced_at = time.monotonic()
        self._unfolded = 0  # bytes in the WAL, or about
        self._parts = 0, 0, 0  # of the checkpoint that is being written: how many, bytes, checksum
        self._lack: str | None = None  # what was full when the last write failed
        self._is_ours = True  # whether the files at the path are those that are open
        check_kind(self.path)
        self._lock = take_lock(self.path, create)
        self._marker = Marker(self._lock)
        with ExitStack() as undo:
            undo.callback(lambda: self._lock.release(keep=self._marker.mark is not None))
            found = self._look_at_files(create, salvage)
            self._connection = undo.enter_context(closing(self._connect(salvage)))
            settle(self.path, found)  # only now that nobody else can have it open
            try:
                self._watch = FileWatch(self.path, self.path + "-wal")
            except OSError as error:
                raise JournalError(self.path, reason(error)) from None
            self._synced = self.head.seq  # `settle`, or the one that had it open before, has seen to that
            self._is_marked = salvage or self._begin_marks()
            undo.pop_all()

    def _look_at_files(self, create: bool, salvage: bool) -> Wal:
        if create and not exists(self.path):
            check_database(self.path)
            create_file(self.path)
        check_file(self.path)
        if salvage:
            return Wal()
        check_header(self.path)
        syncs = self.durability is Durability.LOSE_NOTHING
        return check_wal(self.path, syncs, self._marker.mark)

    def _connect(self, salvage: bool) -> sqlite3.Connection:
        with self._opening():
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the WAL is first looked at
                connection.execute("PRAGMA wal_autocheckpoint = 0")  # its errors would be swallowed
                connection.execute("PRAGMA synchronous = FULL")
                if not salvage:
                    check_schema(self.path, connection)
                (self.store,) = connection.execute("SELECT store FROM origin").fetchone()
                self.head = Link(*connection.execute("SELECT seq, version, crc FROM head").fetchone())
                last = connection.execute("SELECT max(seq), min(seq) FROM batch").fetchone()
                if not isinstance(self.store, str) or min(map(_number, self.head)) < 0:
                    raise TypeError("a column has another type")
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
        if not self._is_marked:
            self._is_marked = self._begin_marks(needs=True)
        if not self._is_synced and time.monotonic() - self._synced_at >= SECOND:
            self._sync_from_now_on()
        with self._writing():
            self._connection.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?)", batch)
        self._lack = None
        self._check_files()
        self.head = batch.end
        self._is_written(len(lines))
        self._marker.put(self._synced, self.head.seq, self.head.version)
        return self.head

    def sync(self) -> None:
        """Have everything on disk that was written until now.

        Raises:
            NoRoomError: There is no room for it.
            JournalFailedError: The disk failed.
        """
        if not self._is_synced:
            self._sync_from_now_on()
            with self._writing():  # SQLite writes, and syncs, nothing over a row that stays as it is
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute("UPDATE head SET seq = seq + 1")
                self._connection.execute("UPDATE head SET seq = seq - 1")
                self._connection.execute("COMMIT")
            self._check_files()
            self._is_written(0)
            self._marker.put(self._synced, self.head.seq, self.head.version)

    def sync_is_due_in(self) -> float | None:
        """Return in how many seconds `sync` is due; `None` where it is not."""
        if self._is_synced or self.durability is not Durability.LOSE_A_SECOND:
            return None
        return max(0.0, self._synced_at + SECOND - time.monotonic())

    def _sync_from_now_on(self) -> None:
        if self.durability is Durability.LOSE_A_SECOND:
            self._connection.execute("PRAGMA synchronous = FULL")  # a sync of the WAL holds what came before
            self._syncs = True

    def _is_written(self, size: int) -> None:
        self._unfolded += size + 2 * PAGE_BYTES
        if self.durability is Durability.LOSE_NOTHING:
            self._synced = self.head.seq
        if self.durability is Durability.LOSE_A_SECOND:
            if self._syncs:
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._syncs, self._is_synced = False, True
                self._synced = self.head.seq
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
            busy, frames, folded = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if not busy and frames == folded:
            self._synced = self.head.seq
        self._marker.look_at(*change(self.path))
        self._marker.put(self._synced, self.head.seq, self.head.version)

    @property
    def oldest(self) -> int:
        """The oldest version that can be folded from here."""
        if self._first == 1:
            return 0
        versions = [checkpoint.version for checkpoint in self.checkpoints() if checkpoint.version >= 0]
        return versions[0] if versions else self.head.version

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
            with closing(rows):  # one that is left open, for a row that cannot be read, would lock the table
                try:
                    for row in rows:
                        found.append(Batch(*row))
                        # another type is found by whoever checks it
                        left -= len(row[4]) if isinstance(row[4], bytes) else 0
                        if left <= 0:
                            break
                except sqlite3.Error:
                    if not found:  # those before it are whole; whoever asks for the next one learns of it
                        raise
        return found

    # Checkpoints.

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints, oldest first; a number that is none is -1, which no seal fits."""
        with self._reading(None):
            rows = self._connection.execute(
                "SELECT seq, version, chain, parts, size, crc FROM checkpoint ORDER BY seq"
            ).fetchall()
        return [Checkpoint(*[_number(value) for value in row]) for row in rows]

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
            JournalFailedError: The disk failed, or the file is no longer there.
        """
        try:
            if self.head.seq and self._lock.descriptor >= 0:
                self._check_files()
                self.fold()
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Let go of the file as it is; the mark stays for as long as the WAL does."""
        with suppress(sqlite3.Error):
            self._connection.close()
        self._watch.close()
        self._lock.release(keep=not self._is_ours or exists(self.path + "-wal"))

    # What the next start has to know, and whether it will find what was written.

    def _begin_marks(self, *, needs: bool = False) -> bool:
        """Write the first mark, and say whether there may be batches after it.

        Raises:
            NoRoomError: It is needed, and there is no room for it.
            JournalFailedError: It is needed, and the disk failed.
        """
        syncs = self.durability is Durability.LOSE_NOTHING
        mark = Mark(self.store, syncs, self._synced, self.head.seq, self.head.version, *change(self.path))
        try:
            self._marker.begin(mark)
        except OSError as error:
            if syncs:
                return True  # without one each batch is taken to be synced, as it is
            if needs and error.errno in NO_ROOM:
                raise NoRoomError(reason(error)) from None
            if needs:
                raise JournalFailedError(self.path, reason(error)) from None
            return False
        return True

    def _check_files(self) -> None:
        """Find out whether what was written will be found again.

        Raises:
            JournalFailedError: The journal or its WAL was removed, moved or replaced.
        """
        if not self._watch.is_intact():
            self._is_ours = False
            raise JournalFailedError(
                self.path, "the file or its WAL was removed, moved or replaced while the store had it open"
            )

    # What SQLite says.

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if name(error).startswith("SQLITE_BUSY"):
                raise JournalInUseError(self.path) from None
            if isinstance(error, sqlite3.DatabaseError) and (name(error) in BROKEN or not name(error)):
                raise JournalDamagedError(self.path, f"SQLite cannot read it ({error})") from None
            raise JournalError(self.path, words(error)) from None
        except (TypeError, ValueError):
            raise JournalDamagedError(self.path, "its first rows are missing, or altered") from None

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
            lack = lack_of_room(error, self.path, self._lock.descriptor)
            tried, self._lack = self._lack, lack
            if lack or (
                tried and name(error) == "SQLITE_IOERR_WRITE"
            ):  # there may be room since it was tried
                raise NoRoomError(lack or tried) from None
            self._fail(error)

    def _fail(self, error: sqlite3.Error) -> NoReturn:
        raise JournalFailedError(self.path, words(error)) from None


def _number(value: object) -> int:
    return value if type(value) is int else -1
