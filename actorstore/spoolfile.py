"""The file of a spool: whose lines it holds, how far they are acked, and the lines.

Two slots for the header come first. A header carries a checksum and a
generation, and is written to the slot that holds the older one; the newest one
that is whole counts, so a process that dies in the middle of a write leaves the
header from before. Then comes a mark, and then the lines as they are sent.

The mark is the number of an epoch. When all lines are acked, the file is cut off
before it, and the next lines come in one write with the mark of the next epoch:
a header that names the epoch before has everything from the mark on still before
it. So no header is ever read with positions of lines that it does not mean.

A file is made, written anew without the lines that are acked, and brought to
this format under another name, and moved into place when it is whole.

Reading order: `Header`, `SpoolFile`: opening, writing, whether it is still there.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from contextlib import suppress
from typing import Annotated, Final, TypeVar

import msgspec

from actorstore.errors import SpoolError
from actorstore.ledger import Standing

FORMAT: Final = 2
"""Version of the file's format; the one before is brought to it, others are refused."""

SLOT_BYTES: Final = 512
"""Room for one header, which ends in LF."""

HEADER_BYTES: Final = 2 * SLOT_BYTES
"""Room for both."""

MARK_BYTES: Final = 16
"""Size of the mark."""

LINES_AT: Final = HEADER_BYTES + MARK_BYTES
"""Where the lines begin."""

MADE: Final = ".spool-new"
"""What the name of a file ends in that is not in its place yet."""

CURES: Final = {
    errno.ENOENT: "its directory is not there; make that first",
    errno.ENOTDIR: "its directory is a file; name a file in a directory",
    errno.EISDIR: "it is a directory; name a file in it",
    errno.ELOOP: "it, or its lock file, is a symbolic link of another user; name another file",
    errno.EACCES: "it, its lock file or its directory belongs to another user; "
    "name a file in a directory of your own",
    errno.ENOSPC: "there is no room for it; make some",
    errno.EROFS: "nothing can be written there; name a file in another directory",
}
"""What is wrong with a place, and what to do."""

T = TypeVar("T")


class Header(msgspec.Struct, frozen=True):
    """What stands before the lines."""

    spool: int
    """Version of the format."""
    producer: Annotated[str, msgspec.Meta(min_length=1)]
    """Id of the producer."""
    generation: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many headers there were before."""
    epoch: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Which lines `offset` means."""
    offset: Annotated[int, msgspec.Meta(ge=LINES_AT)] = LINES_AT
    """Where the first line begins that is not acked."""
    standing: Standing = Standing()
    """What the store says of the lines before that."""
    checksum: int = 0
    """CRC-32 of all this, with 0 in the place of this."""

    def is_whole(self) -> bool:
        """Whether its checksum is right."""
        plain = msgspec.structs.replace(self, checksum=0)
        return zlib.crc32(msgspec.json.encode(plain)) == self.checksum

    def packed(self) -> bytes:
        """Return one without a checksum as it stands in its slot, with it.

        Raises:
            OSError: It does not fit.
        """
        plain = msgspec.json.encode(self)
        data = b"%b%d}" % (plain.removesuffix(b"0}"), zlib.crc32(plain))
        if len(data) >= SLOT_BYTES:
            raise OSError(errno.EMSGSIZE, "the id of the store is too long for a spool")
        return data.ljust(SLOT_BYTES - 1) + b"\n"


class _Version(msgspec.Struct):
    """What the header of any version of the format says."""

    spool: int


class _FirstHeader(msgspec.Struct):
    """The header of format 1: one, at the start, and the lines behind it."""

    spool: int
    producer: Annotated[str, msgspec.Meta(min_length=1)]
    offset: Annotated[int, msgspec.Meta(ge=SLOT_BYTES)] = SLOT_BYTES
    standing: Standing = Standing()


class SpoolFile:
    """An open file; its caller holds the lock beside it, and sees that one thread at a time is here.

    Args:
        path: Where it is; made where nothing is there, for this user alone.

    Raises:
        SpoolError: It is no spool, or not this user's; it is left as it is.
        OSError: It cannot be opened, or made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.header: Header
        """The one that is in the file."""
        self.first = LINES_AT
        """Where the first line begins that is not acked."""
        self.moved = 0
        """How much nearer to its begin each byte is than it was when this was opened."""
        self.lines = b""
        """Whole lines found there."""
        self.size = 0
        """How large it was when it was opened."""
        self._descriptor = -1
        self._epoch = 0
        self._is_marked = False  # whether the mark of that epoch is there
        self._made: tuple[int, Header] | None = None  # what is being put in its place
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        try:
            self._check(os.lstat(self.path))
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._descriptor = os.open(self.path, flags)
        except FileNotFoundError:
            self.replace(Header(FORMAT, os.urandom(8).hex()), b"")
        else:
            self._read()

    def _check(self, found: os.stat_result) -> None:
        """Check what is at the path, before it is opened and after: opening a device may do something."""
        if stat.S_ISLNK(found.st_mode):
            raise OSError(errno.ELOOP, "it is a symbolic link")
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, "it is a directory")
        if not stat.S_ISREG(found.st_mode):
            raise SpoolError(self.path, "it is no ordinary file, and was left as it is; name another one")
        if found.st_uid != os.geteuid():
            raise SpoolError(
                self.path,
                f"it belongs to user {found.st_uid}, and was left as it is; "
                "name a file in a directory of your own",
            )

    def _read(self) -> None:
        found = os.fstat(self._descriptor)
        self._check(found)
        self.size = found.st_size
        if not self.size:
            self.replace(Header(FORMAT, os.urandom(8).hex()), b"")
            return
        data = _read(self._descriptor, 0, LINES_AT)
        slots = [_decoded(data[at : at + SLOT_BYTES], Header) for at in (0, SLOT_BYTES)]
        whole = [header for header in slots if header is not None and header.is_whole()]
        if whole:
            self._read_lines(max(whole, key=lambda header: header.generation), data[HEADER_BYTES:])
        else:
            self._read_first_format(data[:SLOT_BYTES])

    def _read_lines(self, header: Header, mark: bytes) -> None:
        if header.spool != FORMAT:
            raise self._of_format(header.spool)
        self.header = header
        self._epoch, self.first = header.epoch, header.offset
        self._is_marked = mark == _mark(header.epoch)
        if not self._is_marked:  # all lines that this header means are acked, and cut off
            self._epoch, self.first = header.epoch + 1, LINES_AT
            self._is_marked = mark == _mark(self._epoch)
        if self._is_marked:
            self.lines = _whole(_read(self._descriptor, self.first, self.size))

    def _read_first_format(self, data: bytes) -> None:
        """Bring a file of format 1 to this one; nothing of it is changed in its place."""
        version = _decoded(data.partition(b"\n")[0], _Version)
        if version is not None and version.spool not in (1, FORMAT):
            raise self._of_format(version.spool)
        header = _decoded(data, _FirstHeader) if len(data) == SLOT_BYTES else None
        if header is None or header.spool != 1:
            what = "it is no spool" if version is None else "its header is damaged"
            raise SpoolError(self.path, f"{what}, and was left as it is; name another file")
        lines = _whole(_read(self._descriptor, header.offset, self.size))
        self.replace(Header(FORMAT, header.producer, standing=header.standing), lines)
        self.lines = lines

    def _of_format(self, version: int) -> SpoolError:
        return SpoolError(
            self.path,
            f"it has format {version}, and this actorstore knows {FORMAT}; it was left as it is. "
            "Open it with the version that wrote it",
        )

    # Writing. A process that dies anywhere in here leaves what was there before, or what is there after.

    def append(self, data: bytes, end: int) -> None:
        """Write lines behind those that end there."""
        if self._is_marked:
            _write(self._descriptor, data, end)
        else:
            _write(self._descriptor, _mark(self._epoch) + data, HEADER_BYTES)
            self._is_marked = True

    def cut_to(self, end: int) -> None:
        """Have nothing behind the lines that end there."""
        os.ftruncate(self._descriptor, end if self._is_marked else HEADER_BYTES)

    def let_go(self, offset: int, standing: Standing) -> None:
        """Write down how far lines are acked, where that is not what stands there."""
        if (self._epoch, offset, standing) != (self.header.epoch, self.header.offset, self.header.standing):
            header = self._next(offset, standing)
            _write(self._descriptor, header.packed(), header.generation % 2 * SLOT_BYTES)
            self.header = header
        self.first = offset

    def _next(self, offset: int, standing: Standing) -> Header:
        now = self.header
        return Header(FORMAT, now.producer, now.generation + 1, self._epoch, offset, standing)

    def clear(self) -> None:
        """Cut all lines off, once the header says that they are acked."""
        os.ftruncate(self._descriptor, HEADER_BYTES)
        self.moved += self.first - LINES_AT
        self.first = LINES_AT
        self._epoch += 1
        self._is_marked = False

    def rewrite(self, end: int) -> None:
        """Write the file anew without the lines that are acked; `end` is where the last one ends."""
        lines = _read(self._descriptor, self.first, end)
        self.replace(self._next(LINES_AT, self.header.standing), lines)

    def replace(self, header: Header, lines: bytes) -> None:
        """Put a new file with these lines, all that are not acked, in the place of this one.

        Raises:
            OSError: It cannot be written, or another file is there by now; that one is left.
        """
        self.settle()
        made = self.path + MADE
        self._made = _made(made), header
        try:
            slots = [b"\n".rjust(SLOT_BYTES)] * 2
            slots[header.generation % 2] = header.packed()
            _write(self._made[0], b"".join([*slots, _mark(header.epoch), lines]), 0)
            if not self._is_free():
                raise OSError(errno.EEXIST, "another file is in its place")
            os.rename(made, self.path)
        finally:
            self.settle()

    def settle(self) -> None:
        """Go on with the file that was put in the place of this one, or drop it where it was not.

        Called again first of all, since an interrupted caller may have left that undone.
        """
        if self._made is None:
            return
        descriptor, header = self._made
        if _is_at(descriptor, self.path):
            before = self._descriptor
            self._descriptor, self.header, self._made = descriptor, header, None  # no call is among these,
            self.moved += self.first - LINES_AT  # so nothing interrupts them
            self.first, self._epoch, self._is_marked = LINES_AT, header.epoch, True
            if before >= 0:
                os.close(before)
        else:
            self._made = None
            os.close(descriptor)
            with suppress(OSError):
                os.unlink(self.path + MADE)

    def _is_free(self) -> bool:
        """Whether another file may be put to the path."""
        if self._descriptor < 0:
            return not os.path.lexists(self.path)
        return self.is_there() or self.is_deleted()

    # Whether it is still there.

    def is_there(self) -> bool:
        """Whether this is the file at the path."""
        return _is_at(self._descriptor, self.path)

    def is_deleted(self) -> bool:
        """Whether it is gone for good, and nothing is in its place."""
        return not os.fstat(self._descriptor).st_nlink and not os.path.lexists(self.path)

    def remove(self) -> None:
        """Leave nothing at the path, unless that is another file by now."""
        if self.is_there():
            for path in (self.path, self.path + MADE):
                with suppress(OSError):
                    os.unlink(path)

    def close(self) -> None:
        """Let go of it; closing again does nothing."""
        made, self._made = self._made, None
        if made is not None:
            os.close(made[0])
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def is_closed(self) -> bool:
        """Whether it was let go."""
        return self._descriptor < 0


def reason(error: OSError) -> str:
    """Return what is wrong with a place, and what to do."""
    return CURES.get(error.errno or 0) or f"{error.strerror or error}; name another file"


def _mark(epoch: int) -> bytes:
    return b"%0*x" % (MARK_BYTES, epoch)


def _whole(lines: bytes) -> bytes:
    return lines[: lines.rfind(b"\n") + 1]  # half a line was never handed over


def _decoded(data: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError):  # of msgspec's, and of invalid UTF-8
        return None


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def _made(path: str) -> int:
    """Make a new file, in the place of one that a killed process may have left."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(errno.EEXIST, f"{path} is in the way, which is not this user's file") from None
        os.unlink(path)
        return os.open(path, flags, 0o600)


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
