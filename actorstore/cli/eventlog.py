"""Where events come from on the command line: files, standard input, gzip; logs, and recorded workflows.

What a file is shows in its content: gzip in its first two bytes, a recorded
workflow (WfFormat) in its first lines. Everything else is an event log.

Reading order: `whole_lines`, `unmarked`, `is_document`, `goes_on`.
"""

from __future__ import annotations

import codecs
import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Final, Protocol

import msgspec

from actorstore.wire import MAX_LINE_BYTES

PIECE_BYTES: Final = 1 << 20
"""How much is read at a time, at most; a pipe gives what it has."""

STANDARD_INPUT: Final = "-"
"""What standard input is called among the files."""

BLANK: Final = b" \t\r\n"
"""What blank lines are made of."""

GZIP_MAGIC: Final = b"\x1f\x8b"
"""How gzip begins (RFC 1952), and no line of JSON does."""


class InputError(Exception):
    """Raised when a file cannot be read, or not to its end.

    Attributes:
        reason: What is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Readable(Protocol):
    """What bytes are read from."""

    def read1(self, size: int, /) -> bytes:
        """Return some bytes, as soon as there are any; none at the end."""


def whole_lines(path: str) -> Iterator[bytes]:
    """Read whole lines, as many at a time as there are, up to some `PIECE_BYTES`.

    The last line gets its LF where it has none. Of a line far over the limit only
    so much is kept that it is still over it.

    Args:
        path: A file, packed with gzip or not; `-` is standard input.

    Raises:
        InputError: It is not there, must not be read, is a folder, or is damaged.
    """
    try:
        if path == STANDARD_INPUT:
            if sys.stdin is None:
                raise InputError("is closed")
            yield from cut(_unpacked(sys.stdin.buffer, path))
        else:
            with open(path, "rb") as file:
                yield from cut(_unpacked(file, path))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"damaged gzip data: {error}") from None
    except OSError as error:
        raise InputError(said_by(error)) from None


def unmarked(pieces: Iterator[bytes], tell: Callable[[str], object]) -> Iterator[bytes]:
    """Leave out the byte order mark that some editors and shells put before UTF-8, and tell of it."""
    first = next(pieces, b"")
    if first.startswith(codecs.BOM_UTF8):
        tell("begins with a byte order mark (BOM), which is left out")
        first = first.removeprefix(codecs.BOM_UTF8)
    if first:
        yield first
    yield from pieces


def cut(stream: Readable, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """Cut what is read into whole lines; see `whole_lines`."""
    begun: list[bytes] = []  # of a line whose end is not yet read
    size = 0
    while data := stream.read1(PIECE_BYTES):
        end = data.rfind(b"\n") + 1
        if end:
            yield b"".join([*begun, memoryview(data)[:end]])
            begun.clear()
            size = 0
        if end < len(data) and size <= max_line_bytes:
            begun.append(data[end:])
            size += len(data) - end
    if begun:
        yield b"".join([*begun, b"\n"])


class _Sniffed(msgspec.Struct, gc=False):
    type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    workflow: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_sniffer: Final = msgspec.json.Decoder(_Sniffed)


def is_document(lines: bytes) -> bool | None:
    """Whether the lines that begin a file begin one JSON document, and not an event log.

    A document is an object that has a `workflow` and no `type`; or one that goes
    on after its first line, where the next line begins no object.

    Returns:
        `None` where more lines must be seen.
    """
    first, _, others = lines.lstrip(BLANK).partition(b"\n")
    if not first:
        return None
    try:
        found = _sniffer.decode(first)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return False
    except msgspec.DecodeError as error:
        if not first.startswith(b"{") or "truncated" not in str(error):
            return False
        return goes_on(others)
    return found.type is msgspec.UNSET and found.workflow is not msgspec.UNSET


def goes_on(lines: bytes) -> bool | None:
    """Whether lines go on with the document whose first line stands before them.

    Returns:
        `None` where more lines must be seen.
    """
    text = lines.lstrip(BLANK)
    return not text.startswith(b"{") if text else None


def is_blank(lines: bytes) -> bool:
    """Whether all of the lines are blank, and have no effect."""
    return not lines.strip(BLANK)


def _unpacked(file: IO[bytes], path: str) -> Readable:
    """Return the file, unpacked where it is packed."""
    packed = file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)  # type: ignore[attr-defined]
    if not packed and path.endswith(".gz"):
        raise InputError("is no gzip file, although its name ends in .gz")
    return gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[return-value]


def said_by(error: OSError) -> str:
    """Return what the system says, as the rest of a sentence: "no such file or directory"."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def split_lines(lines: bytes) -> list[bytes]:
    """Cut whole lines apart, each with its LF."""
    return [line + b"\n" for line in lines.split(b"\n")[:-1]]
