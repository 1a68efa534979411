"""The standard streams of a process that is a command.

What standard output does not take is an error of a kind of its own, which nothing
between here and `main` takes for one of its files or sockets, and argparse does
not swallow. What standard error does not take is dropped: it changes neither the
outcome of a command nor its exit code.

Reading order: `prepare`, `UnwritableError`, `_Output`, `_Talk`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

READER_IS_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET})
"""What the system says where the other end of a pipe, or of a socket, is closed."""

ERRORS: Final = "backslashreplace"
"""What becomes of a character that the encoding of a stream does not have."""


class UnwritableError(Exception):
    """Raised when standard output does not take what is written; no `OSError`, see above.

    Attributes:
        is_unread: Whether the reader has gone away.
        reason: What the system said.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.is_unread = error.errno in READER_IS_GONE
        text = error.strerror or str(error)
        self.reason = (
            "it is not open for writing" if error.errno == errno.EBADF else text[:1].lower() + text[1:]
        )


def prepare() -> None:
    """Replace the streams of this process; each of the three descriptors is taken from here on.

    A descriptor that was closed would otherwise go to the next file or socket, and
    Python has no stream for it: `print` then writes what is meant for standard
    error to standard output.
    """
    for descriptor, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        _occupy(descriptor, mode)
    sys.stdout = _stream(sys.stdout, _Output(1, "wb", closefd=False))
    sys.stderr = _stream(sys.stderr, _Talk(2, "wb", closefd=False), is_prompt=True)


def let_go_of_stdout() -> None:
    """Point standard output to nowhere, so that the interpreter's last flush of it cannot fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _occupy(descriptor: int, mode: int) -> None:
    """Open a closed descriptor, so that it fails as before: input in writing, output in reading."""
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, mode)  # the lowest one that is free, which is this one
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)


def _stream(old: TextIO | None, raw: io.FileIO, *, is_prompt: bool = False) -> io.TextIOWrapper:
    """Return a text stream like the old one, on top of `raw`.

    The bytes are buffered also where Python was told not to buffer: its unbuffered
    streams lose, in silence, what a short write leaves over. Commands flush.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(old, "encoding", None) or "utf-8",
        errors=ERRORS,
        line_buffering=is_prompt or getattr(old, "line_buffering", False),
    )


class _Output(io.FileIO):
    """Standard output."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (written := super().write(data)) is None:  # another process made it non-blocking
                import select

                select.select([], [self], [])
        except OSError as error:
            raise UnwritableError(error) from None
        return written


class _Talk(io.FileIO):
    """Standard error."""

    def write(self, data: ReadableBuffer, /) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return memoryview(data).nbytes
