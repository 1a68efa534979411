"""Hand-over: where producers leave events and the actor takes them, many at a time.

Everything lies in one plain list. A producer appends, which is atomic, and goes
on; the actor cuts the whole list off, which is atomic too. Only the first event
after a pause costs a message to the actor, so a thousand of them cost one, and
that is what makes an actor faster than a lock. One list for all producers keeps
the order in which they handed over.

Lines are handed over as bytes, and decoded where they are applied: events that
one core has decoded and another one applies cost twice as much, because each of
them crosses from cache to cache. Only a line that is longer than a chunk, such
as a large graph, is decoded by its producer, so that nobody waits behind it.

Intake is bounded in events and in bytes. A producer that runs ahead waits, and
is let in again by the actor, one producer for each batch it has applied: waking
all of them would make all but the first wait again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias

from actorstore.account import Account
from actorstore.answers import Rejection
from actorstore.errors import (
    ActorThreadError,
    ForkedStoreError,
    InvalidEventError,
    StoreClosedError,
)
from actorstore.event import Event
from actorstore.payload import open_payload
from actorstore.reply import Receiver, Reply
from actorstore.text import clean
from actorstore.wire import CHUNK_BYTES, MAX_LINE_BYTES, SHOWN_CHARS, Chunk, decode

MAX_EVENTS: Final = 4096
"""Events that may lie here before producers wait. Behind as many a snapshot
waits some milliseconds, behind 65,536 over a hundred; a bound of 1,024 makes
producers and actor take turns four times as often (benchmarks/bench_latency.py)."""

MAX_BYTES: Final = 1 << 19
"""Bytes of lines, payloads and errors that may lie here before producers wait."""

KEPT_REJECTIONS: Final = 16
"""How many rejections `stats()` shows."""

logger = logging.getLogger("actorstore")


class Lines(NamedTuple):
    """Some lines, and on whose account they go."""

    data: bytes | Chunk
    """A chunk of lines as it came, or a long line that is decoded already."""
    account: Account
    """Whose they are."""
    lines: int = 0
    """How many, where somebody has counted them."""
    alike: bool = False
    """Whether somebody has found that they are (`actorstore.wire.are_alike`)."""


Item: TypeAlias = Event | Lines
"""What lies in the intake."""


class Intake:
    """The list between producers and the actor, and what was refused before it got there.

    Args:
        max_line_bytes: Longest line, or payload and error of an event, that is taken.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.max_line_bytes = max_line_bytes
        self.items: list[Item] = []
        self.asleep = True  # whether the next item costs a message; stays true once closed or forked
        self.idle = False  # whether all that was handed over is applied; never true while anything is not
        self.here = Account()  # of all callers in this process
        self.rejected = 0
        self._rejections: deque[Rejection] = deque(maxlen=KEPT_REJECTIONS)
        self.owner = os.getpid()
        self.forked = False
        self.closed: type[StoreClosedError] | None = None
        self.actor_thread: threading.Thread | None = None
        self._wake_actor: Callable[[], None] = _nobody
        self._lock = threading.Lock()
        self._bytes = 0
        self._chunks = 0  # items that are not events
        self._waiting: deque[Receiver] = deque()
        self._logged_at = -1.0
        self._unlogged = 0
        _intakes.add(self)

    # The producers' side.

    def put(self, event: Event) -> bool:
        """Hand one event over, whatever it carries.

        Returns:
            Whether intake is full now, so that the producer ought to wait.

        Raises:
            TypeError: It is not an `Event`.
        """
        self.check_open()
        if type(event) is not Event:
            raise TypeError(f"handle_event takes an actorstore.Event, not {type(event).__name__}")
        try:
            ready = open_payload(event)
            size = len(event.payload) + len(event.error)
            if size > self.max_line_bytes:
                raise InvalidEventError(
                    f"payload and error have {size} bytes; at most {self.max_line_bytes} are taken"
                )
        except InvalidEventError as error:
            reason = Rejection(clean(error.reason, SHOWN_CHARS), clean(repr(event), SHOWN_CHARS))
            self.reject(reason, self.here)
            return False
        with self._lock:
            self._bytes += size
            self.items.append(ready)
        return self.turn(ready)

    def put_chunk(self, chunk: bytes) -> bool:
        """Hand one chunk of lines over, as `actorstore.wire.chunks` cuts them.

        Returns:
            Whether intake is full now, so that the producer ought to wait.
        """
        self.check_open()
        data = chunk if len(chunk) <= CHUNK_BYTES else decode(chunk, self.max_line_bytes)
        return self.put_lines(Lines(data, self.here), len(chunk))

    def put_lines(self, lines: Lines, size: int) -> bool:
        """Hand lines over that are on somebody's account.

        Args:
            lines: A chunk of at most `CHUNK_BYTES`, or what `decode` has made of a longer one.
            size: How many bytes they have.

        Returns:
            Whether intake is full now, so that the producer ought to wait.
        """
        with self._lock:
            self._bytes += size
            self._chunks += 1
            self.items.append(lines)
        return self.turn(lines)

    def turn(self, item: Item) -> bool:
        """Follow up on an item that was appended, and say whether intake is full.

        Raises:
            StoreClosedError: The item came too late; it is not in the list any more.
            ForkedStoreError: This is a forked child.
        """
        if self.asleep:
            self._wake(item)
        return self.is_full()

    def wait_for_room(self) -> None:
        """Wait until the actor lets this producer in."""
        self.check_thread()
        reply = Reply()
        if self.queue_up(reply):
            try:
                reply.wait()
            finally:
                self.leave_queue(reply)

    def is_full(self) -> bool:
        """Whether a producer ought to wait before it hands more over."""
        return len(self.items) >= MAX_EVENTS or self._bytes >= MAX_BYTES

    def queue_up(self, receiver: Receiver) -> bool:
        """Wait in line for room; `False` where there is room already."""
        with self._lock:
            if self.closed or not self.is_full():
                return False
            self._waiting.append(receiver)
            return True

    def leave_queue(self, receiver: Receiver) -> None:
        """Go on, let in or interrupted, and have the actor look who waits behind.

        It lets one in for each batch, and this producer may not bring another.
        """
        with self._lock:
            if receiver in self._waiting:
                self._waiting.remove(receiver)
        if self._waiting and not self.closed:
            self._wake_actor()

    def reject(self, rejection: Rejection, account: Account) -> None:
        """Count a rejection, keep it for `stats()`, and log it, at most one a second."""
        with self._lock:
            self.rejected += 1
            account.rejected += 1
            self._rejections.append(rejection)
            now = time.monotonic()
            if 0 <= now - self._logged_at < 1:
                self._unlogged += 1
                return
            before, self._unlogged, self._logged_at = self._unlogged, 0, now
        place = "an event" if rejection.line is None else f"line {rejection.line}"
        more = f" ({before} more before it were not logged)" if before else ""
        with suppress(Exception):  # a handler of somebody else's, in the actor's thread
            logger.warning("rejected %s: %s: %s%s", place, rejection.reason, rejection.text, more)

    def last_rejections(self) -> tuple[Rejection, ...]:
        """Return the last few rejections, oldest first."""
        with self._lock:
            return tuple(self._rejections)

    def check_open(self) -> None:
        """Raise where nothing can be handed over or asked."""
        if self.forked:
            raise ForkedStoreError(self.owner)
        if self.closed:
            raise self.closed()

    def check_thread(self) -> None:
        """Raise where waiting for the actor would be the actor waiting for itself."""
        if threading.current_thread() is self.actor_thread:
            raise ActorThreadError

    def pending(self) -> int:
        """Count the events that lie here; a line counts as one before it is looked at."""
        return sum(map(_events_in, self.items.copy()))

    def _wake(self, item: Item) -> None:
        if self.forked:
            raise ForkedStoreError(self.owner)
        with self._lock:
            if self.closed:
                places = [place for place, other in enumerate(self.items) if other is item]
                if not places:
                    return  # the actor has taken it, as its last
                del self.items[places[-1]]
                raise self.closed()
            if not self.asleep:
                return
            self.asleep = self.idle = False
        self._wake_actor()

    # The actor's side.

    def attach(self, wake_actor: Callable[[], None]) -> None:
        """Say how to wake the actor; before anything is handed over."""
        self._wake_actor = wake_actor

    def take(self) -> tuple[list[Item], bool]:
        """Cut off all that lies here, and say whether it is events only."""
        with self._lock:
            return self._cut()

    def _cut(self) -> tuple[list[Item], bool]:
        items = self.items
        taken = items[:]
        del items[: len(taken)]
        only_events = not self._chunks
        self._bytes = self._chunks = 0
        return taken, only_events

    def let_in(self) -> None:
        """Let the producer in that has waited longest, and on to one that is sure to go on."""
        while self._waiting:
            with self._lock:
                receiver = self._waiting.popleft() if self._waiting else None
            if receiver is None or receiver.set(None):
                return

    def rest(self) -> bool:
        """Say that the actor goes to sleep; `False` where something has come in meanwhile.

        Whoever appends after `asleep` was set wakes the actor; whoever did before
        is found in the list. Only where nobody did, all is applied.
        """
        self.asleep = True
        with self._lock:
            if not self.asleep:
                return True  # and a message is on its way
            self.asleep = self.idle = not self.items
            return self.asleep

    def close(self, error: type[StoreClosedError]) -> tuple[list[Item], bool]:
        """Take nothing any more, and cut off what was handed over until now."""
        with self._lock:
            self.closed = self.closed or error
            self.asleep, self.idle = True, False
            self._wake_actor = _nobody
            waiting, self._waiting = self._waiting, deque()
            last = self._cut()
        for receiver in waiting:
            receiver.set(None)
        return last


def _nobody() -> None:
    """Wake nobody: there is no actor yet, or no more."""


def _events_in(item: Item) -> int:
    match item:
        case Lines(data):
            return data.count(b"\n") if isinstance(data, bytes) else len(data.events)
        case _:
            return 1


_intakes: weakref.WeakSet[Intake] = weakref.WeakSet()


def _leave_behind() -> None:
    """In a forked child there is no actor; every hand-over must find out."""
    for intake in _intakes:
        intake.forked = intake.asleep = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)
