"""The answers: frozen structs that hold nothing that can change.

Share them, keep them, send them anywhere. JSON names are camelCase, optional
fields are left out where they have no value, times are aware datetimes, and a
`repr` is one line whatever the size.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NewType

import msgspec

from actorstore import slices
from actorstore.errors import UnknownUnitError

Cursor = NewType("Cursor", str)
"""Where a subscriber stands; opaque: take it from an `Update` and hand it back."""


class RunStatus(StrEnum):
    """The status of a run; equal to its string."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether the run is over, well or badly."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED)


class UnitStatus(StrEnum):
    """The status of a unit; equal to its string."""

    PENDING = "pending"
    READY = "ready"
    IN_PROGRESS = "in_progress"
    COMPLETE = "complete"
    FAILED = "failed"
    BLOCKED = "blocked"


class Answer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """What all answers share: their names on the wire, and their two encodings."""

    def json(self) -> bytes:
        """Return the answer as JSON, UTF-8, on one line."""
        return msgspec.json.encode(self)

    def msgpack(self) -> bytes:
        """Return the answer as MessagePack, with the names of the JSON.

        Times are timestamps (extension -1); where one lies outside of the years
        1 to 9999 in UTC, which has no timestamp, all of them are strings.
        """
        return _msgpack(self)


class UnitState(Answer, frozen=True):
    """One unit at one version."""

    id: str
    """Unit id."""
    status: UnitStatus
    """The newest event decides, whatever the status was before."""
    current_task: int
    """Number of the task that the unit is at, counted from 1; 0 before the first."""
    total_tasks: int
    """How many tasks the unit has; 0 where nobody said."""
    attempts: int
    """How often the unit was started."""
    error: str | None = None
    """Why the last attempt failed."""
    started_at: datetime | None = None
    """When the last attempt started, by the producer's clock."""
    finished_at: datetime | None = None
    """When the last attempt ended, by the producer's clock."""


class StateSummary(Answer, frozen=True):
    """How many units have which status; the six add up to `total`."""

    total: int
    """Units of the run."""
    pending: int
    """Units that wait for what they depend on."""
    ready: int
    """Units that wait for a worker."""
    in_progress: int
    """Units that run."""
    complete: int
    """Units that are done."""
    failed: int
    """Units whose last attempt failed."""
    blocked: int
    """Units that cannot run."""


class StateSnapshot(Answer, frozen=True, dict=True, gc=True):
    """One run between two events; it never changes afterwards.

    Snapshots share what did not change between them, so keeping many is cheap.
    """

    connected: bool
    """Whether a producer is connected; lies outside `version`."""
    run: str
    """Id of the run."""
    version: int
    """How many events the store had accepted."""
    status: RunStatus
    """The status of the run."""
    parallelism: int
    """How many units may run at once; 0 where nobody said."""
    units: tuple[UnitState, ...]
    """The units, in graph order."""
    summary: StateSummary
    """The units, counted by status."""
    started_at: datetime | None = None
    """When the run started, by the producer's clock."""
    finished_at: datetime | None = None
    """When the run ended, by the producer's clock."""
    error: str | None = None
    """Why the run failed."""

    def unit(self, id: str) -> UnitState:
        """Look one unit up, at once.

        The first call makes an index, which all snapshots of the run share
        until units are added.

        Raises:
            UnknownUnitError: The run has no such unit.
        """
        place = shared_by(self).index.places(self.units).get(id)
        if place is None:
            raise UnknownUnitError(id, self.run)
        return self.units[place]

    def json(self) -> bytes:
        """Return the snapshot as JSON; encoded once a version, free after that."""
        return _encode_once(self, "json")

    def msgpack(self) -> bytes:
        """Return the snapshot as MessagePack; encoded once a version, free after that."""
        return _encode_once(self, "msgpack")

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{count} {name}"
            for name in self.summary.__struct_fields__[1:]
            if (count := getattr(self.summary, name))
        )
        error = f", error={self.error!r}" if self.error else ""
        return (
            f"<StateSnapshot of run {self.run!r} at version {self.version}: {self.status}, "
            f"{self.summary.total} units{' (' + counts + ')' if counts else ''}{error}>"
        )


class GraphNode(Answer, frozen=True):
    """A unit as the graph has it."""

    id: str
    """Unit id."""
    level: int
    """Where it stands in `GraphData.levels`."""
    tasks: int
    """How many tasks it has; 0 where nobody said."""
    status: UnitStatus | None = None
    """The status that a resumed run started with."""
    completed_tasks: int | None = None
    """The tasks that a resumed run had done."""


class GraphEdge(Answer, frozen=True):
    """One dependency: `from_` depends on `to`."""

    from_: str = msgspec.field(name="from")
    """The unit that waits."""
    to: str
    """The unit that it waits for."""


class GraphProblem(Answer, frozen=True):
    """What is wrong with a graph; the run goes on all the same."""

    kind: str
    """`cycle`, `self_edge`, `dangling_edge`, `duplicate_id` or `levels`."""
    ids: tuple[str, ...]
    """The units concerned; of an edge: from, to."""

    def __str__(self) -> str:
        ids = [repr(id) for id in self.ids]
        match self.kind:
            case "cycle":
                return f"units depend on each other in a circle: {', '.join(ids)}"
            case "self_edge":
                return f"unit {ids[0]} depends on itself"
            case "dangling_edge":
                return f"unit {ids[0]} depends on {ids[1]}, and one of the two is no unit of the graph"
            case "duplicate_id":
                return f"two nodes have the id {ids[0]}; the first one counts"
            case _:
                return "the levels do not hold each node once, above all it depends on; they were computed"


class GraphData(Answer, frozen=True):
    """The dependency graph of a run, checked: no query over it can loop or miss."""

    nodes: tuple[GraphNode, ...]
    """One node a unit, in the order of the units."""
    edges: tuple[GraphEdge, ...]
    """The edges as they came, those among `problems` too."""
    levels: tuple[tuple[str, ...], ...]
    """Unit ids by level: a unit depends only on units of lower levels, circles aside."""
    problems: tuple[GraphProblem, ...]
    """What is wrong with the graph, as it was sent."""

    def json(self) -> bytes:
        """Return the graph as JSON; a large one in slices, between which others have the interpreter."""
        if len(self.nodes) + len(self.edges) <= slices.LARGE:
            return msgspec.json.encode(self)
        return b"".join(slices.graph(self))

    def __repr__(self) -> str:
        return (
            f"<GraphData: {len(self.nodes)} nodes, {len(self.edges)} edges, "
            f"{len(self.levels)} levels, {len(self.problems)} problems>"
        )


class RunInfo(Answer, frozen=True):
    """A run in one line."""

    run: str
    """Id of the run."""
    status: RunStatus
    """The status of the run."""
    summary: StateSummary
    """The units, counted by status."""
    started_at: datetime | None = None
    """When the run started, by the producer's clock."""
    finished_at: datetime | None = None
    """When the run ended, by the producer's clock."""


class Update(Answer, frozen=True):
    """What changed in a run between two versions: the units that did, each one whole."""

    run: str
    """Id of the run."""
    version: int
    """The version that this update leads to."""
    cursor: Cursor
    """Where the subscriber stands now; for `subscribe(since=...)`."""
    connected: bool
    """Whether a producer is connected; lies outside `version`."""
    status: RunStatus
    """The status of the run."""
    parallelism: int
    """How many units may run at once; 0 where nobody said."""
    summary: StateSummary
    """All units of the run, counted by status."""
    units: tuple[UnitState, ...]
    """The units that changed, in graph order; units the subscriber does not have come last."""
    since: int | None = None
    """The version that this update leads from; absent where this is the whole run."""
    started_at: datetime | None = None
    """When the run started, by the producer's clock."""
    finished_at: datetime | None = None
    """When the run ended, by the producer's clock."""
    error: str | None = None
    """Why the run failed."""
    graph: GraphData | None = None
    """The graph, where it changed."""

    def json(self) -> bytes:
        """Return the update as JSON; a large one in slices, between which others have the interpreter."""
        graph = 0 if self.graph is None else len(self.graph.nodes) + len(self.graph.edges)
        if len(self.units) + graph <= slices.LARGE:
            return msgspec.json.encode(self)
        return b"".join(slices.update(self, [self.units], self.graph))

    def __repr__(self) -> str:
        span = "the whole run" if self.since is None else f"from version {self.since}"
        return (
            f"<Update of run {self.run!r} to version {self.version}, {span}: {self.status}, "
            f"{len(self.units)} of {self.summary.total} units{', graph' if self.graph else ''}>"
        )


class Rejection(Answer, frozen=True):
    """Something that was handed over and refused; it changed nothing."""

    reason: str
    """What is wrong."""
    text: str
    """How the line or the event begins; control characters are written as escapes."""
    line: int | None = None
    """Its place among all lines given to `handle_lines`, counted from 1; absent for an event."""


class UnknownUnit(Answer, frozen=True):
    """An event that was accepted and changed nothing, because its run had no such unit."""

    type: str
    """What happened, as the event says."""
    run: str
    """Id of the run."""
    unit: str
    """Id of the unit."""
    reason: str
    """Why it changed nothing: no such run, or no such unit in it."""


class JournalStats(Answer, frozen=True):
    """How the journal of a store is doing."""

    path: str
    """The file."""
    durability: str
    """What a loss of power may lose: `lose-nothing`, `lose-a-second` or `lose-unwritten`."""
    oldest: int
    """The oldest version that can be asked for."""
    batches: int
    """Transactions written since the store was opened; each is one sync, where every ack is on disk."""
    bytes: int
    """Size of the file and its WAL."""
    trouble: str | None = None
    """Why nothing can be written just now, so that nothing is acked; absent where all is well."""


class StoreStats(Answer, frozen=True):
    """How a store is doing."""

    version: int
    """How many events the store has accepted, whoever sent them."""
    accepted: int
    """Events accepted since this store was opened."""
    rejected: int
    """Lines and events refused since this store was opened."""
    unknown_units: int
    """Accepted events that named a unit which the run did not have, and so changed nothing."""
    faults: int
    """Accepted events whose rule failed: a bug of ours, with its traceback in the log."""
    pending: int
    """Events handed over since this was asked, and not yet applied."""
    rejections: tuple[Rejection, ...]
    """The last few rejections, oldest first."""
    connections: int | None = None
    """Connections of other processes that are open; absent where the store does not listen."""
    journal: JournalStats | None = None
    """The journal; absent where the store has none."""
    last_unknown: tuple[UnknownUnit, ...] = ()
    """The last few events of unknown units since this store was opened, oldest first."""

    def __repr__(self) -> str:
        return (
            f"<StoreStats at version {self.version}: {self.accepted} accepted, {self.rejected} rejected, "
            f"{self.unknown_units} of unknown units, {self.pending} pending>"
        )


class FlushResult(Answer, frozen=True, omit_defaults=False):
    """What became of everything that this caller has handed over so far."""

    accepted: int
    """Events applied."""
    rejected: int
    """Lines and events refused; `stats()` has the reasons of the last few."""
    unknown_units: int = 0
    """Of those accepted, events that named a unit which the run did not have, and so changed nothing."""


def _json(snapshot: StateSnapshot) -> bytes:
    if len(snapshot.units) <= slices.LARGE:
        return msgspec.json.encode(snapshot)
    return b"".join(slices.snapshot(snapshot, [snapshot.units]))


def _msgpack(answer: Answer) -> bytes:
    try:
        return msgspec.msgpack.encode(answer)
    except (OverflowError, ValueError):
        return msgspec.msgpack.encode(msgspec.to_builtins(answer))


class UnitIndex:
    """Where each unit stands, made by whoever first asks; shared by snapshots with the same units."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[str, int] | None = None

    def places(self, units: tuple[UnitState, ...]) -> dict[str, int]:
        """Return where each unit stands, by its id."""
        if self._places is None:
            self._places = {unit.id: place for place, unit in enumerate(units)}
        return self._places


class Shared:
    """What snapshots of one version share: the index of their units and their encoded bytes.

    Filled by the thread that first needs it, outside the actor. Two threads
    that race compute the same value twice, and one assignment wins.
    """

    __slots__ = ("index", "json", "msgpack", "slices")

    def __init__(self, index: UnitIndex) -> None:
        self.index = index
        self.json: bytes | None = None
        self.slices: tuple[bytes, ...] | None = None  # the JSON in slices, without `connected`
        self.msgpack: bytes | None = None


def share(snapshot: StateSnapshot, shared: Shared) -> StateSnapshot:
    """Let the snapshot use what others of its version have computed."""
    snapshot.__dict__["shared"] = shared
    return snapshot


def shared_by(snapshot: StateSnapshot) -> Shared:
    """Return what a snapshot shares with others of its version."""
    found: Shared | None = snapshot.__dict__.get("shared")
    if found is None:
        found = snapshot.__dict__.setdefault("shared", Shared(UnitIndex()))
    return found


_FLAGS = {  # where the flag stands, and what it may be; in MessagePack, the size of the map comes first
    "json": (0, b'{"connected":false', b'{"connected":true'),
    "msgpack": (1, b"\xa9connected\xc2", b"\xa9connected\xc3"),
}


def _encode_once(snapshot: StateSnapshot, form: str) -> bytes:
    """Encode, keeping all but `connected`, which stands first and is put in front of what was kept."""
    shared = shared_by(snapshot)
    start, no, yes = _FLAGS[form]
    whole: bytes | None = getattr(shared, form)
    if whole is None:
        whole = _json(snapshot) if form == "json" else _msgpack(snapshot)
        setattr(shared, form, whole)
    right, wrong = (yes, no) if snapshot.connected else (no, yes)
    if whole.startswith(wrong, start):
        return whole[:start] + right + whole[start + len(wrong) :]
    return whole
