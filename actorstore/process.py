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
        folder = None if listen is not None else tempfile.mkdtemp(prefix="actorstore-")
        path = os.path.abspath(os.fspath(listen)) if listen is not None else f"{folder}/store.sock"
        spawn = multiprocessing.get_context("spawn")
        here, there = spawn.Pipe()
        options = {
            "listen": path,
            "journal": None if journal is None else os.path.abspath(os.fspath(journal)),
            "durability": durability,
            "max_line_bytes": max_line_bytes,
        }
        process = spawn.Process(target=_serve, args=(there, options, folder), daemon=True)
        self._process, self._here = process, here
        self._end = weakref.finalize(self, _end, process, here, folder, os.getpid())
        _alive.add(self)
        try:
            process.start()
            there.close()
            self.remote = _connect(here, path)
        except BaseException:
            self._end()
            raise

    @property
    def pid(self) -> int | None:
        """Process id of the child."""
        return self._process.pid

    def close(self, timeout: float | None = None) -> None:
        """Send all that was handed over, and stop the child; closing again does nothing.

        Args:
            timeout: Seconds to wait for the acks, as for `RemoteStore.close`.
        """
        try:
            self.remote.close(timeout)
        finally:
            self._end()

    def _leave_behind(self) -> None:
        """In a forked child: let go of the parent's pipe and child, which this must neither hold nor end."""
        self._here.close()
        multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]

    def __enter__(self) -> RemoteStore:
        return self.remote

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<StoreProcess {self.pid} at {self.remote.address}>"


def _connect(here: Connection, path: str) -> RemoteStore:
    """Wait for the child's word, and connect."""
    try:
        word = here.recv_bytes() if here.poll(START_SECONDS) else b""
    except EOFError:
        word = b""
    if not word:
        raise ActorStoreError(
            "the child process of the store did not start; a script that makes one has to be a file, and its "
            'main code to stand under if __name__ == "__main__":'
        )
    told = json.loads(word)
    if told:
        name, args = told
        raise _ERRORS[name](*args)
    return connect(path)


def _end(process: BaseProcess, here: Connection, folder: str | None, owner: int) -> None:
    if os.getpid() != owner:
        return
    here.close()  # at which the child ends
    if process.pid is not None:
        process.terminate()  # for the case that another process holds that end too
        process.join(STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


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
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it closes, and nothing interrupts that
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)  # the parent may be gone


class _Stopped(BaseException):
    """SIGTERM."""


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise _Stopped


_alive: weakref.WeakSet[StoreProcess] = weakref.WeakSet()


def _leave_behind() -> None:
    for process in list(_alive):
        process._leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)
