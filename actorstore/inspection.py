"""What is looked at before SQLite opens a journal, because SQLite changes what it opens.

SQLite reads a WAL up to the first altered place, forgets the rest without a word, and folds what it
has read when it closes. So what is missing has to be known before.

Reading order: `check_kind`, `check_database`, `check_wal`, `settle`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from contextlib import suppress
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import quote

from actorstore.errors import JournalDamagedError, JournalError
from actorstore.journalfile import PAGE_BYTES, change, exists, reason
from actorstore.logs import say
from actorstore.markfile import Mark
from actorstore.walfile import Wal, inspect

logger = logging.getLogger("actorstore")

SIDE_FILES: Final = ("-wal", "-shm", "-journal", ".lock")
"""Files beside a database: those that SQLite reads where they are there, and the lock with its mark."""


FIXED: Final = {16: b"\x40\x00", 21: b"\x40\x20\x20", 52: bytes(4), 56: b"\0\0\0\1", 64: bytes(4)}
"""What stands at these bytes of a database header: size of a page and how it is filled, no vacuum, UTF-8."""

RESERVED: Final = (0, 12)
"""Bytes of each page that SQLite leaves alone: none, and 12 with the SQLite of macOS."""


class Head(NamedTuple):
    """The last batch, as the file has it."""

    store: object
    """Id of the store."""
    seq: int
    """Number of the batch."""
    version: int
    """Version of the store after it."""


def check_kind(path: str) -> None:
    """Check that a journal, and each file that is read with it, is a file of this user.

    A link to a journal is followed by whoever calls this; one beside it is refused, because SQLite would
    write to what it names.

    Raises:
        JournalError: One is a pipe, a socket, a device or a link, or another user's. It was left as it is.
    """
    for file in (path, *[path + end for end in SIDE_FILES]):
        try:
            found = os.lstat(file)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise JournalError(path, reason(error)) from None
        if stat.S_ISDIR(found.st_mode) and file == path:
            raise JournalError(path, "it is a directory; name a file in it")
        if not stat.S_ISREG(found.st_mode):
            raise JournalError(path, f"{file} is not a regular file, and was left as it is; name another one")
        if found.st_uid != os.geteuid():
            raise JournalError(
                path,
                f"{file} belongs to the user with id {found.st_uid}, and was left as it is; name another one",
            )


def check_database(path: str) -> None:
    """Check that a WAL that is there has its database, before a new one is made beside it.

    Raises:
        JournalDamagedError: It has none.
    """
    if exists(path + "-wal") and not exists(path):
        raise JournalDamagedError(
            path,
            "its database is gone, and its WAL is there",
            f"put the file back, or remove {path}-wal to begin anew",
        )


def check_header(path: str) -> None:
    """Check what SQLite believes of the first page of a database, and loses batches over later.

    Raises:
        JournalDamagedError: It is altered.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(100)
            is_right = (
                all(head[at:].startswith(value) for at, value in FIXED.items()) and head[20] in RESERVED
            )
            if is_right and not exists(path + "-wal"):  # whose pages are newer
                is_right = _count_free_pages(file, head) == int.from_bytes(head[36:40], "big")
    except OSError as error:
        raise JournalError(path, reason(error)) from None
    if not is_right:
        raise JournalDamagedError(path, "its header is altered")


def _count_free_pages(file: BinaryIO, head: bytes) -> int:
    """Follow the list of free pages; -1 where it leads nowhere."""
    count = 0
    trunk = int.from_bytes(head[32:36], "big")
    pages = os.fstat(file.fileno()).st_size // PAGE_BYTES
    while trunk:
        file.seek((trunk - 1) * PAGE_BYTES)
        following, leaves = int.from_bytes(file.read(4), "big"), int.from_bytes(file.read(4), "big")
        count += 1 + leaves
        if trunk > pages or count > pages:
            return -1
        trunk = following
    return count


def check_wal(path: str, syncs: bool, mark: Mark | None) -> Wal:
    """Look at the WAL, and at how far the journal is known to have come.

    Where each transaction is synced before the next begins, a loss of power leaves parts of one at most
    behind the last that is whole. Where they are not, it may leave parts of many, but the header is whole,
    and so is what was synced.

    Args:
        path: The journal.
        syncs: Whether each transaction was synced, where no mark says so.
        mark: The mark that lies beside it.

    Raises:
        JournalDamagedError: Something is altered or gone that a loss of power does not take.
    """
    try:
        found = inspect(path + "-wal")
    except OSError as error:
        raise JournalError(path, reason(error)) from None
    if mark is not None:
        head = _head(path)
        if head is not None and head.store == mark.store:
            syncs = mark.syncs
            _check_reached(path, found, head, mark)
    if found.commits_beyond > 1 and (syncs or not found.has_header):
        raise JournalDamagedError(
            path,
            f"its WAL is altered at byte {found.end} or after, behind {found.commits} whole transactions; "
            f"{found.commits_beyond} more lie behind that",
        )
    if found.commits_beyond and syncs:
        text = (
            "the last transaction in the WAL of the journal %s is not whole, and is dropped: it was not acked"
        )
        text += " if power was lost while it was written; if it was, its producers will say so"
        say(logger.warning, text, path)
    elif found.commits_beyond:
        text = "the WAL of the journal %s is not whole at byte %d, and what lies behind is dropped (%d "
        text += (
            "transactions or more): it was not on disk when power was lost. Producers that were acked more "
        )
        text += "will say so"
        say(logger.warning, text, path, found.end, found.commits_beyond)
    return found


def _check_reached(path: str, found: Wal, head: Head, mark: Mark) -> None:
    """Compare what SQLite would read with what is known to have been there.

    A torn end costs one transaction at most, and leaves the header of the WAL, which is synced before.
    """
    least = mark.synced - 1 if found.has_header else mark.seq
    if head.seq >= least:
        return
    if not os.path.exists(path + "-wal") and not _is_where_it_was(path, mark):
        text = "the journal %s ends at version %d, and had come to %d: it is a copy without its WAL, or an "
        text += "older one"
        say(logger.warning, text, path, head.version, mark.version)
        return
    raise JournalDamagedError(
        path,
        f"its WAL is altered or gone: it ends with batch {head.seq}, version {head.version}, and had come "
        f"to batch {mark.seq}, version {mark.version}",
        f"restore {path} and {path}-wal from a backup and remove {path}.lock, or only remove it to go on "
        f"from version {head.version}",
    )


def _is_where_it_was(path: str, mark: Mark) -> bool:
    """Whether the database is the file that the mark was written for, and nobody has written to it since."""
    return change(path) == (mark.inode, mark.changed)


def _head(path: str) -> Head | None:
    """Return how far SQLite would read, and change nothing; `None` where it cannot read it."""
    option = "mode=ro" if exists(path + "-wal") else "immutable=1"
    index = path + "-shm"
    was_there = os.path.exists(index)
    try:
        connection = sqlite3.connect(f"file:{quote(os.fsencode(path))}?{option}", uri=True)
        try:
            (store,) = connection.execute("SELECT store FROM origin").fetchone()
            seq, version = connection.execute("SELECT seq, version FROM head").fetchone()
            return Head(store, int(seq), int(version))
        finally:
            connection.close()
    except (sqlite3.Error, TypeError, ValueError):
        return None
    finally:
        if not was_there:
            with suppress(OSError):
                os.unlink(index)


def settle(path: str, found: Wal) -> None:
    """Have on disk what is whole of a WAL that was left, and nothing behind it.

    What an earlier process has written and not synced is read now, so it is acked. What lies behind the
    last whole frame would look like damage once new frames reach it.

    Raises:
        JournalError: The disk failed.
    """
    if not found.frames and not found.frames_beyond:
        return
    try:
        descriptor = os.open(path + "-wal", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if found.frames_beyond and found.has_header:
                os.ftruncate(descriptor, found.end)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise JournalError(path, f"its WAL cannot be brought to disk: {reason(error)}") from None
