"""Intake: the hand-over to the actor, and what is refused before it gets there.

Lines are handed over as bytes, and decoded where they are applied: events that
one core has decoded and another one applies cost twice as much, because each of
them crosses from cache to cache. Only a line that is longer than a chunk, such
as a large graph, is decoded by its producer, so that nobody waits behind it.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias

import msgspec

from actorstore.account import Account
from actorstore.answers import Rejection
from actorstore.errors import (
    ActorThreadError,
    ForkedStoreError,
    InvalidEventError,
)
from actorstore.event import Event
from actorstore.handover import Handover
from actorstore.payload import open_payload
from actorstore.text import clean
from actorstore.throttle import Throttle
from actorstore.wire import CHUNK_BYTES, MAX_LINE_BYTES, SHOWN_CHARS, Chunk, decode

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


class Intake(Handover[Item]):
    """The list between producers and the actor, and what was refused before it got there.

    Args:
        max_line_bytes: Longest line, or payload and error of an event, that is taken.
        keeps_lines: Whether events are needed as the lines that they would be, too.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES, *, keeps_lines: bool = False) -> None:
        super().__init__()
        self.max_line_bytes = max_line_bytes
        self.keeps_lines = keeps_lines
        self.waiting = 0  # events that are taken, and wait for a journal
        self.here = Account()  # of all callers in this process
        self.rejected = 0
        self._rejections: deque[Rejection] = deque(maxlen=KEPT_REJECTIONS)
        self.owner = os.getpid()
        self.forked = False
        self.actor_thread: threading.Thread | None = None
        self._throttle = Throttle()
        _intakes.add(self)

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
            self.reject_event(Rejection(clean(error.reason, SHOWN_CHARS), clean(repr(event), SHOWN_CHARS)))
            return False
        if self.keeps_lines and ready is not event:
            line = msgspec.json.encode(event) + b"\n"  # as the rule's own types would not write it
            chunk = Chunk([ready], [], 0, line)
            return self.append(Lines(chunk, self.here), len(line), is_event=False)
        return self.append(ready, size, is_event=True)

    def put_chunk(self, chunk: bytes) -> bool:
        """Hand one chunk of lines over, as `actorstore.wire.chunks` cuts them.

        Returns:
            Whether intake is full now, so that the producer ought to wait.
        """
        self.check_open()
        data = chunk if len(chunk) <= CHUNK_BYTES else decode(chunk, self.max_line_bytes)
        return self.append(Lines(data, self.here), len(chunk), is_event=False)

    def put_lines(self, lines: Lines, size: int) -> bool:
        """Hand lines over that are on somebody's account.

        Args:
            lines: A chunk of at most `CHUNK_BYTES`, or what `decode` has made of a longer one.
            size: How many bytes they have.

        Returns:
            Whether intake is full now, so that the producer ought to wait.
        """
        self.check_open()
        return self.append(lines, size, is_event=False)

    def wait_for_room(self) -> None:
        """Wait until the actor lets this producer in."""
        self.check_thread()
        super().wait_for_room()

    def reject_event(self, rejection: Rejection) -> None:
        """Refuse an event of a caller in this process."""
        with self._lock:
            self.here.rejected += 1
        self.reject(rejection)

    def reject(self, rejection: Rejection) -> None:
        """Count a rejection, keep it for `stats()`, and log it, at most one a second."""
        self.reject_lines([rejection])

    def reject_lines(self, rejections: Sequence[Rejection], untold: int = 0) -> None:
        """Count rejections, keep the last few for `stats()`, and log one a second at most.

        Args:
            rejections: One or more.
            untold: How many there were besides.
        """
        count = len(rejections) + untold
        rejection = rejections[0]
        with self._lock:
            self.rejected += count
            self._rejections.extend(rejections[-KEPT_REJECTIONS:])
            more = self._throttle.lets_through(count)
            if more is None:
                return
        place = "an event" if rejection.line is None else f"line {rejection.line}"
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
        super().check_open()

    def check_thread(self) -> None:
        """Raise where waiting for the actor would be the actor waiting for itself."""
        if threading.current_thread() is self.actor_thread:
            raise ActorThreadError

    def pending(self) -> int:
        """Count the events that are not applied yet; a line counts as one before it is looked at."""
        return self.waiting + sum(map(_events_in, self.items.copy()))

    def _wake(self, item: Item) -> None:
        if self.forked:
            self.items.remove(item)
            raise ForkedStoreError(self.owner)
        super()._wake(item)


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
        intake.items.clear()  # which are the parent's to apply


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)
