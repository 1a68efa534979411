"""The WAL of SQLite, looked at from outside: how far it is whole, and what lies behind that.

SQLite reads a WAL up to the first frame whose checksum is wrong, and forgets the
rest without a word: the right thing after a loss of power, and the wrong one
where a bit was flipped. What lies behind tells one from the other.

Pure but for reading the file. The format is that of
https://www.sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import Final, NamedTuple

HEADER: Final = struct.Struct(">8I")
"""Magic, version, page size, number of the generation, two salts, two checksums."""

FRAME: Final = struct.Struct(">6I")
"""Page number, size of the database after a commit or 0, two salts, two checksums."""

_LITTLE: Final = 0x377F0682  # checksums over little-endian words
_BIG: Final = 0x377F0683
_MASK: Final = 0xFFFFFFFF


class Wal(NamedTuple):
    """What was found in a WAL."""

    frames: int = 0
    """Frames that are whole."""
    commits: int = 0
    """Transactions that are whole."""
    end: int = 0
    """Where the first frame that is not whole begins, in bytes."""
    frames_beyond: int = 0
    """Frames behind that which look like the same generation's."""
    commits_beyond: int = 0
    """Of those, ones that end a transaction."""
    has_header: bool = False
    """Whether the header is whole: it is synced before the first frame is written."""


def inspect(path: str) -> Wal:
    """Look at a WAL; some 30 ms a MiB.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return Wal()
    return look(data)


def look(data: bytes) -> Wal:
    """Look at the bytes of a WAL."""
    if len(data) < HEADER.size:
        return Wal()
    magic, _, page, _, salt, other_salt, first, second = HEADER.unpack_from(data)
    salts = (salt, other_salt)
    is_whole = magic in (_LITTLE, _BIG) and 512 <= page <= 65536 and not page & (page - 1)
    order = "big" if magic == _BIG else "little"
    sums = (0, 0)
    if is_whole:
        sums = _checksum(data[:24], order, sums)
        is_whole = sums == (first, second)
    if not is_whole:
        return _without_header(data)
    frames = commits = 0
    at = HEADER.size
    size = FRAME.size + page
    while at + size <= len(data):
        number, after, *found = FRAME.unpack_from(data, at)
        if tuple(found[:2]) != salts or not number:
            break
        sums = _checksum(data[at : at + 8], order, sums)
        sums = _checksum(data[at + FRAME.size : at + size], order, sums)
        if sums != tuple(found[2:]):
            break
        frames += 1
        commits += bool(after)
        at += size
    beyond = _frames(data, at, size, salts)
    return Wal(frames, commits, at, len(beyond), sum(beyond), has_header=True)


def _frames(data: bytes, start: int, size: int, salts: tuple[int, int]) -> list[bool]:
    """Return, of each frame that has the salts, whether it ends a transaction."""
    found = []
    for at in range(start, len(data) - FRAME.size + 1, size):
        _, after, salt, other_salt, _, _ = FRAME.unpack_from(data, at)
        if (salt, other_salt) == salts:
            found.append(bool(after))
    return found


def _without_header(data: bytes) -> Wal:
    """Look at a WAL whose header is not whole: its frames may still agree with each other."""
    _, _, salt, other_salt, _, _ = FRAME.unpack_from(data.ljust(HEADER.size + FRAME.size, b"\0"), HEADER.size)
    best: list[bool] = []
    for power in range(9, 17):
        found = _frames(data, HEADER.size, FRAME.size + (1 << power), (salt, other_salt))
        best = max(best, found, key=len)
    return Wal(0, 0, 0, len(best), sum(best))


def _checksum(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    words = array("I", data)
    if order != sys.byteorder:
        words.byteswap()
    first, second = sums
    pairs = iter(words)
    for one, two in zip(pairs, pairs, strict=True):
        first = (first + one + second) & _MASK
        second = (second + two + first) & _MASK
    return first, second
