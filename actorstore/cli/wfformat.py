"""Recorded workflows (WfFormat, the JSON of the WfCommons project) as the events of a run.

A recording says what each task waited for and how long it ran, and not when it
started. So it is run again, on paper: a worker that is free takes the first
ready task in the order of the file (list scheduling), at simulated times that
begin where the recording began. The same bytes always make the same events.

Reading order: `events`, `Workflow` (what the format says, as far as it is
needed), `_schedule`.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from actorstore.answers import GraphData, GraphEdge, GraphNode
from actorstore.event import Event, explain
from actorstore.graph import build

VERSIONS: Final = ("1.5", "1.6")
"""The versions of the format that are read; 1.6 only adds what is not needed here."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When a recording began that does not say so."""

LONGEST: Final = 10 * 365 * 86_400
"""The longest run time that is believed, in seconds: ten years."""

Name = Annotated[str, Meta(min_length=1)]


class WorkflowError(ValueError):
    """Raised when a document is no WfFormat instance, or one that cannot have run.

    Attributes:
        reason: What is wrong.
        line: Where, counted from 1; `None` where it is about no line.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason, line)
        self.reason = reason
        self.line = line

    def __str__(self) -> str:
        return self.reason if self.line is None else f"line {self.line}: {self.reason}"


class SpecifiedTask(msgspec.Struct, frozen=True, gc=False):
    """A task as the specification has it."""

    id: Name
    """Task id; the id of the unit."""
    parents: tuple[str, ...] = ()
    """Ids of the tasks that it waits for."""
    children: tuple[str, ...] = ()
    """Ids of the tasks that wait for it."""


class ExecutedTask(msgspec.Struct, frozen=True, gc=False):
    """A task as it was recorded."""

    id: str
    """Task id."""
    runtime: Annotated[float, Meta(ge=0, le=LONGEST)] = msgspec.field(name="runtimeInSeconds")
    """How long it ran, in seconds."""


class Specification(msgspec.Struct, frozen=True, gc=False):
    """What was to be done."""

    tasks: tuple[SpecifiedTask, ...]
    """The tasks, in the order of the units."""


class Execution(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What was recorded."""

    tasks: tuple[ExecutedTask, ...]
    """The tasks, in any order."""
    executed_at: str | None = None
    """When it began; recorders write it in many ways."""


class Body(msgspec.Struct, frozen=True, gc=False):
    """The two halves of an instance."""

    specification: Specification
    """What was to be done."""
    execution: Execution | None = None
    """What was recorded; absent where the workflow never ran."""


class Workflow(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A WfFormat instance, as far as it is needed."""

    workflow: Body
    """The two halves."""
    name: str = ""
    """What people call it."""
    created_at: str | None = None
    """When the file was written."""


class _Version(msgspec.Struct, gc=False, rename="camel"):
    schema_version: str | None = None


_decoder: Final = msgspec.json.Decoder(Workflow)
_version: Final = msgspec.json.Decoder(_Version)


def read(document: bytes) -> Workflow:
    """Read a WfFormat instance.

    Raises:
        WorkflowError: It is none; the reason names the field, the line where the JSON breaks off.
    """
    try:
        return _decoder.decode(document)
    except msgspec.ValidationError as error:
        raise WorkflowError(explain(error) + _version_hint(document)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        place = re.search(r" \(byte (\d+)\)$", str(error))
        end = int(place[1]) if place else len(document.rstrip())
        reason = explain(error).removesuffix(place[0]) if place else explain(error)
        raise WorkflowError(reason, 1 + document.count(b"\n", 0, end)) from None


def events(document: bytes | Workflow, *, machines: int, run: str | None = None) -> list[Event]:
    """Return the events of a run that does what was recorded, on so many workers.

    Every task is one unit with one task. At one time, completions come before
    what they make ready, and that before what starts, each in the order of the
    file.

    Args:
        document: A WfFormat instance.
        machines: How many workers there are; at least 1.
        run: Id of the run; the workflow's name, where not given.

    Raises:
        WorkflowError: The document is no WfFormat instance, has no recorded run
            times, or its tasks cannot run in any order.
        InvalidEventError: An id is too long.
    """
    if machines < 1:
        raise ValueError(f"machines is {machines}; at least one is needed")
    workflow = document if isinstance(document, Workflow) else read(document)
    if run is None:
        run = workflow.name
    graph = _graph(workflow.workflow.specification)
    runtimes = _runtimes(workflow.workflow, graph)
    start = _started_at(workflow)
    try:
        return list(_schedule(graph, runtimes, machines, run, start))
    except OverflowError:
        raise WorkflowError(f"the run times, added to {start.isoformat()}, lead past the year 9999") from None


def _graph(specification: Specification) -> GraphData:
    """Return the graph, and refuse one that has problems: no recorded run can have had them."""
    depends_on = {task.id: dict.fromkeys(task.parents) for task in specification.tasks}
    for task in specification.tasks:
        for child in task.children:
            depends_on.setdefault(child, {}).setdefault(task.id)
    nodes = [GraphNode(task.id, 0, 1) for task in specification.tasks]
    graph = build(nodes, [GraphEdge(id, other) for id, others in depends_on.items() for other in others])
    if graph.problems:
        more = len(graph.problems) - 1
        others = f" (and {more:,} more problem{'s' if more > 1 else ''})" if more else ""
        raise WorkflowError(f"the tasks are no sound graph: {graph.problems[0]}{others}")
    return graph


def _runtimes(body: Body, graph: GraphData) -> list[timedelta]:
    """Return how long each unit takes, in the order of the graph."""
    if body.execution is None:
        raise WorkflowError("the workflow has no `execution`, so there are no run times to replay")
    recorded = {task.id: task.runtime for task in body.execution.tasks}
    try:
        return [timedelta(microseconds=round(recorded[node.id] * 1e6)) for node in graph.nodes]
    except KeyError as error:
        raise WorkflowError(f"task {error.args[0]!r} has no recorded run time") from None


def _schedule(
    graph: GraphData, runtimes: list[timedelta], machines: int, run: str, start: datetime
) -> Iterator[Event]:
    ids = [node.id for node in graph.nodes]
    place = {id: number for number, id in enumerate(ids)}
    waits_for = [0] * len(ids)
    waiting: list[list[int]] = [[] for _ in ids]
    for edge in graph.edges:
        waits_for[place[edge.from_]] += 1
        waiting[place[edge.to]].append(place[edge.from_])

    now = start
    free = machines
    ready = [unit for unit, others in enumerate(waits_for) if not others]  # a heap: sorted is one
    running: list[tuple[datetime, int]] = []
    yield Event.orch_started(graph, parallelism=machines, run=run, time=now)
    for unit in ready:
        yield Event.unit_queued(ids[unit], run=run, time=now)
    while ready or running:
        while ready and free:
            unit = heapq.heappop(ready)
            free -= 1
            heapq.heappush(running, (now + runtimes[unit], unit))
            yield Event.unit_started(ids[unit], run=run, time=now)
            yield Event.task_started(ids[unit], 1, run=run, time=now)
        now = running[0][0]
        released = []
        while running and running[0][0] == now:
            _, unit = heapq.heappop(running)
            free += 1
            yield Event.unit_completed(ids[unit], run=run, time=now)
            for waiter in waiting[unit]:
                waits_for[waiter] -= 1
                if not waits_for[waiter]:
                    released.append(waiter)
        for unit in sorted(released):
            heapq.heappush(ready, unit)
            yield Event.unit_queued(ids[unit], run=run, time=now)
    yield Event.orch_completed(run=run, time=now)


def _started_at(workflow: Workflow) -> datetime:
    execution = workflow.workflow.execution
    for text in (execution.executed_at if execution else None, workflow.created_at):
        if text is not None and (time := _time(text)) is not None:
            return time
    return EPOCH


def _time(text: str) -> datetime | None:
    """Read a time as recorders write it: ISO 8601, with and without dashes, or month-day-year."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        try:
            time = datetime.strptime(text, "%m-%d-%yT%H:%M:%S%z")
        except ValueError:
            return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _version_hint(document: bytes) -> str:
    try:
        version = _version.decode(document).schema_version
    except msgspec.ValidationError:
        return ""
    if version is None or version in VERSIONS:
        return ""
    return f" (its schemaVersion is {version!r}; this reads {' and '.join(VERSIONS)})"
