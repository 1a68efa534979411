"""Checkpoints: the whole state as bytes, in parts, and back.

Pure. The actor freezes the state between two events, which costs what has
changed since somebody last asked; everything else is done by others from what
it froze. What the bytes hold is what the events have made, and nothing that
questions leave behind: the same events give the same bytes.

The parts are JSON: it keeps the offsets of times, which the timestamps of
MessagePack do not, and can be read with any tool. Each is put together from
slices that are encoded in short calls, so that nobody waits long for the
interpreter, and none is large, so that no ack waits long for its write.

A graph is kept as it was sent, with the units that were added since; so nothing
has to be put together. Format 1 kept it put together, and is still read.

Reading order: `freeze`, `encode`, `restore`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Final, NamedTuple, TypeVar

import msgspec

from actorstore.answers import GraphData, GraphEdge, GraphNode, GraphProblem, RunStatus, UnitState
from actorstore.drafts import GraphParts
from actorstore.event import ABSENT, explain
from actorstore.payload import GraphSlice, NewUnit, SlicedGraph
from actorstore.run import Run
from actorstore.slices import SLICE_THINGS
from actorstore.state import State
from actorstore.unitlist import Chunks

T = TypeVar("T")

FORMAT: Final = 2
"""Version of what the parts hold."""

READ: Final = (1, FORMAT)
"""Versions that are read; others are refused."""

PART_BYTES: Final = 1 << 18
"""About how many bytes a part has: a millisecond to write, and a tenth of one to check."""


class CheckpointError(Exception):
    """Raised where parts are none that this version has written."""


class FrozenRun(NamedTuple):
    """A run as it was."""

    fields: RunFields
    units: Chunks
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


class Added(msgspec.Struct, frozen=True, array_like=True):
    """A unit that was added to the graph."""

    id: str
    tasks: int
    depends_on: tuple[str, ...]


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
    sent_nodes: msgspec.Raw = ABSENT
    """Some nodes of the graph as it was sent; likewise the next two. See `actorstore.payload.GraphSlice`."""
    sent_edges: msgspec.Raw = ABSENT
    sent_levels: msgspec.Raw = ABSENT
    added: list[Added] | None = None
    """Some of the units that were added to the graph since."""


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


def encode(frozen: Frozen, *, assembled: bool = False) -> Iterator[bytes]:
    """Return the parts, one after the other.

    Args:
        frozen: What they hold.
        assembled: Whether graphs are put together, as all are once they came
            through format 1: so equal states have equal parts, however they came about.
    """
    pieces: list[bytes] = []
    size = 0
    for data in chain.from_iterable(map(_encoded, _all_pieces(frozen, assembled))):
        if pieces and size + len(data) > PART_BYTES:
            yield _part(pieces)
            pieces, size = [], 0
        pieces.append(data)
        size += len(data)
    yield _part(pieces)


def _part(pieces: list[bytes]) -> bytes:
    return b"[" + b",".join(pieces) + b"]"


def _encoded(piece: Piece) -> Iterator[bytes]:
    """Yield a piece, in two where its units have long errors."""
    data = msgspec.json.encode(piece)
    units = piece.units
    if units is None or len(units) == 1 or len(data) <= 2 * PART_BYTES:
        yield data
        return
    half = len(units) // 2
    for some in (units[:half], units[half:]):
        yield from _encoded(Piece(piece.run, units=some))


def _all_pieces(frozen: Frozen, assembled: bool) -> Iterator[Piece]:
    yield Piece(head=frozen.head)
    for place, run in enumerate(frozen.runs):
        yield Piece(place, fields=run.fields)
        for chunk in run.units:
            for units in _slices(chunk):
                yield Piece(place, units=units)
        if run.graph is None:
            continue
        sent = run.graph.data() if assembled else run.graph.sent()
        if isinstance(sent, GraphData):
            yield from _assembled(place, sent)
        else:
            yield from _as_sent(place, sent)
        if not assembled:
            for added in _slices(run.graph.added()):
                yield Piece(place, added=[Added(id, new.tasks, new.depends_on) for id, new in added])


def _as_sent(place: int, sent: Iterable[GraphSlice]) -> Iterator[Piece]:
    for kind, data in sent:
        raw = msgspec.Raw(data)
        match kind:
            case "nodes":
                yield Piece(place, sent_nodes=raw)
            case "edges":
                yield Piece(place, sent_edges=raw)
            case _:
                yield Piece(place, sent_levels=raw)


def _assembled(place: int, graph: GraphData) -> Iterator[Piece]:
    for nodes in _slices(graph.nodes):
        yield Piece(place, nodes=nodes)
    for edges in _slices(graph.edges):
        yield Piece(place, edges=edges)
    for level, all_ids in enumerate(graph.levels):
        for ids in _slices(all_ids) if all_ids else [[]]:
            yield Piece(place, level=level, ids=ids)
    for problems in _slices(graph.problems):
        yield Piece(place, problems=problems)


def _slices(things: Sequence[T]) -> Iterator[list[T]]:
    for start in range(0, len(things), SLICE_THINGS):
        yield list(things[start : start + SLICE_THINGS])


class _Gathered:
    """What the pieces of one run hold."""

    def __init__(self, fields: RunFields) -> None:
        self.fields = fields
        self.units: list[UnitState] = []
        self.nodes: list[GraphNode] = []
        self.edges: list[GraphEdge] = []
        self.levels: list[list[str]] = []
        self.problems: list[GraphProblem] = []
        self.sent: list[GraphSlice] = []
        self.added: list[tuple[str, NewUnit]] = []

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
        sent = (("nodes", piece.sent_nodes), ("edges", piece.sent_edges), ("levels", piece.sent_levels))
        self.sent += [GraphSlice(kind, bytes(raw)) for kind, raw in sent if raw is not ABSENT]
        self.added += [(unit.id, NewUnit(unit.tasks, unit.depends_on)) for unit in piece.added or ()]

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
        run.restore(self.units, self._graph(), self.added, fields.graph_changed, version)
        return run

    def _graph(self) -> SlicedGraph | GraphData | None:
        if not self.fields.has_graph:
            return None
        if self.nodes or not self.sent:
            levels = tuple(map(tuple, self.levels))
            return GraphData(tuple(self.nodes), tuple(self.edges), levels, tuple(self.problems))
        return SlicedGraph(self.sent)


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
                    if head.format not in READ:
                        raise CheckpointError(
                            f"it has format {head.format}, and only {READ[0]} to {READ[-1]} are known"
                        )
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
