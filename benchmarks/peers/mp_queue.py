"""`multiprocessing.Queue`, and at its other end a process that applies what comes to a state of `state.py`.

Measured: a `put` for each line, or for each chunk of lines, and a mark at the end, which is answered through
a pipe once all before it has been applied. Lines go as bytes and are decoded over there: events would be
pickled and unpickled, which takes half as long again. Nothing else uses the state, so there is no lock around
it. A `SimpleQueue`, whose `put` writes to the pipe itself, is neither faster nor slower here.

Not there: everything that `state.py` leaves out, and what a connection brings. The queue is not bounded, as
one that is takes a semaphore more for each item; nobody hears what became of an item but for the mark at the
end; a process that was not started from this one cannot take part; what comes is unpickled. A producer that
is killed while it writes leaves the queue broken for all.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from actorstore import Event

from .state import REJECTIONS, State, Totals, decode_pieces, totals_of


class QueueStore:
    """A queue, and the process that reads it.

    Args:
        chunks: Whether an item is many lines; else it is one.
    """

    def __init__(self, *, chunks: bool) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._queue: Any = spawn.Queue()
        self._back, there = spawn.Pipe(duplex=False)
        self._process = spawn.Process(target=_consume, args=(self._queue, there, chunks), daemon=True)
        self._process.start()
        there.close()
        self.put = self._queue.put
        """Hand over an item, bytes."""

    def flush(self) -> int:
        """Wait until all that was handed over has been applied; returns how many events were accepted.

        The first one also waits for the process to have started.
        """
        version: int = self._ask("version")
        return version

    def totals(self) -> Totals:
        """Return what this peer ended up with."""
        totals: Totals = self._ask("totals")
        return totals

    def close(self) -> None:
        """End the process."""
        self.put("end")
        self._queue.close()
        self._queue.join_thread()
        self._process.join()
        self._process.close()
        self._back.close()

    def _ask(self, what: str) -> Any:
        self.put(what)
        return self._back.recv()


def _consume(queue: Any, back: Connection, chunks: bool) -> None:
    state = State()
    decoder = msgspec.json.Decoder(Event)
    get, apply = queue.get, state.apply
    while True:
        item = get()
        if item.__class__ is str:
            if item == "end":
                return
            whole = item == "totals"
            back.send(totals_of(state.snapshot().units, state.version) if whole else state.version)
        elif chunks:
            for events, rejected in decode_pieces(decoder, item):
                state.apply_all(events, rejected)
        else:
            try:
                apply(decoder.decode(item))
            except REJECTIONS:
                state.rejected += 1
