"""A producer in a process of its own that writes down what it hands over and what it sees acked.

Three kinds. `remote` uses `RemoteStore`; `spooled` does so with a spool, and goes on where the one
before it with the same record was killed; `raw` speaks the protocol by hand, cuts
its bytes at random and keeps its own count, so that the two ends of the
protocol are not tested by the same code.

Its record holds, in the order in which it happened:

    ["is", name, kind, words]
    ["welcome", store, before]          met a store; it has nothing up to line `before`, which others acked
    ["again"]                           met the same store again (the raw kind says so)
    ["found", last]                     goes on behind this line: what was handed over before (with a spool)
    ["hand", last]                      about to hand over all lines up to this one
    ["kept", last]                      has handed them over (with a spool)
    ["ack", last]                       all lines up to this one are acked
    ["reject", number]                  the store says that this line is bad
    ["held", acked, version, last]      a snapshot asked for after an ack: its version, our last unit
    ["refused", error]                  the store takes nothing more from this producer
    ["done", accepted, rejected]        everything is acked; how the store counted it
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from actorstore import RemoteStore, StateSnapshot, UnknownRunError
from actorstore import spool as spooling
from actorstore.errors import RefusedError
from actorstore.ledger import Ledger
from actorstore.link import Link
from actorstore.protocol import Welcome
from actorstore.spool import Spool
from tests.chaos.record import Record
from tests.chaos.script import bad, events, lines

SECONDS: Final = 30
"""The longest that anything may take; `tests.threads` has the same, and takes long to import."""

REFUSED: Final = 3
"""The exit code of a producer that the store has refused."""

WINDOW: Final = 400
"""How many lines the raw kind sends ahead of their acks."""


@dataclass
class Plan:
    """What a producer does."""

    socket: str
    record: str
    name: str
    kind: str = "remote"
    words: str = "units"
    lines: int = 1000
    batch: int = 30
    seed: int = 1
    producer: str = ""
    """Its id; one of its own, where not given."""
    pause: float = 0.0
    """Seconds between batches, at most."""
    spool: str = ""
    """Its spool, where it has one."""
    looks: bool = True
    """Whether it looks at snapshots now and then."""
    hangs_up: float = 0.0
    """How often, of 1, the raw kind hangs up after a write and connects again, its lines under way."""


# With a RemoteStore.


class _Witness(Ledger):
    """A ledger that writes down what it hears."""

    record: Record
    met = ""
    before = 0
    """Lines that others have got acked under this id."""

    def resume(self, welcome: Welcome) -> None:
        if welcome.store != self.met:
            self.met = welcome.store
            self.record.write("welcome", welcome.store, self.before + self.acked)
        super().resume(welcome)

    def hear_ack(self, lines: int, unknown: int = 0) -> None:
        before = self.acked
        super().hear_ack(lines, unknown)
        if self.acked > before:
            self.record.write("ack", self.before + self.acked)


def witnessed(remote: RemoteStore, record: Record, producer: str = "") -> RemoteStore:
    """Have a store that is not used yet write down what it hears; the only place that knows its inside."""
    ledger = _Witness(producer or remote._link._ledger.producer)
    ledger.record = record
    remote._link._ledger = ledger
    return remote


def _feed_remote(plan: Plan, record: Record) -> None:
    drawn = random.Random(plan.seed)
    remote = witnessed(RemoteStore(plan.socket), record, plan.producer)
    handed = 0
    while handed < plan.lines:
        last = min(plan.lines, handed + drawn.randint(1, plan.batch))
        record.write("hand", last)
        remote.handle_lines(lines(plan.name, handed + 1, last, plan.words))
        handed = last
        if plan.words == "units" and plan.looks and drawn.random() < 0.02:
            acked = handed if remote.flush() else 0
            _look(plan, record, acked, lambda: remote.snapshot("", timeout=SECONDS))
        if plan.pause:
            time.sleep(plan.pause * drawn.random())  # so that it is met in the middle of its work
    result = remote.flush()
    record.write("done", result.accepted, result.rejected)
    remote.close()


def _feed_spooled(plan: Plan, record: Record) -> None:
    """Go on behind the lines that the store has acked, and those that were left; there is one store."""
    spooling.REWRITE_BYTES = 20_000  # type: ignore[misc]
    drawn = random.Random(plan.seed)
    spool = Spool(plan.spool)
    ledger = _Witness(spool.producer)
    ledger.record, ledger.met, ledger.before = record, spool.standing.store, spool.standing.lines
    ledger.inherit(spool.standing, spool.left)
    handed = ledger.before + ledger.handed
    record.write("found", handed)
    remote = RemoteStore.__new__(RemoteStore)
    remote._hold(Link(plan.socket, spool=spool))
    remote._link._ledger = ledger
    remote._link.send_left()
    while handed < plan.lines:
        last = min(plan.lines, handed + drawn.randint(1, plan.batch))
        record.write("hand", last)
        remote.handle_lines(lines(plan.name, handed + 1, last, plan.words))
        record.write("kept", last)
        handed = last
        if drawn.random() < 0.3:
            remote.flush()
        time.sleep(plan.pause * drawn.random())  # so that it is met in the middle of its work
    result = remote.flush()
    record.write("done", result.accepted, result.rejected)
    remote.close()


def _look(plan: Plan, record: Record, acked: int, snapshot: Callable[[], StateSnapshot]) -> None:
    """Write down what a snapshot holds that is asked for after an ack."""
    try:
        seen = snapshot()
    except UnknownRunError:
        return
    prefix = plan.name + "/"
    last = next((int(unit.id[len(prefix) :]) for unit in seen.units[::-1] if unit.id.startswith(prefix)), -1)
    record.write("held", acked, seen.version, last)


# By hand.


class _CutError(Exception):
    """The connection is lost."""


class _Hand:
    """A producer that knows the protocol and nothing of `RemoteStore`."""

    def __init__(self, plan: Plan, record: Record) -> None:
        self._plan = plan
        self._record = record
        self._drawn = random.Random(plan.seed)
        self._producer = plan.producer or f"{plan.name}-{plan.seed}"
        self._handed = 0
        self._acked = 0
        self._sent = 0
        self._store = ""
        self._shift = 0  # the store's count less ours
        self._rejected = 0
        self._tail = b""
        self._to_write = b""

    def feed(self) -> None:
        """Hand all lines over, whatever happens to the connection."""
        delay = 0.002
        while self._acked < self._plan.lines:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.settimeout(SECONDS)
                    connection.connect(self._plan.socket)
                    self._meet(connection)
                    delay = 0.002
                    self._exchange(connection)
            except (OSError, _CutError):
                time.sleep(delay)  # as a client does before it tries again
                delay = min(0.2, 2 * delay)
        name, acked = self._plan.name, self._acked
        self._record.write("done", events(name, 0, acked), bad(name, 0, acked))

    def _meet(self, connection: socket.socket) -> None:
        self._tail = self._to_write = b""
        hello = {"hello": {"producer": self._producer, "protocol": 1}}
        connection.sendall(json.dumps(hello).encode() + b"\n")
        while (welcome := self._read(connection)) is None:
            pass
        if welcome["store"] != self._store:
            self._store = welcome["store"]
            self._shift = welcome["lines"] - self._acked
            self._record.write("welcome", self._store, self._acked)
        else:
            self._record.write("again")
        self._hear_ack(welcome["lines"])
        self._sent = self._acked

    def _exchange(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        while self._acked < self._plan.lines:
            self._prepare()
            writes = [connection] if self._to_write else []
            readable, writable, _ = select.select([connection], writes, [], SECONDS)
            if readable:
                self._read(connection)
            if writable:
                part = self._to_write[: self._drawn.randint(1, 4000)]
                try:
                    self._to_write = self._to_write[connection.send(part) :]
                except (BrokenPipeError, ConnectionResetError):
                    self._hear_the_end(connection)
                if self._drawn.random() < self._plan.hangs_up:
                    raise _CutError
            if self._plan.pause:
                time.sleep(self._plan.pause * self._drawn.random())  # as above

    def _hear_the_end(self, connection: socket.socket) -> None:
        """Read what was said before the store closed: that is where it says not to come back."""
        connection.settimeout(SECONDS)
        while True:
            self._read(connection)

    def _prepare(self) -> None:
        if self._to_write or self._sent >= min(self._plan.lines, self._acked + WINDOW):
            return
        last = min(self._plan.lines, self._sent + self._drawn.randint(1, self._plan.batch))
        if last > self._handed:
            self._record.write("hand", last)
            self._handed = last
        self._to_write = lines(self._plan.name, self._sent + 1, last, self._plan.words)
        self._sent = last

    def _read(self, connection: socket.socket) -> Any:
        """Read what is there; returns the welcome, if that is among it."""
        data = connection.recv(1 << 16)
        if not data:
            raise _CutError
        *whole, self._tail = (self._tail + data).split(b"\n")
        welcome = None
        for line in whole:
            message = json.loads(line)
            welcome = message.get("welcome", welcome)
            if "ack" in message:
                self._hear_ack(message["ack"]["lines"])
            elif "reject" in message:
                self._record.write("reject", message["reject"]["line"] - self._shift)
            elif "error" in message:
                if message["error"]["code"] == "closed":
                    raise _CutError
                raise RefusedError(message["error"]["code"], message["error"]["message"])
        return welcome

    def _hear_ack(self, count: int) -> None:
        acked = count - self._shift
        if acked > self._handed:
            raise RefusedError(
                "producer_conflict", f"{acked} lines are acked, and {self._handed} handed over"
            )
        if acked > self._acked:
            self._acked = acked
            self._record.write("ack", acked)


def main(plan: Plan) -> int:
    """Be the producer, and return its exit code."""
    record = Record(plan.record)
    record.write("is", plan.name, plan.kind, plan.words)
    try:
        if plan.kind == "raw":
            _Hand(plan, record).feed()
        elif plan.kind == "spooled":
            _feed_spooled(plan, record)
        else:
            _feed_remote(plan, record)
    except RefusedError as error:
        record.write("refused", type(error).__name__, error.code)
        return REFUSED
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Plan(**json.loads(sys.argv[1]))))
