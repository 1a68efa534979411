"""The state of every run, and the only code that may change it.

Nothing here knows about threads, clocks, files or sockets. Given the same
events in the same order, the same state comes out on any machine; the actor,
recovery and the property tests all lean on that sentence.

Reading order: `RULES` (what each event does), `State.apply`, then the rules
themselves. What they write to, and how answers are made of it, is in
`actorstore.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import length_hint
from typing import Final, NamedTuple, TypeAlias, cast

from actorstore.answers import Cursor, RunInfo, RunStatus, StateSnapshot, UnitStatus, Update
from actorstore.drafts import Draft, GraphParts, SnapshotDraft
from actorstore.errors import UnknownRunError
from actorstore.event import ABSENT, Event
from actorstore.payload import NewUnit, RunPlan, TaskCounts
from actorstore.run import Run, Unit

# Members looked up once: an attribute of an enum class costs 30 ns a time.
_WAITING, _RUNNING, _COMPLETED, _RUN_FAILED = RunStatus
_PENDING, _READY, _IN_PROGRESS, _COMPLETE, _FAILED, _BLOCKED = UnitStatus


# The rules, in the order of the table in docs/events.md.


def orch_started(run: Run, event: Event, version: int) -> None:
    """The run is made anew and runs; the graph's nodes are its units."""
    run.begin(version, _RUNNING)
    run.started_at = event.time
    if event.payload is not ABSENT:
        run.plan(cast(RunPlan, event.payload))


def unit_added(run: Run, event: Event, version: int) -> None:
    """A pending unit joins the graph; an id that exists changes nothing."""
    new = NewUnit() if event.payload is ABSENT else cast(NewUnit, event.payload)
    run.add(event.unit, new, version)


def unit_queued(unit: Unit, event: Event) -> None:
    """The unit is ready; its error is cleared."""
    unit.status = _READY
    unit.error = None


def unit_started(unit: Unit, event: Event) -> None:
    """An attempt began: started at `time`, attempts + 1, error and finish time cleared."""
    unit.status = _IN_PROGRESS
    unit.started_at = event.time
    unit.attempts += 1
    unit.error = None
    unit.finished_at = None
    if event.payload is not ABSENT:
        counts = cast(TaskCounts, event.payload)
        if counts.total_tasks is not None:
            unit.total_tasks = counts.total_tasks
        if counts.completed_tasks is not None:
            unit.current_task = counts.completed_tasks


def task_started(unit: Unit, event: Event) -> None:
    """The unit is at task `task`, or at the next one where no number is given."""
    task = event.task
    unit.current_task = unit.current_task + 1 if task is None else task


def unit_completed(unit: Unit, event: Event) -> None:
    """The unit is complete; finished at `time`."""
    unit.status = _COMPLETE
    unit.finished_at = event.time


def unit_failed(unit: Unit, event: Event) -> None:
    """The unit failed; error stored; finished at `time`."""
    unit.status = _FAILED
    unit.error = event.error or None
    unit.finished_at = event.time


def unit_blocked(unit: Unit, event: Event) -> None:
    """The unit is blocked."""
    unit.status = _BLOCKED


def orch_completed(run: Run, event: Event, version: int) -> None:
    """The run is completed; finished at `time`."""
    run.status = _COMPLETED
    run.finished_at = event.time
    run.changed = version


def orch_failed(run: Run, event: Event, version: int) -> None:
    """The run failed; error stored; finished at `time`."""
    run.status = _RUN_FAILED
    run.error = event.error or None
    run.finished_at = event.time
    run.changed = version


def orch_reset(run: Run, event: Event, version: int) -> None:
    """The run goes back to waiting, with no units and no graph."""
    run.begin(version, _WAITING)


UNIT_RULES: Final[Mapping[str, Callable[[Unit, Event], None]]] = {
    "unit.queued": unit_queued,
    "unit.started": unit_started,
    "task.started": task_started,
    "unit.completed": unit_completed,
    "unit.failed": unit_failed,
    "unit.blocked": unit_blocked,
}
"""Event type -> what it does to its unit."""

RUN_RULES: Final[Mapping[str, Callable[[Run, Event, int], None]]] = {
    "orch.started": orch_started,
    "unit.added": unit_added,
    "orch.completed": orch_completed,
    "orch.failed": orch_failed,
    "orch.reset": orch_reset,
}
"""Event type -> what it does to its run; those of `orch.*` create a run that is not there."""

RULES: Final = {**RUN_RULES, **UNIT_RULES}
"""Every event type that changes state."""


AT_ONCE: Final = 1 << 14
"""How many faces a patient state makes for one answer: some 4 ms."""


class Fault(NamedTuple):
    """A rule that failed: a bug in this module, and no reason to stop."""

    version: int
    """The version that the event was counted as."""
    event: Event
    """The event."""
    error: Exception
    """What its rule raised."""


Unknown: TypeAlias = tuple[int, Event, bool]
"""An event of an unknown unit: the version that it was counted as, itself, and whether its run was there.

A plain tuple: a named one takes 0.3 us to make, more than an event takes to be applied.
"""


class BehindError(Exception):
    """Raised by a patient state where an answer needs more faces than are made in one turn."""


class State:
    """All runs of a store, its version, and nothing else.

    A patient state raises `BehindError` in place of an answer for which it would
    have to make very many faces of units; `catch_up` makes some at a time.

    Args:
        store: Id of the store, which goes into cursors.
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self.version = 0
        self.unknown_units = 0
        self.unknown: list[Unknown] = []
        self.is_patient = False
        self.faults: list[Fault] = []
        self.runs: dict[str, Run] = {}
        self._changed: set[str] = set()  # runs with events of units since this was last asked for
        self._turned: set[str] = set()  # runs with events of their own
        self._nothing = Run("", 0)  # what is seen before any run
        self._latest = self._nothing
        self._started = False

    def apply(self, events: list[Event]) -> None:
        """Apply events in their order; each is one version, whatever it does.

        Never raises: an event whose rule fails is counted and put into `faults`,
        and one of an unknown unit into `unknown`; the caller takes both away.

        Args:
            events: Valid, their payloads open (`actorstore.payload.open_payload`).
        """
        end = self.version + len(events)
        left = iter(events)
        unit_rule = UNIT_RULES.get
        current: str | None = None
        run = nothing = self._nothing
        units: dict[str, Unit] = {}
        unseen: list[Unit] = []
        for event in left:
            try:
                rule = unit_rule(event.type)
                if rule is None:
                    if event.type in RUN_RULES:
                        current = None
                        self._apply_to_run(event, end - length_hint(left))
                    continue
                if event.run != current:
                    current = event.run
                    run = self.runs.get(current, nothing)
                    units, unseen = run.units, run.unseen
                    if run is not self._nothing:
                        self._changed.add(current)
                unit = units.get(event.unit)
                if unit is None:
                    self.unknown_units += 1
                    self.unknown.append((end - length_hint(left), event, run is not nothing))
                    continue
                if unit.seen:
                    unit.seen = False
                    unseen.append(unit)
                rule(unit, event)
            except Exception as error:
                self.faults.append(Fault(end - length_hint(left), event, error))
        self.version = end

    def _apply_to_run(self, event: Event, version: int) -> None:
        run = self.runs.get(event.run)
        if run is None:
            if event.type == "unit.added":
                self.unknown_units += 1
                self.unknown.append((version, event, False))
                return
            run = self.runs[event.run] = Run(event.run, version)
            if not self._started:
                self._latest = run
        if event.type == "orch.started":
            self._latest, self._started = run, True
        self._turned.add(run.id)
        RUN_RULES[event.type](run, event, version)

    def take_changed(self) -> tuple[set[str], set[str]]:
        """Return the runs with events of units since the last call, and those with events of their own."""
        taken = self._changed, self._turned
        if self._changed:
            self._changed = set()
        if self._turned:
            self._turned = set()
        return taken

    # Checkpoints.

    @property
    def latest(self) -> str | None:
        """Id of the run that started last, or was created last before any had; `None` where there is none."""
        return None if self._latest is self._nothing else self._latest.id

    @property
    def has_started(self) -> bool:
        """Whether any run has started."""
        return self._started

    def restore(self, runs: Iterable[Run], version: int, unknown_units: int) -> None:
        """Take runs as they were at a version."""
        self.runs = {run.id: run for run in runs}
        self.version = version
        self.unknown_units = unknown_units

    def start_from(self, latest: str | None, *, has_started: bool) -> bool:
        """Say which run was the last to start; `False` where there is no such run."""
        if latest is not None:
            if latest not in self.runs:
                return False
            self._latest = self.runs[latest]
        self._started = has_started
        return True

    def run(self, id: str | None) -> Run:
        """Return a run: the one named, or the one that started last.

        Before any has started it is the one created last, and before that an
        empty one that waits.

        Raises:
            UnknownRunError: No `orch.*` event has created it.
        """
        if id is None:
            return self._latest
        run = self.runs.get(id)
        if run is None:
            raise UnknownRunError(id)
        return run

    @property
    def behind(self) -> int:
        """How many faces of units have to be made before all runs can be told."""
        return sum([run.behind for run in self.runs.values()])

    def catch_up(self, most: int) -> None:
        """Make some of the faces that are missing or out of date."""
        for run in self.runs.values():
            behind = run.behind
            if behind:
                run.catch_up(self.version, most)
                most -= behind
                if most <= 0:
                    return

    def snapshot(self, run: str | None = None, connected: bool = False) -> StateSnapshot:
        """Return a run as it is now."""
        return self.draft_snapshot(run, connected).finish()

    def draft_snapshot(self, run: str | None = None, connected: bool = False) -> SnapshotDraft:
        """Return a run as it is now, for the caller to finish."""
        return self._ready(run).snapshot(self.version, connected)

    def copy(
        self, run: str | None = None, since: Cursor | None = None, connected: bool = False
    ) -> tuple[SnapshotDraft, Cursor] | Update:
        """Return a run and the cursor it stands at, or what changed since a cursor that fits; no graph."""
        found = self._ready(run)
        version = self._place(found, since)
        cursor = self._cursor(found)
        if version is None:
            return found.snapshot(self.version, connected), cursor
        draft = found.update(self.version, connected, version, cursor)
        if draft.is_whole_run:
            return found.snapshot(self.version, connected), cursor
        return draft.bare()

    def graph(self, run: str | None = None) -> GraphParts | None:
        """Return the parts of a run's graph."""
        return self.run(run).graph()

    def infos(self) -> tuple[RunInfo, ...]:
        """Return all runs, in the order in which they were created."""
        if self.is_patient and self.behind > AT_ONCE:
            raise BehindError
        return tuple([run.info(self.version) for run in self.runs.values()])

    def update(self, run: str | None = None, since: Cursor | None = None, connected: bool = False) -> Draft:
        """Return what changed since the cursor; the whole run where it does not fit."""
        found = self._ready(run)
        return found.update(self.version, connected, self._place(found, since), self._cursor(found))

    def has_news(self, run: str | None, since: Cursor) -> bool:
        """Whether an update since the cursor would say anything."""
        found = self._ready(run)
        version = self._place(found, since)
        return version is None or found.has_news(version, self.version)

    def _ready(self, id: str | None) -> Run:
        """Return a run that can be told at once."""
        run = self.run(id)
        if self.is_patient and run.behind > AT_ONCE:
            raise BehindError
        return run

    def _cursor(self, run: Run) -> Cursor:
        return Cursor(f"{self.store}.{run.born}.{self.version}")

    def _place(self, run: Run, cursor: Cursor | None) -> int | None:
        """The version that a cursor stands at, or `None` where it does not fit the run."""
        prefix = f"{self.store}.{run.born}."
        if cursor is None or not cursor.startswith(prefix):
            return None
        version = cursor[len(prefix) :]
        if not (version.isascii() and version.isdecimal() and len(version) <= 16):
            return None
        return int(version) if run.born <= int(version) <= self.version else None
