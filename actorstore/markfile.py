"""The mark of a journal: how far it had come, kept outside the database and its WAL.

A WAL that was altered at its start looks like an empty one: SQLite opens it, and all
transactions in it are gone. The mark says which batch was there, so that the loss is found.

The mark is a lower bound. It is written after the batch that it names, and the claim stays true
however old the mark on the disk is: so it is not synced for each batch, and a loss of power that
takes its last writes raises no false alarm. It lies in the lock file of the journal, in two slots
that are written in turn, each with a checksum: a torn write leaves the other one.

Reading order: `Mark`, then `Marker`.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from typing import Final, NamedTuple

from actorstore.lockfile import LockFile

SLOTS: Final = (512, 1024)
"""Where the slots lie: in sectors of their own, and in one page."""

_FIELDS: Final = struct.Struct("<8sQ16s?QQQQq")
_CRC: Final = struct.Struct("<I")
_MAGIC: Final = b"ACTSMARK"
_SIZE: Final = _FIELDS.size + _CRC.size


class Mark(NamedTuple):
    """How far a journal had come at least."""

    store: str
    """Id of the store; a mark of another store says nothing."""
    syncs: bool
    """Whether each batch was brought to disk before the next one began."""
    synced: int
    """Number of the last batch that is known to be on disk."""
    seq: int
    """Number of the last batch that was written."""
    version: int
    """Version of the store after that batch."""
    inode: int = 0
    """Inode of the database, after it was last written."""
    changed: int = 0
    """When that was: its ctime, in nanoseconds."""


class Marker:
    """Writes the marks of one journal, into a file that is open and locked.

    Args:
        lock: The file.
    """

    def __init__(self, lock: LockFile) -> None:
        self._lock = lock
        self._serial, self.mark = _newest(lock.descriptor)
        self._store = b""
        self._inode = self._changed = 0

    def begin(self, mark: Mark) -> None:
        """Write the first mark of a store.

        Where batches are not synced, it is on disk when this returns: the next start has to know that.

        Raises:
            OSError: There is no room for it, or the disk failed.
        """
        before, self.mark = self.mark, mark
        claims_more = before is not None and before.store == mark.store and before.seq > mark.seq
        self._store = mark.store.encode()
        self.look_at(mark.inode, mark.changed)
        for _ in SLOTS:
            self._write(mark.synced, mark.seq, mark.version)
        if not mark.syncs or claims_more:
            os.fsync(self._lock.descriptor)
            folder = os.open(os.path.dirname(self._lock.path) or ".", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def look_at(self, inode: int, changed: int) -> None:
        """Say what the database is now."""
        self._inode, self._changed = inode, changed

    def put(self, synced: int, seq: int, version: int) -> None:
        """Write how far the journal is; where that fails, the mark before stays, and is as true."""
        if self.mark is not None:
            with suppress(OSError):
                self._write(synced, seq, version)

    def _write(self, synced: int, seq: int, version: int) -> None:
        assert self.mark is not None
        self._serial += 1
        fields = _FIELDS.pack(
            _MAGIC,
            self._serial,
            self._store,
            self.mark.syncs,
            synced,
            seq,
            version,
            self._inode,
            self._changed,
        )
        os.pwrite(self._lock.descriptor, fields + _CRC.pack(zlib.crc32(fields)), SLOTS[self._serial % 2])


def _newest(descriptor: int) -> tuple[int, Mark | None]:
    """Return the newest whole mark, and its serial number."""
    found: list[tuple[int, Mark | None]] = [(0, None)]
    for slot in SLOTS:
        with suppress(OSError, struct.error, UnicodeDecodeError):
            data = os.pread(descriptor, _SIZE, slot)
            (crc,) = _CRC.unpack(data[_FIELDS.size :])
            magic, serial, store, *rest = _FIELDS.unpack(data[: _FIELDS.size])
            if magic == _MAGIC and crc == zlib.crc32(data[: _FIELDS.size]):
                found.append((serial, Mark(store.rstrip(b"\0").decode(), *rest)))
    return max(found, key=lambda pair: pair[0])
