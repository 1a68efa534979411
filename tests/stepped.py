"""A listening store whose threads, journal and sockets are stepped by hand.

The actor, the server's loop and the connections are the real ones; nothing runs
unless a test says so. The journal is a list that commits when it is told to,
and the kernel's socket buffers are two byte arrays.

Reading order: `Journal`, `Wire`, `SteppedStore`.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import Any

from actorstore.actor import Board, Origin, StoreActor
from actorstore.answers import JournalStats
from actorstore.batch import Count, Link, follow, pack, start
from actorstore.checkpoint import Frozen
from actorstore.connection import Connection
from actorstore.errors import StoreFailedError
from actorstore.intake import Intake
from actorstore.keeper import Committed, Entry
from actorstore.mailbox import Mailbox
from actorstore.recovery import Fold
from actorstore.server import Server, _Gate
from actorstore.state import State

STORE = "s"


class Journal:
    """A keeper that makes entries durable when it is told to; what is durable outlives the store.

    Args:
        full_entries: How many entries may wait before it is full.
    """

    def __init__(self, full_entries: int) -> None:
        self._full_entries = full_entries
        self.fold = Fold("j", State(STORE), {}, start(STORE))
        self.lines: list[bytes] = []
        self.open()

    def open(self) -> None:
        """Begin anew with what is durable."""
        self._waiting: deque[Entry] = deque()
        self.committed = Committed(0, self.fold.place)
        self.trouble: str | None = None
        self.failure: StoreFailedError | None = None
        self._wake: Callable[[], None] = lambda: None

    def attach(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def append(self, entry: Entry) -> None:
        self._waiting.append(entry)

    def is_full(self) -> bool:
        return len(self._waiting) >= self._full_entries

    def stall(self) -> None:
        """Say that nothing can be written for now."""
        if self.trouble is None:
            self.trouble = "no space"
            self._wake()

    def commit(self, entries: int) -> None:
        """Make so many entries durable."""
        was_stalled, self.trouble = self.trouble is not None, None
        taken = [self._waiting.popleft() for _ in range(min(entries, len(self._waiting)))]
        steps = [step for entry in taken for step in entry.steps()]
        data = b"".join([entry.data for entry in taken])
        events = sum([len(entry.events) for entry in taken])
        if events or steps:
            self.fold.add(follow(self.fold.place, events, pack(steps), data))
            self.lines += data.splitlines()
        self.committed = Committed(self.committed.entries + len(taken), self.fold.place)
        if taken or was_stalled:
            self._wake()

    def origin(self) -> Origin:
        """Return what a store that is opened here starts from."""
        fold = Fold("j", State(STORE), {}, start(STORE))
        data = b"".join([line + b"\n" for line in self.lines])
        fold.add(follow(fold.place, len(self.lines), b"", data))
        accounts = {id: type(known)(id, known.lines, known.accepted, known.rejected, known.unknown_units)
                    for id, known in self.fold.accounts.items()}  # fmt: skip
        return Origin(fold.state, accounts)

    def wants_checkpoint(self) -> bool:
        return False

    def checkpoint(self, place: Link, frozen: Frozen, accounts: list[Count]) -> None:
        raise AssertionError("no checkpoint is wanted")

    def stats(self) -> JournalStats:
        return JournalStats("j", "lose-nothing", 0, 0, 0, self.trouble)

    def finish(self) -> None:
        self.commit(len(self._waiting))

    def abandon(self) -> None:
        self._waiting.clear()


class Wire:
    """A connection, and the bytes on their way to both of its ends; its transport, for the server."""

    def __init__(self, server: Server) -> None:
        self._to_store = bytearray()
        self._to_client = bytearray()
        self._is_read = True
        self._has_ended = False  # the client has closed its end
        self._is_closing = False  # the store has
        self._is_lost = False
        self.end = Connection(server)
        self.end.connection_made(self)  # type: ignore[arg-type]

    # The client's side.

    def write(self, data: bytes) -> None:
        """Write to whichever end is the other one: called by the connection."""
        if not self._is_closing:
            self._to_client += data

    def send(self, data: bytes) -> None:
        """Write as the client."""
        if not self._is_lost:
            self._to_store += data

    def hang_up(self) -> None:
        """End as the client, killed or closed: what is sent is still on its way."""
        self._has_ended = True

    def receive(self, most: int) -> bytes:
        """Read as the client."""
        data = bytes(self._to_client[:most])
        del self._to_client[:most]
        return data

    @property
    def is_over(self) -> bool:
        """Whether the store has closed it, and all was read."""
        return (self._is_lost or self._is_closing) and not self._to_client

    # The kernel's.

    def deliver(self, most: int) -> bool:
        """Hand so many bytes to the store's end, or the end of them; `False` where there is nothing to do."""
        if self._is_lost:
            return False
        if self._is_closing:
            self._is_lost = True
            self.end.connection_lost(None)
            return True
        if self._to_store and self._is_read:
            data = bytes(self._to_store[:most])
            del self._to_store[:most]
            self.end.data_received(data)
            return True
        if self._has_ended and not self._to_store and self._is_read:
            self._is_read = False
            self._is_closing = not self.end.eof_received()
            return True
        if self._has_ended and not self._to_store:  # the loop's look after it finds it hung up
            self._is_closing = True
            return True
        return False

    def kill(self) -> None:
        """End with the store's process."""
        self._is_lost = True

    # The store's.

    def pause_reading(self) -> None:
        self._is_read = False

    def resume_reading(self) -> None:
        self._is_read = True

    def close(self) -> None:
        self._is_closing = True

    abort = close

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, _: str) -> None:
        return None


class _Loop:
    def __init__(self, posted: deque[Callable[[], None]]) -> None:
        self._posted = posted

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._posted.append(callback)

    def call_later(self, _: float, __: Callable[[], None]) -> None:
        """Never: no time passes."""


class _SteppedServer(Server):
    def __init__(self, intake: Intake, mailbox: Mailbox) -> None:
        self.intake = intake
        self.mailbox = mailbox
        self.past = None
        self._posted = deque()
        self._loop = _Loop(self._posted)  # type: ignore[assignment]
        self._is_awake = True  # nothing wakes a loop that is stepped
        self._is_closing = False
        self.background: deque[tuple[Callable[[], object], Callable[[Any], None]]] = deque()
        self._connections = set()
        self._sockets = set()
        self._owners = {}
        self._waiting = deque()
        self._unfinished = {}
        self._decoders = self._encoders = None  # type: ignore[assignment]
        self._gate = _Gate(self)
        self._is_queued = self._is_admitting = False

    def welcome(self, connection: Connection, _: Any) -> None:
        self._connections.add(connection)

    def part(self, _: Any) -> None:
        """Nothing is counted."""

    def _do_beside(
        self, _: Any, connection: Connection, work: Callable[[], object], then: Callable[[Any], None]
    ) -> None:
        self.background.append((work, then))

    def is_hung_up(self, _: Any) -> bool:
        return False  # `Wire.deliver` tells


class SteppedStore:
    """A store with a journal that listens; each step is taken when a test says so.

    Args:
        journal: What it starts from, and keeps its events in.
    """

    def __init__(self, journal: Journal) -> None:
        journal.open()
        self.journal = journal
        self._intake = Intake(keeps_lines=True)
        self.actor = StoreActor(self._intake, Board(), journal.origin(), journal)
        self.actor._intake.actor_thread = None
        mailbox = Mailbox.__new__(Mailbox)
        mailbox._intake, mailbox._keeper = self._intake, journal
        mailbox._board, mailbox._ref = self.actor._board, self.actor.actor_ref  # type: ignore[assignment]
        self.server = _SteppedServer(self._intake, mailbox)

    def connect(self) -> Wire:
        """Open a connection."""
        return Wire(self.server)

    def step_actor(self) -> bool:
        """Have the actor handle its next message; `False` where there is none."""
        try:
            envelope = self.actor.actor_inbox.get_nowait()
        except queue.Empty:
            return False
        self.actor.on_receive(envelope.message)
        return True

    def step_loop(self) -> bool:
        """Have the loop run its next callback; `False` where there is none."""
        if not self.server._posted:
            return False
        self.server._posted.popleft()()
        return True

    def step_background(self) -> bool:
        """Do the next thing that takes long; `False` where there is none."""
        if not self.server.background:
            return False
        work, then = self.server.background.popleft()
        result = work()
        self.server.post(lambda: then(result))
        return True

    @property
    def connections(self) -> int:
        """How many connections the server has not let go of."""
        return len(self.server._connections)
