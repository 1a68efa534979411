"""`multiprocessing.Manager`: the state of `lock.py` in a manager's process, called through a proxy object.

Measured: a call for each line, or for each chunk of lines, from bytes in the caller's hand to the answer, at
which the lines have been applied. What is called has been registered, so that it runs beside the state; the
calls go through the proxy's `_callmethod`, which spares the method that the proxy would make of its name.
Lines go as bytes and are decoded over there: events would be pickled and unpickled, which takes a quarter
longer.

Not there: everything that `lock.py` leaves out, and what a connection brings. A caller waits out each call
(that is its back-pressure), and nobody but a child, or who was given the manager's key, can connect; what
comes is unpickled, so whoever can connect can run anything. A call that is lost is not made again.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.managers import BaseManager
from typing import Any

import msgspec

from actorstore import Event

from .lock import LockedStore
from .state import Totals


class Served(LockedStore):
    """What lives in the manager's process; each caller has a thread there, hence the lock."""

    def __init__(self) -> None:
        super().__init__()
        self._line = msgspec.json.Decoder(Event)

    def handle_line(self, line: bytes) -> None:
        """Decode and apply one line."""
        self.handle_event(self._line.decode(line))


class Manager(BaseManager):
    """Has one thing to offer."""


Manager.register("Served", Served)


class ManagerStore:
    """A manager's process, and the proxy of the state in it."""

    def __init__(self) -> None:
        self._manager = Manager(ctx=multiprocessing.get_context("spawn"))
        self._manager.start()
        proxy: Any = self._manager.Served()  # type: ignore[attr-defined]
        self._call = proxy._callmethod

    def handle_line(self, line: bytes) -> None:
        """Have one line applied."""
        self._call("handle_line", (line,))

    def handle_lines(self, lines: bytes) -> None:
        """Have a chunk of lines applied."""
        self._call("handle_lines", (lines,))

    def totals(self) -> Totals:
        """Return what this peer ended up with."""
        totals: Totals = self._call("totals")
        return totals

    def close(self) -> None:
        """End the process."""
        del self._call
        self._manager.shutdown()
