"""The journal: batches of accepted lines in a file, and checkpoints of what they made of the state.

The file is a SQLite database in WAL mode, with one connection, which is
exclusive. Each batch is one transaction of one statement; a trigger moves
`head` along with it, so that batches which vanish from the end of their table
are missed too. SQLite's own checksums guard against torn writes; whether a row
is what was written is found by the chain of `actorstore.batch`.

Nothing here knows threads or the state. A journal belongs to the thread that
made it, then to the one that it was handed to.

Only this module knows `sqlite3`. Reading order: `Journal`: opening, batches,
checkpoints, the end; then `SCHEMA`.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn, TypeAlias

from actorstore.batch import Batch, Link, follow, start
from actorstore.errors import JournalDamagedError, JournalError, JournalFailedError, JournalInUseError
from actorstore.lockfile import LockedError, LockFile
from actorstore.logs import say
from actorstore.walfile import inspect

Path: TypeAlias = str | os.PathLike[str]
"""Path of a file."""

FORMAT: Final = 1
"""Version of the file's format; a file with a higher one is refused."""

APPLICATION: Final = 0x41435453
"""Marks the file as ours, in its header: "ACTS"."""

PAGE_BYTES: Final = 16384
"""Size of a page: intake is an eighth faster than with 8 KiB, and no slower than with 32."""

FOLD_BYTES: Final = 16 << 20
"""How much may be written to the WAL before it is copied into the database."""

SECOND: Final = 1.0
"""How old a commit may become before it is on disk, with `Durability.LOSE_A_SECOND`."""

SCHEMA: Final = """
CREATE TABLE origin (id INTEGER PRIMARY KEY CHECK (id = 0), store TEXT NOT NULL);
CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 0), seq INTEGER, version INTEGER, crc INTEGER);
CREATE TABLE batch (
    seq INTEGER PRIMARY KEY, version INTEGER, events INTEGER, steps BLOB, lines BLOB, crc INTEGER);
CREATE TRIGGER batch_moves_head AFTER INSERT ON batch BEGIN
    UPDATE head SET seq = NEW.seq, version = NEW.version, crc = NEW.crc; END;
CREATE TABLE checkpoint (
    seq INTEGER PRIMARY KEY, version INTEGER, chain INTEGER, parts INTEGER, size INTEGER, crc INTEGER);
CREATE TABLE part (seq INTEGER, number INTEGER, data BLOB, PRIMARY KEY (seq, number)) WITHOUT ROWID;
"""
"""What is in the file.

`origin` and `head` have one row each. A checkpoint holds the state after batch
`seq`; its parts are written first, so that one without its row is none.
"""


logger = logging.getLogger("actorstore")


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
        self._lock = _lock(self.path, create)
        try:
            if create and not _exists(self.path):
                _create(self.path)
            _check_file(self.path)
            if not salvage:
                _check_wal(self.path)
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
            if _name(error).startswith("SQLITE_BUSY"):
                raise JournalInUseError(self.path) from None
            if isinstance(error, sqlite3.DatabaseError) and _name(error) in _BROKEN:
                raise JournalDamagedError(self.path, f"SQLite cannot read it ({error})") from None
            raise JournalError(self.path, _words(error)) from None
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
            if _name(error) in _NO_ROOM:
                raise NoRoomError(_words(error)) from None
            self._fail(error)

    def _fail(self, error: sqlite3.Error) -> NoReturn:
        raise JournalFailedError(self.path, _words(error)) from None


_NO_ROOM: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")
"""What SQLite says where a write finds no room, before anything is synced: disk, quota, longest file."""

_BROKEN: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


def _words(error: sqlite3.Error) -> str:
    match _name(error):
        case "SQLITE_FULL":
            return "no space left on the device"
        case "SQLITE_IOERR_WRITE":
            return "it cannot be written now (a quota, a limit on the size of files, or a failing disk)"
        case "SQLITE_IOERR_FSYNC":
            return "what was written could not be brought to disk (fsync failed)"
        case "SQLITE_READONLY" | "SQLITE_CANTOPEN" | "SQLITE_PERM" | "SQLITE_AUTH":
            return "there is no permission to write it, or to its directory"
        case name:
            return f"{error} ({name})" if name else str(error)


def _exists(path: str) -> bool:
    """Whether there is something to open; an empty file is as good as none."""
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


def _lock(path: str, create: bool) -> LockFile:
    """Take the lock beside the file; whoever opens and closes the file itself would let go of SQLite's.

    Raises:
        JournalError: Somebody else has it, or there can be none.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise JournalError(path, f"there is no directory {folder}; make it first")
    if os.path.isdir(path):
        raise JournalError(path, "it is a directory; name a file in it")
    if not create and not os.path.exists(path):
        raise JournalError(path, "there is no such file")
    try:
        return LockFile(path + ".lock")
    except LockedError as error:
        raise JournalInUseError(path, error.owner) from None
    except OSError as error:
        raise JournalError(path, _reason(error)) from None


def _check_file(path: str) -> None:
    """Look at a file before SQLite does, which may change it.

    Raises:
        JournalError: It is no journal, or a newer one, or may not be written.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(100)
    except OSError as error:
        raise JournalError(path, _reason(error)) from None
    if head[:16] != b"SQLite format 3\0" or int.from_bytes(head[68:72], "big") != APPLICATION:
        raise JournalError(path, "it is no journal of actorstore, and was left as it is; name another file")
    version = int.from_bytes(head[60:64], "big")
    if version > FORMAT:
        raise JournalError(
            path,
            f"it has format {version}, and this actorstore knows those up to {FORMAT}; it was left as it is. "
            "Open it with the version that wrote it, or a later one",
        )
    if not os.access(path, os.W_OK):
        raise JournalError(path, "there is no permission to write it")
    if head[18:20] != b"\2\2":
        raise JournalDamagedError(
            path, "its header says that it has no WAL, without which no journal is written"
        )


def _check_wal(path: str) -> None:
    """Look at the WAL before SQLite does, which would drop without a word what lies behind an altered place.

    Transactions are written one after the other, and each is synced before the
    next begins. So a loss of power leaves parts of one at most behind the last
    that is whole; if there are more, something that was synced has been altered.

    Raises:
        JournalDamagedError: It was.
    """
    try:
        found = inspect(path + "-wal")
    except OSError as error:
        raise JournalError(path, _reason(error)) from None
    if found.commits_beyond > 1:
        raise JournalDamagedError(
            path,
            f"its WAL is altered at byte {found.end} or after, behind {found.commits} whole transactions; "
            f"{found.commits_beyond} more lie behind that",
        )
    if found.commits_beyond:
        text = (
            "the last transaction in the WAL of the journal %s is not whole, and is dropped: it was not acked"
        )
        text += " if power was lost while it was written; if it was, its producers will say so"
        say(logger.warning, text, path)


def _reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "there is no permission to read it, or to write to its directory"
    return error.strerror or str(error)


def _create(path: str) -> None:
    """Make an empty journal, whole from the moment that it is there.

    Raises:
        JournalError: There is no room, or no permission.
    """
    made = f"{path}.new"
    store = secrets.token_hex(8)
    try:
        _remove(made, made + "-journal")
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(made, isolation_level=None)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
            connection.execute("INSERT INTO origin VALUES (0, ?)", (store,))
            connection.execute("INSERT INTO head VALUES (0, ?, ?, ?)", start(store))
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        _sync(made, os.O_RDWR)
        os.rename(made, path)
        _sync(os.path.dirname(path), os.O_RDONLY)
    except (sqlite3.Error, OSError) as error:
        _remove(made, made + "-journal", made + "-wal")
        reason = _words(error) if isinstance(error, sqlite3.Error) else _reason(error)
        raise JournalError(path, f"it cannot be made: {reason}") from None


def _remove(*paths: str) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
