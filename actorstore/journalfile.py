"""The file of a journal: how it is made, locked, and looked at before SQLite changes anything in it.

Reading order: `take_lock`, `create`, `check_file`, `check_wal`; then what SQLite says, in words.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from contextlib import suppress
from typing import Final, TypeAlias

from actorstore.batch import start
from actorstore.errors import JournalDamagedError, JournalError, JournalInUseError
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

NO_ROOM: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")
"""What SQLite says where a write finds no room, before anything is synced: disk, quota, longest file."""

BROKEN: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")


def name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


def words(error: sqlite3.Error) -> str:
    match name(error):
        case "SQLITE_FULL":
            return "no space left on the device"
        case "SQLITE_IOERR_WRITE":
            return "it cannot be written now (a quota, a limit on the size of files, or a failing disk)"
        case "SQLITE_IOERR_FSYNC":
            return "what was written could not be brought to disk (fsync failed)"
        case "SQLITE_READONLY" | "SQLITE_CANTOPEN" | "SQLITE_PERM" | "SQLITE_AUTH":
            return "there is no permission to write it, or to its directory"
        case other:
            return f"{error} ({other})" if other else str(error)


def exists(path: str) -> bool:
    """Whether there is something to open; an empty file is as good as none."""
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


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
        raise JournalError(path, _reason(error)) from None


def check_file(path: str) -> None:
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


def check_wal(path: str) -> None:
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


def create_file(path: str) -> None:
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
        reason = words(error) if isinstance(error, sqlite3.Error) else _reason(error)
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
