"""A store in a child process: nobody else's code shares its interpreter, and it ends with its parent."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.process
import os
import shutil
import signal
import tempfile
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

from actorstore import endings
from actorstore.address import Address
from actorstore.errors import (
    ActorStoreError,
    AddressError,
    JournalDamagedError,
    JournalError,
    JournalFailedError,
    JournalInUseError,
    SocketInUseError,
)
from actorstore.remote import RemoteStore, connect
from actorstore.shelter import sheltered
from actorstore.wire import MAX_LINE_BYTES

START_SECONDS: Final = 30.0
"""How long the child may take to start."""

STOP_SECONDS: Final = 5.0
"""How long the child may take to stop before it is killed."""

_ERRORS: Final = {
    error.__name__: error
    for error in (
        AddressError,
        SocketInUseError,
        JournalError,
        JournalInUseError,
        JournalDamagedError,
        JournalFailedError,
        ValueError,
    )
}


class StoreProcess:
    """A store in a child process, which is spawned; use it in a `with` statement to get its `RemoteStore`.

    Like all that spawns, it needs `if __name__ == "__main__":` around the code
    of a script that makes one. The child ends when this is closed, and when
    this process ends in whatever way.

    Args:
        listen: Path of the store's socket; one that only this user finds, where not given.
        journal: Path of a file that keeps every accepted event.
        durability: What a loss of power may lose, as for `Store`.
        max_line_bytes: Longest line that is taken, in bytes.

    Raises:
        SocketInUseError: Another store listens there.
        AddressError: Nothing can listen there.
        JournalError: The journal cannot be opened.
        ActorStoreError: The child did not start.

    Attributes:
        remote: The `RemoteStore` that leads to it.
    """

    def __init__(
        self,
        *,
        listen: Address | None = None,
        journal: Address | None = None,
        durability: str = "lose-nothing",
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self._child = _Child(
            {
                "listen": None if listen is None else os.path.abspath(os.fspath(listen)),
                "journal": None if journal is None else os.path.abspath(os.fspath(journal)),
                "durability": durability,
                "max_line_bytes": max_line_bytes,
            }
        )
        self._forgotten = weakref.finalize(self, self._child.end)
        self._forgotten.atexit = False  # it would come before what is left is sent
        try:
            sheltered(self._child.start, self._child.give_up)
            self.remote = self._child.remote
        except BaseException:
            self._child.give_up()  # whatever has come in between
            raise

    @property
    def pid(self) -> int | None:
        """Process id of the child."""
        return self._child.process.pid

    def close(self, timeout: float | None = None) -> None:
        """Send all that was handed over, and stop the child; closing again does nothing.

        Args:
            timeout: Seconds to wait for the acks, as for `RemoteStore.close`.
        """
        try:
            self.remote.close(timeout)
        finally:
            self._child.end()

    def __enter__(self) -> RemoteStore:
        return self.remote

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<StoreProcess {self.pid} at {self.remote.address}>"


class _Child:
    """The child process, and what leads to it; nothing, until `start`.

    Args:
        options: What its `Store` is made with; it listens in a folder of its own, where no path is given.
    """

    process: BaseProcess
    remote: RemoteStore

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._owner = os.getpid()
        self._folder: str | None = None
        self._here: Connection | None = None
        self._is_connected = False

    def start(self) -> None:
        """Start it, and connect; leaves nothing behind where that fails."""
        try:
            if self._options["listen"] is None:
                self._folder = tempfile.mkdtemp(prefix="actorstore-")
                self._options["listen"] = f"{self._folder}/store.sock"
            spawn = multiprocessing.get_context("spawn")
            here, there = spawn.Pipe()
            args = (there, self._options, self._folder)
            self.process = spawn.Process(target=_serve, args=args, daemon=True)
            self._here = here
            _alive.add(self)
            with there:
                self.process.start()
            self._wait()
            self.remote = connect(self._options["listen"])
            self._is_connected = True
        except BaseException:
            self.end()
            raise

    def _wait(self) -> None:
        """Wait for the child's word."""
        here = self._here
        assert here is not None
        try:
            word = here.recv_bytes() if here.poll(START_SECONDS) else b""
        except EOFError:
            word = b""
        if not word:
            raise ActorStoreError(
                "the child process of the store did not start; a script that makes one has to be a file, and "
                'its main code to stand under if __name__ == "__main__":'
            )
        told = json.loads(word)
        if told:
            name, args = told
            raise _ERRORS[name](*args)

    def give_up(self) -> None:
        """End it, and what leads to it, before anybody has used them."""
        if self._is_connected:
            self.remote.close(timeout=0)
        self.end()

    def end(self) -> None:
        """End it, and wait for that; ending again does nothing."""
        if os.getpid() != self._owner:
            return
        if self._here is not None:
            self._here.close()  # at which the child ends
            if self.process.pid is not None:
                self.process.terminate()  # for the case that another process holds that end too
                self.process.join(STOP_SECONDS)
                if self.process.is_alive():
                    self.process.kill()
                    self.process.join()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def leave_behind(self) -> None:
        """In a forked child: let go of the parent's pipe and child, which this must neither hold nor end."""
        if self._here is not None:
            self._here.close()
            multiprocessing.process._children.discard(self.process)  # type: ignore[attr-defined]


def _serve(there: Connection, options: dict[str, Any], folder: str | None) -> None:
    """Be the child: listen until the parent lets go of its end."""
    from actorstore.store import Store

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    signal.signal(signal.SIGTERM, _stop)
    with suppress(_Stopped):
        try:
            store = Store(**options)
        except tuple(_ERRORS.values()) as error:
            there.send_bytes(json.dumps([type(error).__name__, error.args]).encode())
            return
        with store, suppress(EOFError, OSError, _Stopped):
            try:
                there.send_bytes(b"null")
                there.recv_bytes()
            finally:
                signal.signal(signal.SIGTERM, _ignore)  # it closes, and nothing interrupts that
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)  # the parent may be gone


class _Stopped(BaseException):
    """SIGTERM."""


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, _ignore)  # once is enough
    raise _Stopped


def _ignore(*_: object) -> None:
    """Take a signal that is on its way: over SIG_IGN, Python complains of such a one on standard error."""


_alive: weakref.WeakSet[_Child] = weakref.WeakSet()


def _leave_behind() -> None:
    for child in list(_alive):
        child.leave_behind()


def _end_children() -> None:
    for child in list(_alive):
        child.end()


endings.do_last(_end_children)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)
