"""The units of a run as others see them, in chunks that answers share.

An answer about a large run must not cost the actor a copy of all its units. So
they lie in chunks: an answer takes the chunks, and only those in which a unit
changed since the last answer are copied. A run that fits into one chunk costs
what a plain list and its tuple cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

from actorstore.answers import UnitState

CHUNK_UNITS: Final = 1 << 14
"""How many units a chunk holds: copying one takes about 0.1 ms."""

Chunks: TypeAlias = tuple[tuple[UnitState, ...], ...]
"""The units of a run, in graph order; every chunk but the last is full."""


class UnitList:
    """A list of units, of which immutable copies are taken; used by one thread."""

    __slots__ = ("_chunks", "_copies", "_stale", "copied", "size")

    def __init__(self, units: Iterable[UnitState] = ()) -> None:
        self._chunks: list[list[UnitState] | tuple[UnitState, ...]] = []  # tuples are copied before a change
        self._copies: list[tuple[UnitState, ...]] = []  # of the chunks, as they were when last asked for
        self._stale: dict[int, None] = {}  # numbers of chunks that changed since
        self.size = 0
        self.copied = 0
        """How many units the last `freeze` has copied."""
        self.extend(units)

    def __len__(self) -> int:
        return self.size

    def some(self, places: Iterable[int]) -> tuple[UnitState, ...]:
        """Return the units at some places."""
        chunks, full = self._chunks, CHUNK_UNITS
        if len(chunks) == 1:
            chunk = chunks[0]
            return tuple([chunk[place] for place in places])
        return tuple([chunks[place // full][place % full] for place in places])

    def replace(self, units: Iterable[tuple[int, UnitState]]) -> list[UnitState]:
        """Put units at their places, and return those that stood there."""
        full = CHUNK_UNITS
        replaced = []
        number = -1
        for place, unit in units:
            if place // full != number:
                number = place // full
                chunk = self._open(number)
            spot = place % full
            replaced.append(chunk[spot])
            chunk[spot] = unit
        return replaced

    def extend(self, units: Iterable[UnitState]) -> None:
        """Put units at the end."""
        left = iter(units)
        while True:
            if self.size == CHUNK_UNITS * len(self._chunks):
                more = list(islice(left, CHUNK_UNITS))
                if not more:
                    return
                self._chunks.append(more)
                self._copies.append(())
                self._stale[len(self._chunks) - 1] = None
            else:
                more = list(islice(left, CHUNK_UNITS - self.size % CHUNK_UNITS))
                if not more:
                    return
                self._open(len(self._chunks) - 1).extend(more)
            self.size += len(more)
            if self.size == CHUNK_UNITS * len(self._chunks):
                self._freeze(len(self._chunks) - 1)  # bit by bit, while a large run is made

    def _open(self, number: int) -> list[UnitState]:
        """Return a chunk that is about to change."""
        self._stale[number] = None
        chunk = self._chunks[number]
        if isinstance(chunk, tuple):
            chunk = self._chunks[number] = list(chunk)
        return chunk

    def freeze(self) -> Chunks:
        """Return the units as they are; copies the chunks that changed since the last time."""
        self.copied = 0
        for number in list(self._stale):
            self._freeze(number)
        return tuple(self._copies)

    def _freeze(self, number: int) -> None:
        self._copies[number] = copy = tuple(self._chunks[number])
        self.copied += len(copy)
        if len(self._chunks) > 1:
            self._chunks[number] = copy  # a large run is kept once
        del self._stale[number]


def joined(chunks: Sequence[Sequence[UnitState]]) -> tuple[UnitState, ...]:
    """Return the units of all chunks as one tuple; for callers, not for the actor."""
    if len(chunks) == 1:
        return tuple(chunks[0])
    units: list[Any] = [None] * sum(map(len, chunks))  # at once: a list that grows leaves holes in the memory
    start = 0
    for chunk in chunks:
        units[start : start + len(chunk)] = chunk
        start += len(chunk)
    return tuple(units)
