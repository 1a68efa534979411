"""What the payloads of three events hold; every other payload is carried, never opened.

Decoded where an event is taken in, so a payload that does not fit is rejected
before its event counts. Decoding is all that happens then: what is wrong with a
graph, and its levels, is for whoever asks for the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from actorstore.answers import GraphData, GraphEdge, GraphNode, UnitStatus
from actorstore.errors import InvalidEventError
from actorstore.event import ABSENT, MAX_ID_BYTES, Count, Event, Id, explain
from actorstore.graph import build


class SentNode(msgspec.Struct, gc=False):
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


class SentGraph(msgspec.Struct, gc=False):
    """A graph as it was sent, before anybody has looked what is wrong with it."""

    nodes: list[SentNode] | None = None
    """In the order of the units; of two with one id the first counts."""
    edges: list[GraphEdge] | None = None
    """`from_` depends on `to`."""
    levels: list[list[str]] | None = None
    """Unit ids by level."""

    def check(self) -> GraphData:
        """Find out what is wrong with the graph, and give its nodes their levels."""
        nodes = [
            GraphNode(node.id, 0, node.tasks or 0, node.status, node.completed_tasks)
            for node in self.nodes or ()
        ]
        return build(nodes, self.edges or (), self.levels or ())


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


def _run_plan(raw: msgspec.Raw) -> RunPlan:
    plan = _plan.decode(raw)
    if plan.graph is not None:
        _check_ids([node.id for node in plan.graph.nodes or ()])
    return plan


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
