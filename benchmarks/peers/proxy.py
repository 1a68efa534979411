"""A plain pykka actor with the same state as `lock.py`, called through its proxy, one message an event.

Measured: `proxy.handle_event.defer(event)` for each event, which tells and makes no future; calling without
`get()` takes about twice as long, because each call makes a future that nobody reads. `flush` is one
question at the end: pykka's inbox keeps the order, so its answer comes after all events. A snapshot is a
question too.

Not there: everything that `state.py` leaves out, and bounded intake. The inbox grows as fast as it is fed,
so the time of the feeding alone says nothing: time the `flush` as well.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pykka

from actorstore import Event

from .state import Snapshot, State, Totals, decode_pieces, totals_of


class ProxyActor(pykka.ThreadingActor):
    """One run, owned by an actor."""

    def __init__(self) -> None:
        super().__init__()
        self._state = State()
        self._decoder = msgspec.json.Decoder(Event)

    def handle_event(self, event: Event) -> None:
        self._state.apply(event)

    def handle_lines(self, data: bytes) -> None:
        for events, rejected in decode_pieces(self._decoder, data):
            self._state.apply_all(events, rejected)

    def snapshot(self) -> Snapshot:
        return self._state.snapshot()

    def version(self) -> int:
        return self._state.version


class ProxyStore:
    """The actor as its user holds it: started, the proxy's methods looked up once; `close` stops it."""

    def __init__(self) -> None:
        self._proxy: Any = ProxyActor.start().proxy()
        self.handle_event = self._proxy.handle_event.defer
        self.handle_lines = self._proxy.handle_lines.defer

    def flush(self) -> int:
        """Wait until all that was handed over has been applied; returns how many events were accepted."""
        version: int = self._proxy.version().get()
        return version

    def snapshot(self) -> Snapshot:
        """Return a copy of the run, after all that was handed over before."""
        snapshot: Snapshot = self._proxy.snapshot().get()
        return snapshot

    def totals(self) -> Totals:
        """Return what this peer ended up with."""
        snapshot = self.snapshot()
        return totals_of(snapshot.units, snapshot.version)

    def close(self) -> None:
        """Apply what was handed over, then stop the actor."""
        self._proxy.stop()
