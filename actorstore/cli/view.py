"""A store as people watch it: a live screen on a terminal, and plain lines elsewhere.

A view looks at the store ten times a second, through a cursor, so it costs the
store what changed and never holds up intake; changes in between are merged.
Whoever wants every step seen calls `look` after it.

    with Store() as store, open_view(store) as view:
        ...                                     # feed the store

Nothing here writes to a terminal but text that `actorstore.text.clean` has made
harmless. The screen (`actorstore.cli.screen`) is imported when there is one.

Reading order: `open_view`, `View`, `Picture` (what is known of a run), `PlainView`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Protocol, TextIO, TypeAlias

from actorstore.answers import Cursor, RunInfo, RunStatus, StateSummary, UnitState, UnitStatus, Update
from actorstore.errors import StoreClosedError, StoreTimeoutError
from actorstore.text import clean

FRAME_SECONDS: Final = 0.1
"""How often a view looks: ten frames a second look smooth, and cost about 1 % of a core."""

PROGRESS_SECONDS: Final = 5.0
"""How long plain lines are silent at most, while something goes on."""

SHOWN_ERROR: Final = 500
"""How many characters of an error are shown."""

Clock: TypeAlias = Callable[[], datetime | None]
"""Tells what time it is for the run; `None` where nobody knows."""


class Source(Protocol):
    """What a view asks of a store."""

    def runs(self) -> tuple[RunInfo, ...]:
        """Return all runs."""

    def subscribe(self, run: str | None = None, *, since: Cursor | None = None) -> Iterator[Update]:
        """Follow a run."""


def wall_clock() -> datetime:
    """The clock of runs that happen now."""
    return datetime.now(UTC)


def recorded_clock() -> None:
    """The clock of runs that happened once, played as fast as it goes: only their events tell the time."""
    return


def open_view(
    store: Source, *, run: str | None = None, clock: Clock = wall_clock, out: TextIO | None = None
) -> View:
    """Return the view that fits where the output goes; use it in a `with` statement.

    Args:
        store: What to follow. It must stay open until the view is closed.
        run: Id of the run to show, and no other; all of them, where not given.
        clock: What time it is for the run.
        out: Where to write; standard output, where not given.
    """
    out = out or sys.stdout
    if out.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        from actorstore.cli.screen import LiveView  # importing rich costs 50 ms, so who needs it pays

        return LiveView(store, clock, out, run)
    return PlainView(store, clock, out, run)


class View(ABC):
    """Follows a store from a thread of its own, while the `with` block runs.

    Args:
        store: What to follow.
        clock: What time it is for the run.
        out: Where to write.
        run: Id of the run to show; all of them, where not given.
    """

    is_live = False
    """Whether a screen is being kept up to date, which other output would tear."""

    def __init__(self, store: Source, clock: Clock, out: TextIO, run: str | None = None) -> None:
        self.trouble = ""  # what a screen says besides
        self._store = store
        self._run = run
        self._clock = clock
        self._out = out
        self._looking = threading.Lock()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="actorstore view", daemon=True)

    def look(self) -> None:
        """Show everything that this thread has handed over to the store so far.

        Raises:
            UnwritableError: The output cannot be written, or its reader has gone away.
        """
        with self._looking:
            self.check()
            self._look()

    def check(self) -> None:
        """Raise what has ended the view before its time, if anything has."""
        if self._failure is not None:
            raise self._failure

    @abstractmethod
    def _look(self) -> None:
        """Fetch what has changed, and show it."""

    def _finish(self) -> None:  # noqa: B027
        """Leave the terminal as it was; called once, whatever has happened."""

    def _follow(self) -> None:
        while not self._over.wait(FRAME_SECONDS):
            try:
                with self._looking:
                    self._look()
            except StoreTimeoutError:
                continue  # a long line is being decoded
            except StoreClosedError:
                return
            except BaseException as error:
                self._failure = error
                return

    def __enter__(self) -> View:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._over.set()
            self._thread.join()
            if error is None:
                self.look()
        finally:
            self._finish()


class Picture:
    """What is known of one run, put together from its updates."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.run = ""
        self.status = RunStatus.WAITING
        self.summary = StateSummary(0, 0, 0, 0, 0, 0, 0)
        self.parallelism = 0
        self.error: str | None = None
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.cursor: Cursor | None = None
        self.running: dict[str, UnitState] = {}
        self.failed: dict[str, UnitState] = {}
        self.most_running = 0
        self.most_tasks = 0
        self.tasks_done = 0
        self.tasks = 0
        self._units: dict[str, UnitState] = {}
        self._latest: datetime | None = None

    def take(self, update: Update) -> list[UnitState]:
        """Take in what has changed, or the whole run.

        Returns:
            The units that have failed since the last update.
        """
        if update.since is None:
            self._begin()
        self.run = update.run
        self.status = update.status
        self.summary = update.summary
        self.parallelism = update.parallelism
        self.error = update.error
        self.started_at = update.started_at
        self.finished_at = update.finished_at
        self.cursor = update.cursor
        failures = [unit for unit in update.units if self._take_unit(unit)]
        self.most_running = max(self.most_running, len(self.running))
        self._see_time(update.started_at)
        self._see_time(update.finished_at)
        return failures

    def elapsed(self, now: datetime | None) -> timedelta | None:
        """How long the run has taken, by its own clock; `None` where its events tell no time."""
        return _between(self.started_at, self.finished_at if self.status.ended else now or self._latest)

    def running_for(self, unit: UnitState, now: datetime | None) -> timedelta | None:
        """How long a unit has been running, by the run's clock."""
        return _between(unit.started_at, now or self._latest)

    def _take_unit(self, unit: UnitState) -> bool:
        """Take a unit in, and say whether it has failed anew."""
        before = self._units.get(unit.id)
        self._units[unit.id] = unit
        if before is not None:
            self.tasks -= _tasks(before)
            self.tasks_done -= _tasks_done(before)
        self.tasks += _tasks(unit)
        self.tasks_done += _tasks_done(unit)
        self.most_tasks = max(self.most_tasks, _tasks(unit))
        self._see_time(unit.started_at)
        self._see_time(unit.finished_at)
        if unit.status == UnitStatus.IN_PROGRESS:
            self.running[unit.id] = unit
        else:
            self.running.pop(unit.id, None)
        if unit.status != UnitStatus.FAILED:
            self.failed.pop(unit.id, None)
            return False
        known = self.failed.get(unit.id)
        self.failed[unit.id] = unit
        return known is None or (known.attempts, known.finished_at, known.error) != (
            unit.attempts,
            unit.finished_at,
            unit.error,
        )

    def _see_time(self, time: datetime | None) -> None:
        if time is not None and (self._latest is None or time > self._latest):
            self._latest = time


class PlainView(View):
    """Lines, for files and pipes: a run starts or ends, a unit fails, and progress now and then."""

    def __init__(self, store: Source, clock: Clock, out: TextIO, run: str | None = None) -> None:
        super().__init__(store, clock, out, run)
        self._pictures: dict[str, Picture] = {}
        self._infos: dict[str, RunInfo] = {}
        self._written_at = time.monotonic()

    def _look(self) -> None:
        for info in self._store.runs():
            if self._run is not None and info.run != self._run:
                continue
            is_changed = self._infos.get(info.run) != info
            if not is_changed and info.status != RunStatus.RUNNING:
                continue
            self._infos[info.run] = info
            picture = self._pictures.setdefault(info.run, Picture())
            before = picture.status
            update = next(iter(self._store.subscribe(info.run, since=picture.cursor)))
            failures = picture.take(update)
            self._tell(picture, before, failures, is_new=update.since is None)
            if is_changed and picture.status == RunStatus.RUNNING:
                self._tell_progress(picture)

    def _tell(
        self, picture: Picture, before: RunStatus, failures: Iterable[UnitState], *, is_new: bool
    ) -> None:
        run = picture.run
        name = f"run {run}" if run else "run"
        unit_of = f"{run}: " if run else ""
        if is_new and picture.status == RunStatus.WAITING:
            if before != RunStatus.WAITING:
                self._write(None, f"{name} was reset")
            return
        if is_new:
            before = RunStatus.RUNNING
            workers = f", {counted(picture.parallelism, 'worker')}" if picture.parallelism else ""
            self._write(timedelta(), f"{name} started: {counted(picture.summary.total, 'unit')}{workers}")
        for unit in failures:
            attempt = f" (attempt {unit.attempts})" if unit.attempts > 1 else ""
            reason = f": {clean(unit.error, SHOWN_ERROR)}" if unit.error else ""
            elapsed = _between(picture.started_at, unit.finished_at)
            self._write(elapsed, f"{unit_of}unit {unit.id} failed{attempt}{reason}")
        if picture.status.ended and not before.ended:
            reason = f": {clean(picture.error, SHOWN_ERROR)}" if picture.error else ""
            self._write(picture.elapsed(None), f"{name} {picture.status}{reason}")

    def _tell_progress(self, picture: Picture) -> None:
        if time.monotonic() - self._written_at >= PROGRESS_SECONDS:
            unit_of = f"{picture.run}: " if picture.run else ""
            self._write(picture.elapsed(self._clock()), f"{unit_of}{in_words(picture.summary)}")

    def _write(self, elapsed: timedelta | None, text: str) -> None:
        self._out.write(f"{span(elapsed):>8}  {clean(text)}\n")
        self._out.flush()
        self._written_at = time.monotonic()


# Words and numbers.


def summarize(runs: Iterable[RunInfo]) -> str:
    """Say in one line how runs have ended."""
    runs = list(runs)
    if not runs:
        return "no run"
    if len(runs) == 1:
        (run,) = runs
        name = clean(run.run) if run.run else "the run"
        took = _between(run.started_at, run.finished_at)
        how_long = f" in {span(took, exact=True)}" if took is not None and run.status.ended else ""
        outcome = run.status if run.status.ended else "has not ended"
        return f"{name} {outcome}{how_long}: {in_words(run.summary)}"
    totals = dict.fromkeys(StateSummary.__struct_fields__, 0)
    statuses = dict.fromkeys(("completed", "failed", "not ended"), 0)
    for run in runs:
        statuses[run.status if run.status.ended else "not ended"] += 1
        for name in totals:
            totals[name] += getattr(run.summary, name)
    outcomes = [(count, status) for status, count in statuses.items() if count]
    if len(outcomes) == 1:
        outcome = f" {outcomes[0][1]}"
    else:
        outcome = "".join(f", {count:,} {status}" for count, status in outcomes)
    return f"{len(runs):,} runs{outcome}: {in_words(StateSummary(**totals))}"


def in_words(summary: StateSummary) -> str:
    """Say how many units are complete, and what the others are, as far as it matters."""
    rest = {
        "running": summary.in_progress,
        "failed": summary.failed,
        "blocked": summary.blocked,
    }
    others = "".join(f", {count:,} {name}" for name, count in rest.items() if count)
    return f"{summary.complete:,} of {counted(summary.total, 'unit')} complete{others}"


def counted(count: int, noun: str) -> str:
    """Say how many there are of something: "1 unit", "2,122 units"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def span(time: timedelta | None, *, exact: bool = False) -> str:
    """Say how long: "0:42", "12:31", "1:02:03", "2d 03:04:05"; exactly, "42.1 s" where that is short."""
    if time is None:
        return "-"
    seconds = time.total_seconds()
    if exact and seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days:,}d {hours:02}:{minutes:02}:{seconds:02}"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _between(start: datetime | None, end: datetime | None) -> timedelta | None:
    if start is None or end is None:
        return None
    return max(end - start, timedelta())


def _tasks(unit: UnitState) -> int:
    return max(unit.total_tasks, unit.current_task)


def _tasks_done(unit: UnitState) -> int:
    if unit.status == UnitStatus.COMPLETE:
        return _tasks(unit)
    is_resumed = not unit.attempts  # then the tasks are those that an earlier run had done
    return unit.current_task if is_resumed else max(unit.current_task - 1, 0)
