"""Where a listening store is found: one Unix socket, one owner, one user.

Who listens takes an `flock` on a file beside the socket first, and keeps it, so
a socket file that is left over is told from one that is in use, and two stores
that start together cannot both win. The socket belongs to its user alone: its
directory, where this makes it, has mode 0700, the socket 0600, and the user id
of whoever connects is checked.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from actorstore.errors import CROWDED, SILENT, AddressError, SocketInUseError, StoreUnreachableError

try:
    import fcntl
except ImportError:  # Windows, which has no Unix sockets either
    fcntl = None  # type: ignore[assignment]

Address: TypeAlias = str | os.PathLike[str]
"""Path of a Unix socket."""

VARIABLE: Final = "ACTORSTORE_SOCKET"
"""The environment variable that names the socket, where the caller does not."""

MAX_PATH_BYTES: Final = 107
"""Longest path of a socket: `sun_path` of Linux less its NUL (unix(7))."""

OWNER_SECONDS: Final = 0.5
"""How long one who finds the lock taken waits for its owner to listen, to learn who that is."""

MAX_LINKS: Final = 40
"""How many symbolic links the way to a socket may go through, as on Linux (path_resolution(7))."""

BACKLOG: Final = 1024
"""How many connections may wait to be accepted."""


def default_address() -> Path:
    """Return where a store listens unless it is told otherwise."""
    return next(_usual())


def _usual() -> Iterator[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        yield Path(runtime, "actorstore", "store.sock")
    yield Path.home() / ".actorstore" / "store.sock"


def is_usual(path: Address) -> bool:
    """Whether a store listens there unless it is told otherwise, so that its directory is made."""
    try:
        return Path(os.path.abspath(os.fspath(path))) in _usual()
    except RuntimeError:  # there is no home
        return False


def find(address: Address | None = None) -> str:
    """Return the path to connect to: the one given, or the first usual one that is there.

    Args:
        address: Path of a socket; where not given, that in `ACTORSTORE_SOCKET`,
            else `$XDG_RUNTIME_DIR/actorstore/store.sock`, else `~/.actorstore/store.sock`.
    """
    given = address or os.environ.get(VARIABLE)
    if given:
        return os.path.abspath(os.fspath(given))
    usual = list(_usual())
    return str(next((path for path in usual if path.exists()), usual[0]))


def connect(path: str, timeout: float | None = None) -> socket.socket:
    """Connect to a store.

    Raises:
        StoreUnreachableError: Nobody listens there; a store can be started there.
        AddressError: No store of this user can listen there: something else is in the way.
    """
    try:
        return _connected(path, timeout)
    except OSError as error:
        if isinstance(error, AddressError):
            raise
        place = os.path.realpath(path) if os.path.islink(path) else path  # no store is started at a link
        obstacle = _obstacle(place, error)
        if obstacle is not None:
            raise AddressError(place, obstacle) from None
        raise StoreUnreachableError(place, _reason(error, place)) from None


def _connected(path: str, timeout: float | None) -> socket.socket:
    until = time.monotonic() + (timeout or 0)
    made = _new_socket(path)
    made.settimeout(timeout)
    while True:
        try:
            made.connect(path)
            return made
        except OSError as error:
            if error.errno == errno.EAGAIN and time.monotonic() < until:
                time.sleep(0.01)  # a Unix socket does not wait for its turn to be let in
                continue
            made.close()
            raise


def _reason(error: OSError, path: str) -> str:
    match error.errno:
        case errno.ENOENT:
            folder = os.path.dirname(path)
            if os.path.isdir(folder) or is_usual(path):
                return "there is no such socket"
            return f"there is no directory {folder}, which has to be made first"
        case errno.ECONNREFUSED:
            return "the socket is there, and nobody listens"
        case errno.EAGAIN:
            return CROWDED
        case _ if isinstance(error, TimeoutError):
            return SILENT
        case _:
            return error.strerror or str(error)


def _obstacle(path: str, error: OSError) -> str | None:
    """Say what is in the way where a connection failed; nothing, where a store can be started."""
    if error.errno in (errno.EAGAIN, errno.ENOENT) or isinstance(error, TimeoutError):
        return None
    if error.errno == errno.EPROTOTYPE:
        return "a socket of another kind is there, not that of a store; name another path"
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None  # it went away meanwhile
    except NotADirectoryError:
        return "a part of the path is a file, and no directory; name another path"
    except PermissionError:
        return "there is no permission to look into its directory; name a path in one of your own"
    except OSError as reason:
        return f"{reason.strerror or reason}; name another path"
    if stat.S_ISDIR(status.st_mode):
        return "it is a directory; name the socket of a store in it"
    if not stat.S_ISSOCK(status.st_mode):
        return "a file that is no socket is there; name the path of the socket of a store"
    if not isinstance(error, PermissionError):
        return None
    if status.st_uid != os.geteuid():
        return f"the socket there is that of user {status.st_uid}; name a path in a directory of your own"
    return "there is no permission to connect to it; make it yours alone with: chmod 600"


def peer(connection: socket.socket) -> tuple[int, int] | None:
    """Return process and user id of the other end, where the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid


class SocketFile:
    """A socket file that this process owns, from here until `release`.

    Args:
        address: Where to listen. A missing directory is made, for this user alone.

    Raises:
        SocketInUseError: Another store listens there; it is left alone.
        AddressError: Something else is there, or nothing can be.
    """

    def __init__(self, address: Address) -> None:
        if not os.fspath(address):
            raise AddressError("", "the path is empty")
        self.path = os.path.abspath(os.fspath(address))
        listener = _new_socket(self.path)
        try:
            _find_way(self.path)
            self._lock_path = self.path + ".lock"
            self._lock = self._take_lock()
            try:
                self._clear()
                self._bind(listener)
            except BaseException:
                self._drop_lock()
                raise
        except OSError as error:
            listener.close()
            if isinstance(error, SocketInUseError):
                raise
            raise AddressError(self.path, error.strerror or str(error)) from None
        except BaseException:
            listener.close()
            raise
        self.listener = listener
        self._is_released = False
        self._inode = os.lstat(self.path).st_ino

    def fileno(self) -> int:
        """Return the descriptor of the lock."""
        return self._lock

    def release(self) -> None:
        """Leave no file behind, and let the next one in; releasing again does nothing."""
        if self._is_released:
            return
        self._is_released = True
        self.listener.close()
        with suppress(OSError):
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        self._drop_lock()

    def _take_lock(self) -> int:
        """Open and lock the file beside the socket.

        Whoever releases it removes it first; so one who waited for a file that is
        gone by now starts again with the new one.
        """
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._lock_path, flags, 0o600)
            try:
                self._check_lock(os.fstat(descriptor))
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.lstat(self._lock_path)):
                        with suppress(OSError):  # a full disk keeps only the process id from being known
                            os.ftruncate(descriptor, 0)
                            os.write(descriptor, b"%d" % os.getpid())
                        return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise SocketInUseError(self.path, self._owner()) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _check_lock(self, found: os.stat_result) -> None:
        """Check that the file is this user's, before anything is written into it."""
        if found.st_uid != os.geteuid():
            raise AddressError(
                self.path, f"{self._lock_path} belongs to user {found.st_uid}; name another path"
            )
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise AddressError(
                self.path, f"{self._lock_path} is no lock file; remove it, or name another path"
            )

    def _owner(self) -> int:
        """Return who listens, or is about to: it has the lock before it has the socket."""
        end = time.monotonic() + OWNER_SECONDS
        while time.monotonic() < end:
            try:
                with _connected(self.path, timeout=OWNER_SECONDS) as other:
                    owner = peer(other)
            except OSError:
                time.sleep(0.001)  # nothing tells when it listens
                continue
            if owner is not None:
                return owner[0]
        with suppress(OSError, ValueError), open(self._lock_path, "rb") as lock:
            return int(lock.read(32))
        return 0

    def _drop_lock(self) -> None:
        with suppress(OSError):
            os.unlink(self._lock_path)
        os.close(self._lock)

    def _clear(self) -> None:
        """Remove a socket that was left over, and nothing else."""
        try:
            mode = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISLNK(mode):
            raise AddressError(self.path, "a symbolic link is in the way, and none is followed; remove it")
        if stat.S_ISDIR(mode):
            raise AddressError(self.path, "it is a directory; name a file in it")
        if not stat.S_ISSOCK(mode):
            raise AddressError(
                self.path, "a file that is no socket is in the way; remove it, or name another path"
            )
        owner = None
        try:
            with _connected(self.path, timeout=0.1) as other:
                owner = peer(other)
        except ConnectionRefusedError:
            os.unlink(self.path)
            return
        except (BlockingIOError, TimeoutError):
            pass  # somebody listens, and lets nobody in just now
        raise SocketInUseError(self.path, owner[0] if owner else 0)

    def _bind(self, listener: socket.socket) -> None:
        os.fchmod(listener.fileno(), 0o600)  # what Linux gives the file, so that it is never open to others
        listener.bind(self.path)
        if stat.S_IMODE(os.lstat(self.path).st_mode) & 0o077:
            os.chmod(self.path, 0o600)
        listener.listen(BACKLOG)


def _find_way(path: str) -> None:
    """Make the directories of a socket that are missing, and check that no other user leads the way to it.

    What is checked is checked again once all is there: another user may have
    made in the meantime what was missing.

    Raises:
        AddressError: Another user can.
    """
    folder = os.path.dirname(path)
    _check_way(path, folder)
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for each in reversed(missing):
        with suppress(FileExistsError):
            _make_folder(path, each)
    _check_way(path, os.path.dirname(path))


def _make_folder(path: str, folder: str) -> None:
    """Make one directory for this user alone, whatever the umask."""
    os.mkdir(folder, 0o700)
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder, flags)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise AddressError(
                path, f"user {found.st_uid} has put another directory in the place of {folder}"
            )
        if stat.S_IMODE(found.st_mode) & 0o777 != 0o700:  # a umask that takes the owner's own rights
            os.chmod(f"/proc/self/fd/{descriptor}" if hasattr(os, "O_PATH") else descriptor, 0o700)
    finally:
        os.close(descriptor)


def _check_way(path: str, folder: str) -> None:
    """Follow the way to a directory as the system does, so far as it is there.

    Raises:
        AddressError: It goes through a symbolic link, or a directory of another
            user, in a directory in which everybody may make one.
    """
    at, names, links = "/", folder.split("/"), 0
    while names:
        name = names.pop(0)
        here = os.path.join(at, name)
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            return
        is_shared = os.stat(at).st_mode & stat.S_IWOTH
        if stat.S_ISLNK(found.st_mode):
            if is_shared:
                raise AddressError(
                    path, f"{here} is a symbolic link in a directory of everybody, and none is followed there"
                )
            links += 1
            if links > MAX_LINKS:
                raise AddressError(path, "its symbolic links go round in a circle")
            target = os.readlink(here)
            names = target.split("/") + names
            at = "/" if target.startswith("/") else at
            continue
        if is_shared and found.st_uid not in (0, os.geteuid()):
            raise AddressError(
                path, f"{here} belongs to user {found.st_uid}; name a path in a directory of your own"
            )
        at = os.path.normpath(here)


def _new_socket(path: str) -> socket.socket:
    if not hasattr(socket, "AF_UNIX") or fcntl is None:
        raise AddressError(path, "this system has no Unix sockets; use the store in one process")
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise AddressError(path, f"the path has {size} bytes, and a socket's at most {MAX_PATH_BYTES}")
    if "\0" in path:
        raise AddressError(path, "the path holds a NUL")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
