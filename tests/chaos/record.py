"""Records: what a process did and saw, written down as it happens, for the checker to read later.

A line is written before lines are handed over, and after an ack was heard. The
system keeps what was written when its process is killed, so nothing is flushed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Entry = list[Any]


class Record:
    """A file that only grows.

    Args:
        path: Where it is.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, *entry: object) -> None:
        """Write one entry."""
        os.write(self._file, json.dumps(entry).encode() + b"\n")


def entries(path: str | Path) -> Iterator[Entry]:
    """Read what was written; a line that did not end was not written."""
    for line in Path(path).read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)


def find(path: str | Path, *words: str) -> list[Entry]:
    """Return the entries of these kinds, of a record that may not be there yet."""
    return [entry for entry in entries(path) if entry[0] in words] if Path(path).exists() else []
