"""What the actor hands to whoever makes events durable, and what it hears back.

Pure. The journal's writer is one keeper, a list in a test another; the actor
knows neither files nor threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from actorstore.account import Account
from actorstore.answers import JournalStats, Rejection
from actorstore.batch import NOBODY, Count, Farewell, Link, Step
from actorstore.checkpoint import Frozen
from actorstore.errors import StoreFailedError
from actorstore.event import Event


class Entry:
    """Events that were taken in together, and are applied once they are durable."""

    __slots__ = ("account", "data", "events", "farewell", "lines", "rejected", "rejections")

    def __init__(
        self,
        account: Account,
        events: list[Event],
        data: bytes,
        lines: int = 0,
        rejections: list[Rejection] | None = None,
        untold: int = 0,
        *,
        farewell: bool = False,
    ) -> None:
        self.account = account
        self.events = events
        self.data = data  # the lines of the events, as they came
        self.lines = lines  # of the account: events, rejected and blank ones
        self.rejections = rejections or []
        self.rejected = len(self.rejections) + untold  # lines that were refused
        self.farewell = farewell  # whether the producer of the account is forgotten

    def steps(self) -> tuple[Step, ...]:
        """Return what happens to the account."""
        producer = self.account.producer
        if producer is None:
            return (Count(NOBODY, 0, len(self.events), 0),) if self.events else ()
        if self.farewell:
            return (Farewell(producer),)
        return (Count(producer, self.lines, len(self.events), self.rejected),)


class Committed(NamedTuple):
    """How far the entries are durable."""

    entries: int
    """How many, of those appended."""
    place: Link
    """Where the last of them stands; no entry is half before it."""


class Keeper(Protocol):
    """Makes entries durable, in the order in which they are appended; used by the actor's thread alone."""

    @property
    def committed(self) -> Committed:
        """How far the entries are durable."""

    @property
    def trouble(self) -> str | None:
        """Why nothing is made durable just now, where that is so; it goes on by itself."""

    @property
    def failure(self) -> StoreFailedError | None:
        """Why nothing will be made durable any more, where that is so."""

    def attach(self, wake: Callable[[], None]) -> None:
        """Say how to wake the actor when any of the three above has changed."""

    def append(self, entry: Entry) -> None:
        """Have an entry made durable; does not wait."""

    def is_full(self) -> bool:
        """Whether so much lies here that nothing more ought to be taken in."""

    def wants_checkpoint(self) -> bool:
        """Whether a checkpoint would be welcome."""

    def checkpoint(self, place: Link, frozen: Frozen, accounts: list[Count]) -> None:
        """Keep the state as it is at a place, and the accounts with it."""

    def stats(self) -> JournalStats:
        """Return how the journal is doing."""

    def finish(self) -> None:
        """Wait until all that was appended is durable, or cannot be; then let go of the file."""

    def abandon(self) -> None:
        """Let go of the file soon; what is not durable yet need not become so."""
