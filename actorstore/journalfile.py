"""The file of a journal: how it is made, locked, and looked at before SQLite changes anything in it.

Reading order: `take_lock`, `create_file`, `check_file`, `check_schema`; then what SQLite says, in words.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import stat
from contextlib import suppress
from typing import Final, TypeAlias

from actorstore.batch import start
from actorstore.errors import JournalDamagedError, JournalError, JournalInUseError
from actorstore.lockfile import LockedError, LockFile

Path: TypeAlias = str | os.PathLike[str]
"""Path of a file."""

FORMAT: Final = 1
"""Version of the file's format; a file with a higher one is refused."""

APPLICATION: Final = 0x41435453
"""Marks the file as ours, in its header: "ACTS"."""

PAGE_BYTES: Final = 16384
"""Size of a page: intake is an eighth faster than with 8 KiB, and no slower than with 32."""

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

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a write finds no room: disk, quota, longest file. It is waited out."""

PROBE: Final = bytes(PAGE_BYTES + 24)
"""As long as what SQLite writes into the WAL at a time."""

BROKEN: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")


def name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


def words(error: sqlite3.Error) -> str:
    match name(error):
        case "SQLITE_FULL":
            return "no space left on the device"
        case "SQLITE_IOERR_WRITE":
            return "it cannot be written (a failing disk, a quota, or a limit on the size of files)"
        case "SQLITE_IOERR_FSYNC":
            return "what was written could not be brought to disk (fsync failed)"
        case "SQLITE_READONLY" | "SQLITE_CANTOPEN" | "SQLITE_PERM" | "SQLITE_AUTH":
            return "there is no permission to write it, or to its directory"
        case other:
            return f"{error} ({other})" if other else str(error)


def lack_of_room(error: sqlite3.Error, path: str, lock: int) -> str | None:
    """Return what is full where a write found no room; `None` where the disk failed.

    SQLite tells apart a full disk, and has one word for a quota, a limit on the size of files and a failing
    disk. So the same is tried beside the journal, in its lock file, as far from the start.
    """
    if name(error) == "SQLITE_FULL":
        return words(error)
    if name(error) != "SQLITE_IOERR_WRITE":
        return None
    size = os.fstat(lock).st_size
    try:
        os.pwrite(lock, PROBE, max(size, *[_size(path + end) for end in ("", "-wal")]))
    except OSError as reason:
        return reason.strerror if reason.errno in NO_ROOM else None
    finally:
        os.ftruncate(lock, size)
    return None


def change(path: str) -> tuple[int, int]:
    """Return inode and ctime of a file, other ones where it was replaced or written since; 0 for none."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_ino, found.st_ctime_ns


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def exists(path: str) -> bool:
    """Whether there is something to open; an empty file is as good as none."""
    return _size(path) > 0


def take_lock(path: str, create: bool) -> LockFile:
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
        raise JournalError(path, reason(error)) from None


def check_file(path: str) -> None:
    """Look at a file before SQLite does, which may change it.

    Raises:
        JournalError: It is no journal, or a newer one, or may not be written.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(100)
    except OSError as error:
        raise JournalError(path, reason(error)) from None
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


def reason(error: OSError) -> str:
    """Return what the system said, in words."""
    if isinstance(error, PermissionError):
        return "there is no permission to read it, or to write to its directory"
    return error.strerror or str(error)


def check_schema(path: str, connection: sqlite3.Connection) -> None:
    """Compare the tables and the trigger with `SCHEMA`; one letter there is enough to lose batches later.

    Raises:
        JournalDamagedError: They are others.
    """
    made = sqlite3.connect(":memory:")
    made.executescript(SCHEMA)
    wanted = sorted(made.execute(_TABLES).fetchall())
    made.close()
    if sorted(connection.execute(_TABLES).fetchall()) != wanted:  # VACUUM moves the trigger to the end
        raise JournalDamagedError(path, "its tables are not those of a journal")
    roots = [root for (root,) in connection.execute("SELECT rootpage FROM sqlite_master") if root]
    found = [("ok",)]
    if sqlite3.sqlite_version_info >= (3, 33):  # before that it reads the whole file
        found = connection.execute("PRAGMA integrity_check(sqlite_schema)").fetchall()
    if len(set(roots)) < len(roots) or found != [("ok",)]:
        raise JournalDamagedError(path, "the list of its tables is altered")


_TABLES: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master"


def create_file(path: str) -> None:
    """Make an empty journal, whole from the moment that it is there.

    Raises:
        JournalError: There is no room, or no permission.
    """
    made = f"{path}.new"
    store = secrets.token_hex(8)
    _clear(path, made, f"{made}-journal")
    try:
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(made, isolation_level=None)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = NONE")
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
        for end in ("", "-journal", "-wal"):
            with suppress(OSError):
                os.unlink(made + end)
        why = words(error) if isinstance(error, sqlite3.Error) else reason(error)
        raise JournalError(path, f"it cannot be made: {why}") from None


def _clear(path: str, *files: str) -> None:
    """Remove what a start that was cut short has left.

    Raises:
        JournalError: It is something else, and was left as it is.
    """
    for file in files:
        try:
            found = os.lstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise JournalError(path, f"{file} is in the way, and is not a file of this user; remove it")
            os.unlink(file)
        except FileNotFoundError:
            continue
        except JournalError:
            raise
        except OSError as error:
            raise JournalError(path, f"{file} is in the way: {reason(error)}") from None


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
