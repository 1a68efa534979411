"""Where events come from on the command line: files, standard input, gzip; logs, and recorded workflows.

What a file is shows in its content: gzip in its first two bytes, a recorded
workflow (WfFormat) in its first lines. Everything else is an event log.

Reading order: `whole_lines`, `is_document`.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator
from typing import IO, Final, Protocol

import msgspec

from actorstore.wire import MAX_LINE_BYTES

PIECE_BYTES: Final = 1 << 20
"""How much is read at a time, at most; a pipe gives what it has."""

STANDARD_INPUT: Final = "-"
"""What standard input is called among the files."""

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
    first, _, others = lines.lstrip().partition(b"\n")
    if not first:
        return None
    try:
        found = _sniffer.decode(first)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return False
    except msgspec.DecodeError as error:
        if not first.startswith(b"{") or "truncated" not in str(error):
            return False
        others = others.lstrip()
        return not others.startswith(b"{") if others else None
    return found.type is msgspec.UNSET and found.workflow is not msgspec.UNSET


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
