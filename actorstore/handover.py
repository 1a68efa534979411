"""Hand-over: where many threads leave things and one takes them, many at a time.

Everything lies in one plain list. A producer appends, which is atomic, and goes
on; the taker cuts the whole list off, which is atomic too. Only the first thing
after a pause costs a message to the taker, so a thousand of them cost one, and
that is what makes an actor faster than a lock. One list for all producers keeps
the order in which they handed over.

It is bounded in things and in bytes. A producer that runs ahead waits, and is
let in again by the taker, one producer for each batch: waking all of them would
make all but the first wait again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from actorstore.errors import StoreClosedError
from actorstore.reply import Receiver, Reply

T = TypeVar("T")

MAX_ITEMS: Final = 4096
"""Things that may lie here before producers wait. Behind as many events a
snapshot waits some milliseconds, behind 65,536 over a hundred; a bound of 1,024
makes producers and actor take turns four times as often (benchmarks/bench_latency.py)."""

MAX_BYTES: Final = 1 << 19
"""Bytes of lines, payloads and errors that may lie here before producers wait."""


class Handover(Generic[T]):
    """The list between producers and their taker."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self.asleep = True  # whether the next thing costs a message; stays true once closed
        self.idle = False  # whether all that was handed over is dealt with; never true while anything is not
        self.closed: Callable[[], StoreClosedError] | None = None  # makes the error that says why
        self._wake_taker: Callable[[], None] = _nobody
        self._lock = threading.Lock()
        self._bytes = 0
        self._others = 0  # things that are not events
        self._waiting: deque[Receiver] = deque()

    # The producers' side.

    def append(self, item: T, size: int, *, is_event: bool) -> bool:
        """Hand over a thing of so many bytes.

        Returns:
            Whether this is full now, so that the producer ought to wait.
        """
        with self._lock:
            self._bytes += size
            self._others += not is_event
            self.items.append(item)
        return self.turn(item)

    def turn(self, item: T) -> bool:
        """Follow up on a thing that was appended, and say whether this is full.

        Raises:
            StoreClosedError: The thing came too late; it is not in the list any more.
        """
        if self.asleep:
            self._wake(item)
        return self.is_full()

    def is_full(self) -> bool:
        """Whether a producer ought to wait before it hands more over."""
        return len(self.items) >= MAX_ITEMS or self._bytes >= MAX_BYTES

    def wait_for_room(self) -> None:
        """Wait until the taker lets this producer in."""
        reply = Reply()
        try:
            if self.queue_up(reply):
                reply.wait()
        finally:
            self.leave_queue(reply)

    def queue_up(self, receiver: Receiver) -> bool:
        """Wait in line for room; `False` where there is room already."""
        with self._lock:
            if self.closed or not self.is_full():
                return False
            self._waiting.append(receiver)
            return True

    def leave_queue(self, receiver: Receiver) -> None:
        """Go on, let in or interrupted, and have the taker look who waits behind.

        It lets one in for each batch, and this producer may not bring another.
        """
        with self._lock:
            if receiver in self._waiting:
                self._waiting.remove(receiver)
        if self._waiting and not self.closed:
            self._wake_taker()

    def check_open(self) -> None:
        """Raise where nothing can be handed over."""
        if self.closed:
            raise self.closed()

    def _wake(self, item: T) -> None:
        with self._lock:
            if self.closed:
                if not self._withdraw(item):
                    return  # the taker has taken it, as its last
                raise self.closed()
            if not self.asleep:
                return
            try:
                self._wake_taker()  # before it counts as awake: an interruption may cost a second waking
            except BaseException:
                self._withdraw(item)
                raise
            self.asleep = self.idle = False

    def _withdraw(self, item: T) -> bool:
        """Take back what was appended last, and say whether it still lay here."""
        places = [place for place, other in enumerate(self.items) if other is item]
        if places:
            del self.items[places[-1]]
        return bool(places)

    # The taker's side.

    def attach(self, wake_taker: Callable[[], None]) -> None:
        """Say how to wake the taker; before anything is handed over."""
        self._wake_taker = wake_taker

    def take(self) -> tuple[list[T], bool]:
        """Cut off all that lies here, and say whether it is events only."""
        with self._lock:
            return self._cut()

    def _cut(self) -> tuple[list[T], bool]:
        items = self.items
        taken = items[:]
        del items[: len(taken)]
        only_events = not self._others
        self._bytes = self._others = 0
        return taken, only_events

    def let_in(self) -> None:
        """Let the producer in that has waited longest, and on to one that is sure to go on."""
        while self._waiting:
            with self._lock:
                receiver = self._waiting.popleft() if self._waiting else None
            if receiver is None or receiver.set(None):
                return

    def rest(self, *, is_done: bool = True) -> bool:
        """Say that the taker goes to sleep; `False` where something has come in meanwhile.

        Whoever appends after `asleep` was set wakes the taker; whoever did before
        is found in the list. Only where nobody did, all is dealt with.

        Args:
            is_done: Whether the taker has dealt with all that it took.
        """
        self.asleep = True
        with self._lock:
            if not self.asleep:
                return True  # and a message is on its way
            is_empty = not self.items
            self.idle = is_empty and is_done
            self.asleep = is_empty or self.closed is not None
            return is_empty

    def refuse(self, error: Callable[[], StoreClosedError]) -> None:
        """Have nothing more handed over, from now on; what lies here is still to be taken."""
        with self._lock:
            self.closed = self.closed or error
            self.asleep, self.idle = True, False
            waiting, self._waiting = self._waiting, deque()
        for receiver in waiting:
            receiver.set(None)

    def close(self, error: Callable[[], StoreClosedError]) -> tuple[list[T], bool]:
        """Take nothing any more, and cut off what was handed over until now."""
        with self._lock:
            self.closed = self.closed or error
            self.asleep, self.idle = True, False
            self._wake_taker = _nobody
            waiting, self._waiting = self._waiting, deque()
            last = self._cut()
        for receiver in waiting:
            receiver.set(None)
        return last


def _nobody() -> None:
    """Wake nobody: there is no taker yet, or no more."""
