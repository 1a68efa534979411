"""Celery's `celery.events.state.State`, which Flower and `celery events` keep their view of a cluster in.

Measured: events as the dicts that Celery's receiver hands to a `State`, made of ours before the clock runs,
applied by `freeze_while` and the dispatcher itself, which spares a lock an event; one at a
time is `handle_event`.

Equivalent: a unit is a Celery task, its id the `uuid`.

    unit.queued     task-received    state RECEIVED, with the number of tasks
    unit.started    task-started     state STARTED, with the attempts as `retries`
    task.started    task-progress    a custom state, as Celery's users report progress; the number as a field
    unit.completed  task-succeeded   state SUCCESS
    unit.failed     task-failed      state FAILURE, with the error as `exception`
    unit.blocked    task-blocked     a custom state
    task.completed  task-completed   a custom state; or, with `lean`, as the types below
    any other       itself           counted, and nothing else: no group of Celery's

Not equivalent, and each in Celery's favour: there is no graph, no run and no status of it, and a unit is
not known before its first event (`totals` adds the pending ones from the graph); `local_received` is
absent, which spares the bookkeeping of worker heartbeats; the memory limits are set so high that nothing is
evicted and the heap of events, which would be shortened at its front, is not. Not equivalent in ours:
Celery orders by its clock and its states, so an event that comes late is merged; hence a retry is fed as
`task-retried` first, which is one event more. `unit.added` and nodes that start with a status are not
translated; no workload has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from celery.events.state import State

from .state import Progress, Started, Totals

if TYPE_CHECKING:
    from actorstore import Event

_TYPES = {
    "unit.queued": "task-received",
    "unit.started": "task-started",
    "task.started": "task-progress",
    "unit.completed": "task-succeeded",
    "unit.failed": "task-failed",
    "unit.blocked": "task-blocked",
}

_STATUSES = {
    "RECEIVED": "ready",
    "RETRY": "ready",
    "STARTED": "in_progress",
    "PROGRESS": "in_progress",
    "COMPLETED": "in_progress",
    "SUCCESS": "complete",
    "FAILURE": "failed",
    "BLOCKED": "blocked",
}


class CeleryStore:
    """A `State`, and what is needed to say the same words about it.

    Args:
        lean: Have Celery merely count `task.completed`, which changes nothing in a unit, instead of taking
            it as the event of a task that it is.
    """

    def __init__(self, lean: bool = False) -> None:
        self._types = _TYPES if lean else _TYPES | {"task.completed": "task-completed"}
        self._state = State(max_tasks_in_memory=1_000_000)
        self._units: dict[str, int] = {}
        self._added = 0
        self.handle_event = self._state.event

    def convert(self, events: Iterable[Event]) -> list[dict[str, Any]]:
        """Return `events` as Celery's, for this store only, which keeps and changes the dicts."""
        converted: list[dict[str, Any]] = []
        attempts: dict[str, int] = {}
        current: dict[str, int] = {}
        over: set[str] = set()
        for event in events:
            unit = event.unit
            if event.type == "orch.started" and event.payload:
                graph = msgspec.json.decode(event.payload, type=Started).graph
                self._units = {node.id: node.tasks for node in graph.nodes} if graph is not None else {}
            if event.type not in self._types:
                converted.append({"type": event.type})
                continue
            if unit not in self._units:
                converted.append({"type": "unknown"})
                continue
            fields = {
                "type": self._types[event.type],
                "uuid": unit,
                "hostname": "worker@localhost",
                "timestamp": event.time.timestamp() if event.time is not None else 0.0,
                "local_received": None,
                "clock": 0,
            }
            if event.type in ("unit.queued", "unit.started") and unit in over:
                converted.append(fields | {"type": "task-retried"})
                over.discard(unit)
                self._added += 1
            if event.type == "unit.queued":
                fields["total_tasks"] = self._units[unit]
            elif event.type == "unit.started":
                attempts[unit] = attempts.get(unit, 0) + 1
                fields["retries"] = attempts[unit] - 1
                progress = msgspec.json.decode(event.payload, type=Progress) if event.payload else Progress()
                if progress.total_tasks is not None:
                    fields["total_tasks"] = progress.total_tasks
                if progress.completed_tasks is not None:
                    fields["current_task"] = current[unit] = progress.completed_tasks
            elif event.type == "task.started":
                current[unit] = current.get(unit, 0) + 1 if event.task is None else event.task
                fields["current_task"] = current[unit]
            elif event.type in ("unit.completed", "unit.failed", "unit.blocked"):
                over.add(unit)
                if event.type == "unit.failed":
                    fields["exception"] = event.error
            converted.append(fields)
        for clock, fields in enumerate(converted, start=1):
            if "clock" in fields:
                fields["clock"] = clock
        return converted

    def handle_events(self, converted: Iterable[dict[str, Any]]) -> None:
        """Apply events that `convert` made."""
        self._state.freeze_while(self._feed, converted)

    def totals(self) -> Totals:
        """Return what this peer ended up with."""
        counts = dict.fromkeys(("pending", *_STATUSES.values()), 0)
        counts["pending"] = len(self._units) - len(self._state.tasks)
        current_tasks = attempts = 0
        for _, task in self._state.itertasks():
            counts[_STATUSES[task.state]] += 1
            current_tasks += getattr(task, "current_task", 0)
            if task.retries is not None:
                attempts += task.retries + 1
        return Totals(
            accepted=self._state.event_count - self._added,
            total=len(self._units),
            current_tasks=current_tasks,
            attempts=attempts,
            **counts,
        )

    def _feed(self, converted: Iterable[dict[str, Any]]) -> None:
        apply = self._state._event
        for event in converted:
            apply(event)
