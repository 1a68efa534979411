"""What callers hand over to a link, and how it becomes lines.

Pure; events are encoded many at a time, by the link's thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

import msgspec

from actorstore.event import Event
from actorstore.protocol import Sendable
from actorstore.reply import Receiver

EVENTS_AT_ONCE: Final = 512
"""How many events are encoded at a time: some 50 KB of lines."""

_encoder: Final = msgspec.json.Encoder()


class Question(NamedTuple):
    """A question to be asked after all that was handed over before."""

    number: int
    line: bytes
    receiver: Receiver
    again: bytes | None = None
    """How it is asked on a later connection, where that is another line."""


class Flush(NamedTuple):
    """Somebody to be told once all that was handed over before is acked."""

    receiver: Receiver


class Forget(NamedTuple):
    """A question that nobody waits for any more."""

    number: int


class Spooled(NamedTuple):
    """A token: lines lie in the spool."""


SPOOLED: Final = Spooled()

Item: TypeAlias = Event | Sendable | Question | Flush | Forget | Spooled
"""What is handed over to the thread."""


def encoded(events: list[Event]) -> Iterator[Sendable]:
    """Return events as lines; one that cannot be written is sent as what the store rejects."""
    for start in range(0, len(events), EVENTS_AT_ONCE):
        part = events[start : start + EVENTS_AT_ONCE]
        try:
            data = _encoder.encode_lines(part)
        except Exception:
            data = b"".join(map(_encoded_alone, part))
        yield Sendable(data, len(part), 0)


def _encoded_alone(event: Event) -> bytes:
    try:
        return _encoder.encode(event) + b"\n"
    except Exception as error:  # a time zone of somebody else's
        return msgspec.json.encode({"unencodable": f"{event.type}: {type(error).__name__}: {error}"}) + b"\n"


def is_event(item: Item) -> bool:
    """Whether this is an event."""
    return type(item) is Event


def lines_in(item: Item) -> int:
    """Return how many lines this is."""
    match item:
        case Event():
            return 1
        case Sendable(_, lines):
            return lines
        case _:
            return 0
