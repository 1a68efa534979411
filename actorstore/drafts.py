"""Answers that lack what takes long: the actor hands them out, and their callers finish them.

A draft shares what it needs with the state and never changes. Its `finish`
returns the answer; its `slices` are the answer's JSON, for those who only want
bytes: no slice takes long to make, and an empty one marks a place to rest at
where there is nothing to write yet.

Pure. Reading order: `GraphParts`, `SnapshotDraft`, `Draft`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from typing import Final

import msgspec

from actorstore import slices
from actorstore.answers import GraphData, Shared, StateSnapshot, UnitState, Update, share
from actorstore.graph import Steps, extend_in_steps
from actorstore.graph import finish as finish_steps
from actorstore.payload import GraphSlice, NewUnit, SentGraph, SlicedGraph
from actorstore.unitlist import Chunks, joined

LARGE_UNITS: Final = 2048
"""From how many units on an answer is encoded in slices: as many take half a millisecond at once."""


LARGE_ERRORS: Final = 1 << 18
"""From how many characters of errors on it is, too, however few the units are."""


def are_large(units: Iterable[UnitState], count: int) -> bool:
    """Whether so many units take long to encode."""
    if count > LARGE_UNITS:
        return True
    return sum([len(unit.error) for unit in units if unit.error]) > LARGE_ERRORS


class GraphParts:
    """A graph as it was sent and the units added to it since, put together by whoever first asks.

    Args:
        sent: What came first.
        added: What the run has added since, and will add; only appended to.
        count: How many of those belong to this graph.
        built: The graph put together, and how many of those it has, where that is known.
    """

    __slots__ = ("_added", "_built", "_sent", "count")

    def __init__(
        self,
        sent: SentGraph | SlicedGraph | GraphData,
        added: list[tuple[str, NewUnit]] | None = None,
        count: int = 0,
        built: tuple[GraphData, int] | None = None,
    ) -> None:
        self._sent = sent
        self._added = [] if added is None else added
        self.count = count
        if built is None and isinstance(sent, GraphData):
            built = sent, 0
        self._built = built  # replaced as one, because the actor may read it meanwhile

    def plus(self, added: list[tuple[str, NewUnit]]) -> GraphParts:
        """Return the graph with all that was added by now."""
        return GraphParts(self._sent, added, len(added), self._built)

    @property
    def whole(self) -> bool:
        """Whether the graph is put together already."""
        return self._built is not None and self._built[1] == self.count

    @property
    def large(self) -> bool:
        """Whether it takes long to encode, or to put together."""
        if self._built is None:
            return True
        graph, _ = self._built
        return not self.whole or len(graph.nodes) + len(graph.edges) > LARGE_UNITS

    def data(self) -> GraphData:
        """Return the whole graph; the first call costs time per unit and edge."""
        return finish_steps(self.steps())

    def steps(self) -> Steps[GraphData]:
        """Put the graph together, step by step."""
        if self._built is not None:
            graph, place = self._built
        elif isinstance(self._sent, GraphData):
            graph, place = self._sent, 0
        else:
            graph, place = (yield from self._sent.check()), 0
        if place < self.count:
            added = [(id, unit.tasks, unit.depends_on) for id, unit in self._added[place : self.count]]
            graph = yield from extend_in_steps(graph, added)
        self._built = graph, self.count
        return graph

    def slices(self) -> Iterator[bytes]:
        """Yield the JSON of the graph."""
        graph = yield from _resting(self.steps())
        yield from slices.graph(graph)

    def sent(self) -> GraphData | Iterator[GraphSlice]:
        """Return what came first: in slices as it was sent, or put together where nothing else is known."""
        return self._sent if isinstance(self._sent, GraphData) else self._sent.slices()

    def added(self) -> list[tuple[str, NewUnit]]:
        """Return the units that were added since."""
        return self._added[: self.count]


class SnapshotDraft:
    """A snapshot whose units still lie in chunks."""

    __slots__ = ("_bare", "_chunks", "_whole", "shared")

    def __init__(self, bare: StateSnapshot, chunks: Chunks, shared: Shared) -> None:
        self._bare = bare
        self._chunks = chunks
        self._whole: StateSnapshot | None = None
        self.shared = shared

    @property
    def version(self) -> int:
        """How many events the store had accepted."""
        return self._bare.version

    @property
    def connected(self) -> bool:
        """Whether a producer was connected."""
        return self._bare.connected

    @property
    def large(self) -> bool:
        """Whether it takes long to encode."""
        return are_large(chain.from_iterable(self._chunks), self._bare.summary.total)

    def finish(self) -> StateSnapshot:
        """Return the snapshot; the same object each time."""
        if self._whole is None:
            whole = msgspec.structs.replace(self._bare, units=joined(self._chunks))
            self._whole = share(whole, self.shared)
        return self._whole

    def slices(self) -> Iterator[bytes]:
        """Yield the JSON of the snapshot; encoded once a version."""
        return sliced_snapshot(self._bare, self._chunks, self.shared)


class Draft:
    """An update that still lacks its graph, and where it is the whole run, its units."""

    __slots__ = ("_chunks", "_graph", "_update")

    def __init__(self, update: Update, graph: GraphParts | None, chunks: Chunks | None = None) -> None:
        self._update = update
        self._graph = graph
        self._chunks = chunks

    @property
    def is_whole_run(self) -> bool:
        """Whether this is the whole run, and not what changed in it."""
        return self._update.since is None

    @property
    def large(self) -> bool:
        """Whether it takes long to encode."""
        if self._graph is not None and self._graph.large:
            return True
        if self._chunks is None:
            return are_large(self._update.units, len(self._update.units))
        return are_large(chain.from_iterable(self._chunks), self._update.summary.total)

    def bare(self) -> Update:
        """Return the update without its graph."""
        if self._chunks is None:
            return self._update
        return msgspec.structs.replace(self._update, units=joined(self._chunks))

    def finish(self) -> Update:
        """Return the update, its graph put together."""
        if self._graph is None:
            return self.bare()
        return msgspec.structs.replace(self.bare(), graph=self._graph.data())

    def slices(self) -> Iterator[bytes]:
        """Yield the JSON of the update."""
        graph = None if self._graph is None else (yield from _resting(self._graph.steps()))
        chunks = (self._update.units,) if self._chunks is None else self._chunks
        yield from slices.update(self._update, chunks, graph)


def sliced_snapshot(snapshot: StateSnapshot, chunks: Chunks, shared: Shared) -> Iterator[bytes]:
    """Yield the JSON of a snapshot with the units of all chunks, and keep all of it but `connected`."""
    flag = b'{"connected":true' if snapshot.connected else b'{"connected":false'
    if shared.slices is not None:
        yield flag
        yield from shared.slices
        return
    made: list[bytes] = []
    for slice in slices.snapshot(snapshot, chunks):
        yield slice
        made.append(slice if made else slice.removeprefix(flag))
    shared.slices = tuple(made)


def _resting(steps: Steps[GraphData]) -> Generator[bytes, None, GraphData]:
    """Do steps, with an empty slice after each."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            graph: GraphData = end.value
            return graph
        yield b""
