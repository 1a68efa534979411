"""One batch of the journal: the lines of its events, what they mean for their producers, and a checksum.

Pure. A batch is what one transaction holds. Its checksum is made from that of
the batch before it, so that a batch which is missing, exchanged or altered
breaks the chain at a place that has a number.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

_PLACE: Final = struct.Struct("<QQQQ")
_GONE: Final = -1  # lines of a producer that is forgotten, and of nobody
_UNKNOWN: Final = -2  # lines in the row of a checkpoint that says how many events were of unknown units

NOBODY: Final = ""
"""Stands for the id of a producer where events are on the account of none that is remembered."""


class Count(NamedTuple):
    """What a batch adds to the account of one producer, or what a checkpoint holds of it."""

    producer: str
    """Id of the producer; `NOBODY` only says that so many events of a batch are no producer's."""
    lines: int
    """Lines accounted for: events, rejected and blank ones."""
    accepted: int
    """Of those, events."""
    rejected: int
    """Of those, refused."""
    unknown_units: int = 0
    """Of those accepted, events of unknown units; 0 in a batch, where the events say so themselves."""


class Farewell(NamedTuple):
    """A producer that said goodbye, and is forgotten."""

    producer: str
    """Id of the producer."""


Step: TypeAlias = Count | Farewell
"""What happens to an account."""


class Link(NamedTuple):
    """A place in the chain: where a batch ends."""

    seq: int
    """Number of the batch, counted from 1; 0 before the first."""
    version: int
    """Version of the store after it."""
    crc: int
    """Checksum of the chain up to here."""


class Batch(NamedTuple):
    """A batch as the journal holds it."""

    seq: int
    """Number of the batch, counted from 1."""
    version: int
    """Version of the store after it."""
    events: int
    """How many events it holds."""
    steps: bytes
    """What happens to the accounts, in order; see `pack`."""
    lines: bytes
    """The lines of its events, as they came."""
    crc: int
    """Checksum of the chain up to here."""

    @property
    def end(self) -> Link:
        """Where it ends."""
        return Link(self.seq, self.version, self.crc)

    def follows(self, before: Link) -> bool:
        """Whether it is what was written after that place, unaltered; a column may hold anything."""
        if [type(column) for column in self] != [int, int, int, bytes, bytes, int]:
            return False
        if min(self.version, self.events) < 0:
            return False
        if self.seq != before.seq + 1 or self.version != before.version + self.events:
            return False
        return self.crc == _checksum(before.crc, self.seq, self.version, self.events, self.steps, self.lines)


def start(store: str) -> Link:
    """Return the place before the first batch of a store."""
    return Link(0, 0, zlib.crc32(store.encode()))


def follow(before: Link, events: int, steps: bytes, lines: bytes) -> Batch:
    """Return the batch that comes after a place."""
    seq, version = before.seq + 1, before.version + events
    crc = _checksum(before.crc, seq, version, events, steps, lines)
    return Batch(seq, version, events, steps, lines, crc)


def pack(steps: Iterable[Step]) -> bytes:
    """Return what happens to accounts as bytes; those of one producer that follow each other become one.

    Events of nobody are told apart from those of producers, so that whoever
    folds the batch knows which events are whose. Where all are nobody's, or
    none is, nothing need be said of them.
    """
    merged: list[Step] = []
    for step in steps:
        last = merged[-1] if merged else None
        if isinstance(step, Count) and isinstance(last, Count) and last.producer == step.producer:
            merged[-1] = Count(
                step.producer,
                last.lines + step.lines,
                last.accepted + step.accepted,
                last.rejected + step.rejected,
            )
        else:
            merged.append(step)
    if not any(step.producer for step in merged):
        return b""
    return msgspec.msgpack.encode([_row(step) for step in merged])


def _row(step: Step) -> tuple[str, int, int, int]:
    if isinstance(step, Farewell):
        return step.producer, _GONE, 0, 0
    if step.producer == NOBODY:  # which older versions take for the farewell of a producer they do not know
        return NOBODY, _GONE, step.accepted, 0
    return step[:4]


def unpack(steps: bytes) -> list[Step]:
    """Return what happens to accounts.

    Raises:
        msgspec.MsgspecError: That is not what `pack` makes.
    """
    if not steps:
        return []
    rows = msgspec.msgpack.decode(steps, type=list[tuple[str, int, int, int]])
    return [_step(*row) for row in rows]


def _step(producer: str, lines: int, accepted: int, rejected: int) -> Step:
    if lines != _GONE:
        return Count(producer, lines, accepted, rejected)
    return Farewell(producer) if producer else Count(NOBODY, 0, accepted, 0)


def pack_counts(counts: Sequence[Count]) -> bytes:
    """Return the counts of producers as bytes, in the order of their ids, for a checkpoint.

    How many events were of unknown units stands in a row of its own, before the
    other one of the same producer: older versions keep the last row of each.
    """
    rows = [count[:4] for count in counts]
    unknown = [(count.producer, _UNKNOWN, count.unknown_units, 0) for count in counts if count.unknown_units]
    return msgspec.msgpack.encode(sorted([*rows, *unknown]))


def unpack_counts(counts: bytes) -> list[Count]:
    """Return the counts of producers.

    Raises:
        msgspec.MsgspecError: That is not what `pack_counts` makes.
    """
    rows = msgspec.msgpack.decode(counts, type=list[tuple[str, int, int, int]])
    unknown = {producer: units for producer, lines, units, _ in rows if lines == _UNKNOWN}
    return [Count(*row, unknown.get(row[0], 0)) for row in rows if row[1] != _UNKNOWN]


def _checksum(before: int, seq: int, version: int, events: int, steps: bytes, lines: bytes) -> int:
    head = _PLACE.pack(seq, version, events, len(steps)) + steps
    return zlib.crc32(lines, zlib.crc32(head, before))
