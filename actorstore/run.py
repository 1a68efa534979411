"""One run: the records of its units, and the answers that are made from them.

A unit is a private mutable record. Its public face, a frozen `UnitState`, is
made when somebody asks and kept until the record changes; records that changed
since then stand in a list. So an event costs a few stores, whoever watches, and
an answer costs what changed since the last one.

Pure, as `actorstore.state` is, whose rules are the only ones to write here.

Reading order: `Unit`, `Run`, then `GraphParts` and `Draft`, which put off what
takes long to those who ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import takewhile

import msgspec

from actorstore.answers import (
    Cursor,
    GraphData,
    RunInfo,
    RunStatus,
    Shared,
    StateSnapshot,
    StateSummary,
    UnitIndex,
    UnitState,
    UnitStatus,
    Update,
    share,
)
from actorstore.graph import EMPTY, extend
from actorstore.payload import NewUnit, RunPlan, SentGraph, SentNode


class Unit:
    """The private record of one unit; only rules write to it."""

    __slots__ = (
        "attempts",
        "current_task",
        "error",
        "finished_at",
        "id",
        "place",
        "seen",
        "started_at",
        "status",
        "total_tasks",
    )

    def __init__(self, id: str, place: int, status: UnitStatus, current_task: int, total_tasks: int) -> None:
        self.id = id
        self.place = place  # in the order of the graph
        self.status = status
        self.current_task = current_task
        self.total_tasks = total_tasks
        self.attempts = 0
        self.error: str | None = None
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.seen = False  # whether its public face, where it has one, is up to date

    @classmethod
    def of(cls, face: UnitState, place: int) -> Unit:
        """Return the record of a unit that others have seen like this."""
        unit = cls(face.id, place, face.status, face.current_task, face.total_tasks)
        unit.attempts = face.attempts
        unit.error = face.error
        unit.started_at = face.started_at
        unit.finished_at = face.finished_at
        unit.seen = True
        return unit

    def face(self) -> UnitState:
        """Return the unit as others see it."""
        self.seen = True
        return UnitState(
            self.id,
            self.status,
            self.current_task,
            self.total_tasks,
            self.attempts,
            self.error,
            self.started_at,
            self.finished_at,
        )


def _units(nodes: Iterable[SentNode]) -> dict[str, Unit]:
    return {
        node.id: Unit(
            node.id, place, node.status or UnitStatus.PENDING, node.completed_tasks or 0, node.tasks or 0
        )
        for place, node in enumerate(nodes)
    }


class GraphParts:
    """A graph as it was sent and the units added to it since, put together by whoever first asks."""

    __slots__ = ("_parts",)

    def __init__(self, base: SentGraph | GraphData, added: tuple[tuple[str, NewUnit], ...] = ()) -> None:
        self._parts = base, added  # replaced as one, because the actor may read it meanwhile

    def plus(self, added: tuple[tuple[str, NewUnit], ...]) -> GraphParts:
        """Return the graph with more units."""
        base, before = self._parts
        return GraphParts(base, before + added)

    @property
    def whole(self) -> bool:
        """Whether the graph is put together already."""
        base, added = self._parts
        return isinstance(base, GraphData) and not added

    def data(self) -> GraphData:
        """Return the whole graph; the first call costs time per unit and edge."""
        base, added = self._parts
        graph = base if isinstance(base, GraphData) else base.check()
        if added:
            graph = extend(graph, [(id, unit.tasks, unit.depends_on) for id, unit in added])
        self._parts = graph, ()
        return graph


class Draft:
    """An update that still lacks its graph, so that the actor need not wait for one."""

    __slots__ = ("_graph", "_update")

    def __init__(self, update: Update, graph: GraphParts | None) -> None:
        self._update = update
        self._graph = graph

    @property
    def costly(self) -> bool:
        """Whether `finish` has to put a graph together."""
        return self._graph is not None and not self._graph.whole

    def bare(self) -> Update:
        """Return the update without its graph."""
        return self._update

    def finish(self) -> Update:
        """Return the update, its graph put together."""
        if self._graph is None:
            return self._update
        return msgspec.structs.replace(self._update, graph=self._graph.data())


class Run:
    """One run: what its rules have made of it, and its answers."""

    def __init__(self, id: str, version: int) -> None:
        self.id = id
        self.begin(version, RunStatus.WAITING)

    def begin(self, version: int, status: RunStatus) -> None:
        """Forget everything; cursors from before do not fit any more."""
        self.born = version
        self.changed = version  # the version of the last change to the run's own fields
        self.status = status
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.error: str | None = None
        self.parallelism = 0
        self.units: dict[str, Unit] = {}
        self.unseen: list[Unit] = []  # units whose face is out of date
        self._faces: list[UnitState] | None = None  # in graph order; made when first asked for
        self._tuple: tuple[UnitState, ...] | None = None
        self._counts = dict.fromkeys(UnitStatus, 0)
        self._first_seen = version  # the version that the faces were made at
        self._last_seen: dict[int, int] = {}  # place -> version it was brought up to date at, newest last
        self._index = UnitIndex()
        self._graph: GraphParts | None = None
        self._added: list[tuple[str, NewUnit]] = []  # not yet in the graph
        self._graph_changed = version
        self._snapshot: StateSnapshot | None = None

    # What the rules of runs do.

    def plan(self, plan: RunPlan) -> None:
        """Take parallelism and graph, and make the units from the graph's nodes."""
        self.parallelism = plan.parallelism or 0
        if plan.graph is None:
            return
        self._graph = GraphParts(plan.graph)
        nodes = plan.graph.nodes or []
        self.units = _units(nodes)
        if len(self.units) < len(nodes):
            first = {node.id: node for node in reversed(nodes)}
            self.units = _units([node for node in nodes if first[node.id] is node])

    def add(self, id: str, new: NewUnit, version: int) -> None:
        """Append a pending unit; an id that exists changes nothing."""
        if id in self.units:
            return
        unit = Unit(id, len(self.units), UnitStatus.PENDING, 0, new.tasks)
        self.units[id] = unit
        self.unseen.append(unit)
        self.changed = self._graph_changed = version
        self._index = UnitIndex()
        self._added.append((id, new))

    # Checkpoints.

    @property
    def graph_changed(self) -> int:
        """The version of the last change to the graph."""
        return self._graph_changed

    def faces(self, version: int) -> tuple[UnitState, ...]:
        """Return the units as others see them, in graph order."""
        self._bring_up_to_date(version)
        if self._tuple is None:
            self._tuple = tuple(self._faces or ())
        return self._tuple

    def restore(
        self, faces: list[UnitState], graph: GraphParts | None, graph_changed: int, version: int
    ) -> None:
        """Take units and graph as they were at a version; cursors from before it do not fit any more."""
        self._faces = faces
        self.units = {face.id: Unit.of(face, place) for place, face in enumerate(faces)}
        for face in faces:
            self._counts[face.status] += 1
        self._graph = graph
        self._graph_changed = graph_changed
        self._first_seen = version

    # What others see.

    def snapshot(self, version: int, connected: bool) -> StateSnapshot:
        """Return the run; the same object as before where nothing has happened."""
        kept = self._snapshot
        if kept is not None and kept.version == version and kept.connected == connected:
            return kept
        units = self.faces(version)
        shared = kept.__dict__["shared"] if kept and kept.version == version else Shared(self._index)
        self._snapshot = StateSnapshot(
            connected,
            self.id,
            version,
            self.status,
            self.parallelism,
            units,
            self._summary(),
            self.started_at,
            self.finished_at,
            self.error,
        )
        return share(self._snapshot, shared)

    def update(self, version: int, connected: bool, since: int | None, cursor: Cursor) -> Draft:
        """Return what changed after `since`, or the whole run; costs time per changed unit."""
        self._bring_up_to_date(version)
        if since is not None and since < self._first_seen:
            since = None  # from before a restart: nobody knows what changed in between
        graph = self.graph() if since is None or self._graph_changed > since else None
        if since is None:
            units = self.snapshot(version, connected).units
        else:
            newest_first = reversed(self._last_seen.items())
            places = sorted(place for place, at in takewhile(lambda item: item[1] > since, newest_first))
            faces = self._faces or []
            units = tuple([faces[place] for place in places])
        update = Update(
            self.id,
            version,
            cursor,
            connected,
            self.status,
            self.parallelism,
            self._summary(),
            units,
            since,
            self.started_at,
            self.finished_at,
            self.error,
        )
        return Draft(update, graph)

    def has_news(self, since: int) -> bool:
        """Whether an update from `since` would say anything."""
        if self.unseen or self.changed > since or since < self._first_seen:
            return True
        return bool(self._last_seen) and self._last_seen[next(reversed(self._last_seen))] > since

    def graph(self) -> GraphParts | None:
        """Return the parts of the graph, or `None` where none has arrived."""
        if self._added:
            self._graph = (self._graph or GraphParts(EMPTY)).plus(tuple(self._added))
            self._added.clear()
        return self._graph

    def info(self, version: int) -> RunInfo:
        """Return the run in one line."""
        self._bring_up_to_date(version)
        return RunInfo(self.id, self.status, self._summary(), self.started_at, self.finished_at)

    def _summary(self) -> StateSummary:
        return StateSummary(len(self.units), *self._counts.values())

    def _bring_up_to_date(self, version: int) -> None:
        """Make the faces of units that changed, and note that they did."""
        faces, counts = self._faces, self._counts
        if faces is None:
            self._faces = faces = [unit.face() for unit in self.units.values()]
            for face in faces:
                counts[face.status] += 1
            self._first_seen = version
        elif self.unseen:
            for unit in self.unseen:
                place, face = unit.place, unit.face()
                if place < len(faces):
                    counts[faces[place].status] -= 1
                    faces[place] = face
                else:
                    faces.append(face)
                counts[face.status] += 1
                self._last_seen.pop(place, None)
                self._last_seen[place] = version
            self._tuple = None
        self.unseen.clear()
