"""A file that says who owns something: locked with `flock` for as long as its owner lives."""

from __future__ import annotations

import errno
import os
import stat
import time
import weakref
from contextlib import suppress
from typing import Final

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


OWNER_SECONDS: Final = 0.5
"""How long one who finds the lock taken waits to learn by whom."""


OWNER_BYTES: Final = 32
"""Bytes at the start of the file that say who has the lock."""


class LockedError(OSError):
    """Raised when another owner has the lock.

    Attributes:
        owner: Process id of the owner; 0 where it is not known.
    """

    def __init__(self, owner: int) -> None:
        super().__init__(owner)
        self.owner = owner


class LockFile:
    """A lock that is held from here until `release`, or until the process ends in whatever way.

    Args:
        path: The file; made where it is not there, and removed at the end.

    Raises:
        LockedError: Somebody else has it.
        OSError: It cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = self._take()
        _held.add(self)

    @property
    def descriptor(self) -> int:
        """The file, for what its owner keeps there behind `OWNER_BYTES`; -1 once the lock is released."""
        return -1 if self._descriptor is None else self._descriptor

    def release(self, *, keep: bool = False) -> None:
        """Let the next one in, and leave no file behind; releasing again does nothing.

        Args:
            keep: Whether to leave the file, for what its owner has kept there.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                with suppress(OSError):
                    if not keep and _is_at(descriptor, self.path):
                        os.unlink(self.path)
            finally:
                os.close(descriptor)

    def renew(self) -> None:
        """Take the lock again where its file was deleted, so that the next one finds it taken.

        Raises:
            LockedError: Another owner has it by now.
            OSError: It cannot be made.
        """
        before = self._descriptor
        if before is not None and not _is_at(before, self.path):
            self._descriptor = self._take()
            os.close(before)

    def leave_behind(self) -> None:
        """In a forked child: hold nothing of what is the parent's."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)  # which unlocks nothing, while the parent has it open

    def _take(self) -> int:
        """Open and lock the file.

        Whoever releases it removes it first; so one who has locked a file that is
        gone by now starts again with the new one.
        """
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path, flags, 0o600)
            try:
                _check(descriptor)
                if fcntl is not None:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, self.path):
                    with suppress(OSError):  # a full disk keeps only the process id from being known
                        os.pwrite(descriptor, (b"%d" % os.getpid()).ljust(OWNER_BYTES), 0)
                    return descriptor
            except BlockingIOError:
                owner = _owner(descriptor)
                os.close(descriptor)
                raise LockedError(owner) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _check(descriptor: int) -> None:
    """Check that a lock is this user's: its owner may remove it, and let others in."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(errno.EACCES, "the lock file is not this user's")
    if found.st_nlink > 1 or os.pread(descriptor, OWNER_BYTES, 0).strip(b"0123456789 \0"):
        raise FileExistsError(errno.EEXIST, "a file that is no lock is in the place of its lock")


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> int:
    """Return who has the lock: it takes that first, and writes down who it is a moment later."""
    end = time.monotonic() + OWNER_SECONDS
    while time.monotonic() < end:
        with suppress(OSError, ValueError):
            return int(os.pread(descriptor, OWNER_BYTES, 0))
        time.sleep(0.001)  # nothing tells when it has
    return 0


_held: weakref.WeakSet[LockFile] = weakref.WeakSet()


def _leave_behind() -> None:
    for lock in list(_held):
        lock.leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)
