"""What the payloads of three events hold; every other payload is carried, never opened.

Decoded where an event is taken in, so a payload that does not fit is rejected
before its event counts. Decoding is all that happens then: what is wrong with a
graph, and its levels, is for whoever asks for the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from actorstore.answers import GraphData, GraphEdge, GraphNode, UnitStatus
from actorstore.errors import InvalidEventError
from actorstore.event import ABSENT, MAX_ID_BYTES, Count, Event, Id, explain
from actorstore.graph import Steps, build_in_steps
from actorstore.slices import SLICE_THINGS

T = TypeVar("T")

LARGE_GRAPH: Final = 1 << 16
"""Edges and levels of a graph of more nodes and edges than this are kept in slices of JSON."""


class SentNode(msgspec.Struct, gc=False, omit_defaults=True):
    """A node of a graph as it was sent."""

    id: Id
    """Unit id."""
    level: Count | None = None
    """Ignored: where a unit stands is said by the levels of its graph."""
    tasks: Count | None = None
    """How many tasks the unit has."""
    status: UnitStatus | None = None
    """The status that a resumed run starts with."""
    completed_tasks: Count | None = None
    """The tasks that a resumed run has done."""


class GraphSlice(NamedTuple):
    """Some of a graph as it was sent, in JSON; no slice is large."""

    kind: str
    """`nodes`, `edges` or `levels`."""
    data: bytes
    """An array: of nodes, of edges, or of levels, each its number and some of its ids."""


class SentGraph(msgspec.Struct, gc=False):
    """A graph as it was sent, before anybody has looked what is wrong with it."""

    nodes: list[SentNode] | None = None
    """In the order of the units; of two with one id the first counts."""
    edges: list[GraphEdge] | None = None
    """`from_` depends on `to`."""
    levels: list[list[str]] | None = None
    """Unit ids by level."""

    def slices(self) -> Iterator[GraphSlice]:
        """Yield the graph in slices, in a short call each."""
        for nodes in _sliced(self.nodes or []):
            yield GraphSlice("nodes", _encode(nodes))
        for edges in _sliced(self.edges or []):
            yield GraphSlice("edges", _encode(edges))
        for rows in _level_rows(self.levels or []):
            yield GraphSlice("levels", _encode(rows))

    def check(self) -> Steps[GraphData]:
        """Find out, step by step, what is wrong with the graph, and give its nodes their levels."""
        nodes: list[GraphNode] = []
        for some in _sliced(self.nodes or []):
            nodes += _graph_nodes(some)
            yield
        levels = tuple(map(tuple, self.levels or ()))
        return (yield from build_in_steps(nodes, list(self.edges or ()), levels))


class SlicedGraph:
    """A graph as it was sent, kept as the JSON of its slices: a fifth of what its edges would take.

    Args:
        slices: Those of `SentGraph.slices`, in their order.
        nodes: The nodes, where those are not among the slices: they are there
            already, and to free them would leave holes in the memory.
    """

    __slots__ = ("_nodes", "_slices")

    def __init__(self, slices: Iterable[GraphSlice], nodes: list[SentNode] | None = None) -> None:
        self._slices = tuple(slices)
        self._nodes = nodes or []

    def slices(self) -> Iterator[GraphSlice]:
        """Yield the slices."""
        yield from SentGraph(self._nodes).slices()
        yield from self._slices

    def check(self) -> Steps[GraphData]:
        """Find out, step by step, what is wrong with the graph, and give its nodes their levels."""
        nodes: list[GraphNode] = []
        edges: list[GraphEdge] = []
        levels: list[list[str]] = []
        for some in _sliced(self._nodes):
            nodes += _graph_nodes(some)
            yield
        for kind, data in self._slices:
            match kind:
                case "nodes":
                    nodes += _graph_nodes(_nodes.decode(data))
                case "edges":
                    edges += _edges.decode(data)
                case _:
                    for number, ids in _rows.decode(data):
                        levels += [[] for _ in range(1 + number - len(levels))]
                        levels[number] += ids
            yield
        return (yield from build_in_steps(nodes, edges, tuple(map(tuple, levels))))


class LargeGraph(SentGraph, gc=False):
    """A graph too large to be kept as it was decoded: its nodes, from which units are made, and slices."""

    kept: SlicedGraph | None = None
    """All of it."""


class RunPlan(msgspec.Struct, gc=False):
    """What `orch.started` says."""

    unit_count: Count | None = None
    """How many units the graph has; the graph itself says so too, and is believed."""
    parallelism: Count | None = None
    """How many units may run at once."""
    graph: SentGraph | None = None
    """The graph, unchecked."""


class NewUnit(msgspec.Struct, frozen=True, gc=False):
    """What `unit.added` says."""

    tasks: int = 0
    """How many tasks the unit has."""
    depends_on: tuple[str, ...] = ()
    """Ids of the units that it waits for."""


class TaskCounts(msgspec.Struct, frozen=True, gc=False):
    """What `unit.started` says."""

    total_tasks: Count | None = None
    """How many tasks the unit has; absent leaves it alone."""
    completed_tasks: Count | None = None
    """How many of them are done; absent leaves the current task alone."""


class _Added(msgspec.Struct, gc=False):
    tasks: Count | None = None
    depends_on: list[Id] | None = None


_plan = msgspec.json.Decoder(RunPlan)
_added = msgspec.json.Decoder(_Added)
_counts = msgspec.json.Decoder(TaskCounts)
_encode = msgspec.json.Encoder().encode
_nodes = msgspec.json.Decoder(list[SentNode])
_edges = msgspec.json.Decoder(list[GraphEdge])
_rows = msgspec.json.Decoder(list[tuple[int, list[str]]])


def _run_plan(raw: msgspec.Raw) -> RunPlan:
    plan = _plan.decode(raw)
    if plan.graph is not None:
        _check_ids([node.id for node in plan.graph.nodes or ()])
        if len(plan.graph.nodes or ()) + len(plan.graph.edges or ()) > LARGE_GRAPH:
            plan.graph = _sliced_graph(plan.graph)
    return plan


def _sliced_graph(graph: SentGraph) -> LargeGraph:
    """Put a graph into slices, in the thread that has decoded it, so that the actor need not.

    What was decoded of the edges is let go of bit by bit: all at once would stop
    every thread for as long as the actor may take for thousands of events.
    """
    kept = SlicedGraph(SentGraph(None, graph.edges, graph.levels).slices(), graph.nodes)
    edges, levels = graph.edges or [], graph.levels or []
    while edges:
        del edges[-SLICE_THINGS:]
    while levels:
        del levels[-SLICE_THINGS:]
    return LargeGraph(graph.nodes, kept=kept)


def _sliced(things: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(things), SLICE_THINGS):
        yield things[start : start + SLICE_THINGS]


def _level_rows(levels: list[list[str]]) -> Iterator[list[tuple[int, list[str]]]]:
    """Yield levels with their numbers, some at a time; one with many ids comes in more than one row."""
    rows: list[tuple[int, list[str]]] = []
    size = 0
    for number, all_ids in enumerate(levels):
        for ids in _sliced(all_ids) if all_ids else [[]]:
            if rows and size + 1 + len(ids) > SLICE_THINGS:
                yield rows
                rows, size = [], 0
            rows.append((number, ids))
            size += 1 + len(ids)
    if rows:
        yield rows


def _graph_nodes(nodes: list[SentNode]) -> list[GraphNode]:
    return [GraphNode(node.id, 0, node.tasks or 0, node.status, node.completed_tasks) for node in nodes]


def _new_unit(raw: msgspec.Raw) -> NewUnit:
    added = _added.decode(raw)
    _check_ids(added.depends_on or ())
    return NewUnit(added.tasks or 0, tuple(added.depends_on or ()))


PAYLOADS: Final[Mapping[str, Callable[[msgspec.Raw], Any]]] = {
    "orch.started": _run_plan,
    "unit.added": _new_unit,
    "unit.started": _counts.decode,
}
"""Event type -> what decodes its payload."""


def read_payload(event: Event) -> Any:
    """Return what the payload of an event says: decoded where a rule needs it, raw elsewhere.

    Raises:
        InvalidEventError: The payload is not what its event needs.
    """
    raw = event.payload
    if raw is ABSENT or (len(raw) == 4 and bytes(raw) == b"null"):
        return ABSENT
    decode = PAYLOADS.get(event.type)
    if decode is None:
        return raw
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidEventError(f"payload of {event.type}: {explain(error)}") from None


def open_payload(event: Event) -> Event:
    """Return the event with its payload read; the event itself stays as it is.

    Raises:
        InvalidEventError: The payload is not what its event needs.
    """
    payload = read_payload(event)
    return event if payload is event.payload else msgspec.structs.replace(event, payload=payload)


def _check_ids(ids: Sequence[str]) -> None:
    """Check the bytes of ids whose characters the decoder has counted."""
    if max(map(len, ids), default=0) <= MAX_ID_BYTES // 4:
        return
    for id in ids:
        if len(id.encode()) > MAX_ID_BYTES:
            raise InvalidEventError(f"payload: an id has more than {MAX_ID_BYTES} bytes of UTF-8")
