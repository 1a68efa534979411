"""Checkpoints: the whole state as bytes, in parts, and back.

Pure. The actor freezes the state between two events, which costs what has
changed since somebody last asked; everything else is done by others from what
it froze. What the bytes hold is what the events have made, and nothing that
questions leave behind: the same events give the same bytes.

The parts are JSON: it keeps the offsets of times, which the timestamps of
MessagePack do not, and can be read with any tool. Each is encoded in one short
call, so that nobody waits long for the interpreter.

Reading order: `freeze`, `encode`, `restore`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Final, NamedTuple, TypeVar

import msgspec

from actorstore.answers import GraphData, GraphEdge, GraphNode, GraphProblem, RunStatus, UnitState
from actorstore.event import explain
from actorstore.run import GraphParts, Run
from actorstore.state import State

T = TypeVar("T")

FORMAT: Final = 1
"""Version of what the parts hold; others are refused."""

THINGS_A_PART: Final = 5000
"""How many units, nodes, edges or ids go into one part: some 700 KB, and 2 ms of the interpreter."""


class CheckpointError(Exception):
    """Raised where parts are none that this version has written."""


class FrozenRun(NamedTuple):
    """A run as it was."""

    fields: RunFields
    units: tuple[UnitState, ...]
    graph: GraphParts | None


class Frozen(NamedTuple):
    """A state as it was; nothing in it changes."""

    head: Head
    runs: list[FrozenRun]


class RunFields(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of a run."""

    id: str
    born: int
    changed: int
    graph_changed: int
    status: RunStatus
    parallelism: int
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    has_graph: bool = False
    units: int = 0
    """How many there are."""


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of a state."""

    format: int
    store: str = ""
    version: int = 0
    unknown_units: int = 0
    started: bool = False
    latest: str | None = None
    """The run that started last, or was created last before any has; absent where there is none."""


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some of what a run holds, or the head."""

    run: int = 0
    """Which run, in their order."""
    head: Head | None = None
    fields: RunFields | None = None
    units: list[UnitState] | None = None
    nodes: list[GraphNode] | None = None
    edges: list[GraphEdge] | None = None
    level: int = 0
    ids: list[str] | None = None
    """Some units of that level."""
    problems: list[GraphProblem] | None = None


_parts: Final = msgspec.json.Decoder(list[Piece])


def freeze(state: State) -> Frozen:
    """Return the state as it is; called in the thread that owns it."""
    latest = state.latest
    head = Head(FORMAT, state.store, state.version, state.unknown_units, state.has_started, latest)
    return Frozen(head, [_frozen(run, state.version) for run in state.runs.values()])


def _frozen(run: Run, version: int) -> FrozenRun:
    graph = run.graph()
    fields = RunFields(
        run.id,
        run.born,
        run.changed,
        run.graph_changed,
        run.status,
        run.parallelism,
        run.started_at,
        run.finished_at,
        run.error,
        graph is not None,
        len(run.units),
    )
    return FrozenRun(fields, run.faces(version), graph)


def encode(frozen: Frozen) -> Iterator[bytes]:
    """Return the parts, one after the other; a graph that nobody has asked for is put together first."""
    pieces: list[Piece] = [Piece(head=frozen.head)]
    size = 1
    for piece, things in chain.from_iterable(_pieces(place, run) for place, run in enumerate(frozen.runs)):
        if size + things > THINGS_A_PART:
            yield msgspec.json.encode(pieces)
            pieces, size = [], 0
        pieces.append(piece)
        size += things
    yield msgspec.json.encode(pieces)


def _pieces(place: int, run: FrozenRun) -> Iterator[tuple[Piece, int]]:
    """Return the pieces of a run, and how many things each holds."""
    yield Piece(place, fields=run.fields), 1
    for units in _slices(run.units):
        yield Piece(place, units=units), len(units)
    if run.graph is None:
        return
    graph = run.graph.data()
    for nodes in _slices(graph.nodes):
        yield Piece(place, nodes=nodes), len(nodes)
    for edges in _slices(graph.edges):
        yield Piece(place, edges=edges), len(edges)
    for level, all_ids in enumerate(graph.levels):
        for ids in _slices(all_ids) if all_ids else [[]]:
            yield Piece(place, level=level, ids=ids), len(ids) or 1
    for problems in _slices(graph.problems):
        yield Piece(place, problems=problems), sum([len(problem.ids) for problem in problems])


def _slices(things: Sequence[T]) -> Iterator[list[T]]:
    for start in range(0, len(things), THINGS_A_PART):
        yield list(things[start : start + THINGS_A_PART])


class _Gathered:
    """What the pieces of one run hold."""

    def __init__(self, fields: RunFields) -> None:
        self.fields = fields
        self.units: list[UnitState] = []
        self.nodes: list[GraphNode] = []
        self.edges: list[GraphEdge] = []
        self.levels: list[list[str]] = []
        self.problems: list[GraphProblem] = []

    def add(self, piece: Piece) -> None:
        """Put a piece to the others."""
        self.units += piece.units or ()
        self.nodes += piece.nodes or ()
        self.edges += piece.edges or ()
        self.problems += piece.problems or ()
        if piece.ids is not None:
            if piece.level == len(self.levels):
                self.levels.append([])
            self.levels[piece.level] += piece.ids

    def run(self, version: int) -> Run:
        """Return the run."""
        fields = self.fields
        if len(self.units) != fields.units:
            raise CheckpointError(f"run {fields.id!r} has {len(self.units)} of {fields.units} units")
        run = Run(fields.id, fields.born)
        run.begin(fields.born, fields.status)
        run.changed = fields.changed
        run.parallelism = fields.parallelism
        run.started_at, run.finished_at, run.error = fields.started_at, fields.finished_at, fields.error
        graph = None
        if fields.has_graph:
            levels = tuple(map(tuple, self.levels))
            graph = GraphParts(GraphData(tuple(self.nodes), tuple(self.edges), levels, tuple(self.problems)))
        run.restore(self.units, graph, fields.graph_changed, version)
        return run


def restore(parts: Iterable[bytes]) -> State:
    """Return the state that the parts were made of.

    Raises:
        CheckpointError: They are none, or of another format.
    """
    head: Head | None = None
    runs: list[_Gathered] = []
    try:
        for part in parts:
            for piece in _parts.decode(part):
                if piece.head is not None:
                    head = piece.head
                    if head.format != FORMAT:
                        raise CheckpointError(f"it has format {head.format}, and only {FORMAT} is known")
                if piece.fields is not None:
                    runs.append(_Gathered(piece.fields))
                if runs:
                    runs[piece.run].add(piece)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, IndexError) as error:
        raise CheckpointError(explain(error)) from None
    if head is None:
        raise CheckpointError("its first part is missing")
    state = State(head.store)
    state.restore([run.run(head.version) for run in runs], head.version, head.unknown_units)
    if not state.start_from(head.latest, has_started=head.started):
        raise CheckpointError(f"there is no run {head.latest!r}, which is said to have started last")
    return state
