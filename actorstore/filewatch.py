"""Whether files that are open are still at their paths.

What is written to a file that was removed, or moved away, is not there at the next start. Each
look costs half a microsecond: the time of their directory says whether anything in it was made,
removed or renamed since.
"""

from __future__ import annotations

import os
import time
from typing import Final

TICK_NS: Final = 100_000_000
"""How old the time of a directory has to be for another change to show: file systems tick in 10 ms."""


class FileWatch:
    """Watches files of one directory.

    Args:
        paths: The files, all of which are there.

    Raises:
        OSError: The directory cannot be read.
    """

    def __init__(self, *paths: str) -> None:
        self._paths = paths
        self._path = os.path.dirname(paths[0])
        self._folder = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        self._place = _identity(self._path)
        self._files = self._found()
        self._seen = -1  # time of the directory, when all of them were found in it

    def is_intact(self) -> bool:
        """Whether each of them is still at its path."""
        try:
            folder = os.stat(self._path)
        except OSError:
            return False
        if (folder.st_dev, folder.st_ino) != self._place:
            return False  # it was moved away, with all that is in it
        changed = folder.st_mtime_ns
        if changed == self._seen:
            return True
        is_settled = time.time_ns() - changed > TICK_NS
        if self._found() != self._files:
            return False
        if is_settled:
            self._seen = changed
        return True

    def close(self) -> None:
        """Look no more; closing again does nothing."""
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)

    def _found(self) -> list[tuple[int, int] | None]:
        return [_identity(path) for path in self._paths]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
