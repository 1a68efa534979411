"""Accounts: what each producer has handed over in lines, and what became of them.

A producer of another process counts its lines, and so does the store; where the
two counts agree, nothing is lost and nothing counts twice. Only the actor's
thread writes here (but for `handed`), between two events, so a count is always
the whole truth about the events that are applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from actorstore.answers import Rejection


class Listener(Protocol):
    """Who is told what became of lines; called in the actor's thread, and must not wait or raise."""

    def hear(self, lines: int, rejections: Sequence[Rejection], unknown_units: int) -> None:
        """Take note that all lines of the producer, up to this one, are accounted for.

        Args:
            lines: How many.
            rejections: Those refused since the last time; `line` counts the producer's lines from 1.
            unknown_units: How many of all its events named a unit that the run did not have.
        """


class Account:
    """The account of one producer.

    Args:
        producer: Id of the producer; `None` for one that nobody remembers.
        lines: How many of its lines are accounted for already.
        accepted: Of those, events.
        rejected: Of those, refused.
        unknown_units: Of those accepted, events that named a unit which the run did not have.
    """

    __slots__ = (
        "accepted",
        "handed",
        "has_said_bye",
        "lines",
        "listener",
        "producer",
        "rejected",
        "taken",
        "told",
        "unknown_units",
    )

    def __init__(
        self,
        producer: str | None = None,
        lines: int = 0,
        accepted: int = 0,
        rejected: int = 0,
        unknown_units: int = 0,
    ) -> None:
        self.producer = producer
        self.handed = lines  # handed over; written by the thread of its connections, before it hands over
        self.taken = lines  # looked at: what is accounted for, and what waits for a journal
        self.lines = lines  # accounted for: applied, refused, or blank
        self.accepted = accepted
        self.rejected = rejected
        self.unknown_units = unknown_units
        self.has_said_bye = False  # and is forgotten once that is durable
        self.listener: Listener | None = None
        self.told: list[Rejection] | None = None  # what the listener is told after this batch
