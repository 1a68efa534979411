"""One run: the records of its units, and the answers that are made from them.

A unit is a private mutable record. Its public face, a frozen `UnitState`, is
made when somebody asks and kept until the record changes; records that changed
since then stand in a list. So an event costs a few stores, whoever watches, and
an answer costs what changed since the last one.

Pure, as `actorstore.state` is, whose rules are the only ones to write here.

What takes long is put off to those who ask for it: the answers are drafts
(`actorstore.drafts`). The faces of a large run are made bit by bit
(`Run.catch_up`), so that no question has to wait for a million of them.

Reading order: `Unit`, `Run`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import takewhile

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
)
from actorstore.drafts import Draft, GraphParts, SnapshotDraft
from actorstore.graph import EMPTY
from actorstore.payload import LargeGraph, NewUnit, RunPlan, SentNode, SlicedGraph
from actorstore.unitlist import Chunks, UnitList


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
        self._faces = UnitList()  # in graph order; made when first asked for
        self._faceless: list[Unit] | None = None  # all units, while some have no face yet
        self._has_faces = False  # whether all units but those in `unseen` have one
        self._counts = dict.fromkeys(UnitStatus, 0)
        self._first_seen = version  # the version that the faces were made at
        self._last_seen: dict[int, int] = {}  # place -> version it was brought up to date at, newest last
        self._index = UnitIndex()
        self._graph: GraphParts | None = None
        self._added: list[tuple[str, NewUnit]] = []  # since the graph was sent; only appended to
        self._graph_changed = version
        self._snapshot: SnapshotDraft | None = None

    # What the rules of runs do.

    def plan(self, plan: RunPlan) -> None:
        """Take parallelism and graph, and make the units from the graph's nodes."""
        self.parallelism = plan.parallelism or 0
        if plan.graph is None:
            return
        graph = plan.graph
        kept = graph.kept if isinstance(graph, LargeGraph) else None
        self._graph = GraphParts(graph if kept is None else kept, self._added)
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
        if self._has_faces:
            self.unseen.append(unit)
        elif self._faceless is not None:
            self._faceless.append(unit)
        self.changed = self._graph_changed = version
        self._index = UnitIndex()
        self._added.append((id, new))

    # Checkpoints.

    @property
    def graph_changed(self) -> int:
        """The version of the last change to the graph."""
        return self._graph_changed

    def faces(self, version: int) -> Chunks:
        """Return the units as others see them, in graph order."""
        self.catch_up(version)
        return self._faces.freeze()

    def restore(
        self,
        faces: list[UnitState],
        graph: SlicedGraph | GraphData | None,
        added: list[tuple[str, NewUnit]],
        graph_changed: int,
        version: int,
    ) -> None:
        """Take units and graph as they were at a version; cursors from before it do not fit any more."""
        self._faces = UnitList(faces)
        self._has_faces = True
        self.units = {face.id: Unit.of(face, place) for place, face in enumerate(faces)}
        for face in faces:
            self._counts[face.status] += 1
        self._added = added
        self._graph = None if graph is None else GraphParts(graph, added, len(added))
        self._graph_changed = graph_changed
        self._first_seen = version

    # What others see.

    def snapshot(self, version: int, connected: bool) -> SnapshotDraft:
        """Return the run; the same object as before where nothing has happened."""
        kept = self._snapshot
        if kept is not None and kept.version == version and kept.connected == connected:
            return kept
        chunks = self.faces(version)
        shared = kept.shared if kept and kept.version == version else Shared(self._index)
        bare = StateSnapshot(
            connected,
            self.id,
            version,
            self.status,
            self.parallelism,
            (),
            self._summary(),
            self.started_at,
            self.finished_at,
            self.error,
        )
        self._snapshot = SnapshotDraft(bare, chunks, shared)
        return self._snapshot

    def update(self, version: int, connected: bool, since: int | None, cursor: Cursor) -> Draft:
        """Return what changed after `since`, or the whole run; costs time per changed unit."""
        self.catch_up(version)
        if since is not None and since < self._first_seen:
            since = None  # from before a restart: nobody knows what changed in between
        graph = self.graph() if since is None or self._graph_changed > since else None
        units: tuple[UnitState, ...] = ()
        if since is not None:
            newest_first = reversed(self._last_seen.items())
            places = sorted(place for place, at in takewhile(lambda item: item[1] > since, newest_first))
            units = self._faces.some(places)
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
        return Draft(update, graph, self._faces.freeze() if since is None else None)

    def has_news(self, since: int, version: int) -> bool:
        """Whether an update from `since` would say anything."""
        if not self._has_faces:
            self.catch_up(version)  # without faces, nobody would note which units change from now on
        if self.unseen or self.changed > since or since < self._first_seen:
            return True
        return bool(self._last_seen) and self._last_seen[next(reversed(self._last_seen))] > since

    def graph(self) -> GraphParts | None:
        """Return the parts of the graph, or `None` where none has arrived."""
        if self._graph is None:
            if not self._added:
                return None
            self._graph = GraphParts(EMPTY, self._added)
        if self._graph.count < len(self._added):
            self._graph = self._graph.plus(self._added)
        return self._graph

    def info(self, version: int) -> RunInfo:
        """Return the run in one line."""
        self.catch_up(version)
        return RunInfo(self.id, self.status, self._summary(), self.started_at, self.finished_at)

    def _summary(self) -> StateSummary:
        return StateSummary(len(self.units), *self._counts.values())

    @property
    def behind(self) -> int:
        """How many faces have to be made before the next answer."""
        return len(self.unseen) if self._has_faces else len(self.units) - len(self._faces)

    def catch_up(self, version: int, most: int | None = None) -> None:
        """Make the faces of units that have none, and of those that changed, and note that they did.

        Args:
            version: The version that the units are at.
            most: How many faces to make at most; all, where not given. What is
                left is left to the next call.
        """
        if not self._has_faces:
            self._make_faces(version, most)
            if most is not None:
                return
        faces, counts = self._faces, self._counts
        todo = self.unseen if most is None else self.unseen[:most]
        last_seen, size = self._last_seen, len(faces)
        changed: list[tuple[int, UnitState]] = []
        more: list[UnitState] = []
        for unit in todo:
            place, face = unit.place, unit.face()
            if place < size:
                changed.append((place, face))
            else:
                more.append(face)
            counts[face.status] += 1
            last_seen.pop(place, None)
            last_seen[place] = version
        for face in faces.replace(changed):
            counts[face.status] -= 1
        if more:
            faces.extend(more)
        del self.unseen[: len(todo)]  # in place: the rest may be very many, and turns are short

    def _make_faces(self, version: int, most: int | None) -> None:
        if self._faceless is None:
            self._faceless = list(self.units.values())
        start = len(self._faces)
        end = len(self._faceless) if most is None else start + most
        made = [unit.face() for unit in self._faceless[start:end]]
        for face in made:
            self._counts[face.status] += 1
        self._faces.extend(made)
        if end >= len(self._faceless):
            self._faceless = None
            self._has_faces = True
            self._first_seen = version
