"""The live screen: one run, redrawn in place below whatever was written before.

It uses no more rows than it needs, and keeps those that it has: a row moves only
when something above it is over. What ids and errors hold is written as `Text`,
which knows no markup, after `clean` has taken the terminal escapes out.

Reading order: `LiveView`, `draw` (a picture as rows), then the parts of it.

Only this module knows rich.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from heapq import nsmallest
from itertools import islice
from typing import Final, NamedTuple, TextIO

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from actorstore.answers import RunInfo, RunStatus, UnitState
from actorstore.cli.listing import wrapped
from actorstore.cli.view import SHOWN_ERROR, Clock, Picture, Source, View, span, summarize
from actorstore.text import clean

MAX_WIDTH: Final = 120
"""How wide the screen grows: farther apart, the columns of a row are not read together any more."""

LABEL: Final = 7
"""Cells of the column that says what a bar counts."""

LAST_ROWS: Final = 24
"""How many rows the units have on the last picture at least, however low the terminal is."""

INDENT: Final = 2
"""Cells before the rows of a section."""

STATUS_STYLES: Final = {
    RunStatus.WAITING: "dim",
    RunStatus.RUNNING: "cyan",
    RunStatus.COMPLETED: "green",
    RunStatus.FAILED: "bold red",
}
"""The colour of a run."""


class Glyphs(NamedTuple):
    """The characters that are not letters."""

    done: str
    """Bar: complete."""
    failed: str
    """Bar: failed."""
    left: str
    """Bar: still to come."""
    cut: str
    """Stands for what was left out."""


UNICODE: Final = Glyphs("━", "╍", "─", "…")
"""Where the terminal takes UTF-8."""

ASCII: Final = Glyphs("#", "x", "-", "~")
"""Where it does not."""


class Bar(NamedTuple):
    """What a bar counts."""

    label: str
    """What is counted."""
    done: int
    """How many are done."""
    failed: int
    """How many will not be done as it stands."""
    total: int
    """How many there are."""


class LiveView(View):
    """A screen that follows the run that started last; a line for each one that ended before."""

    is_live = True

    def __init__(self, store: Source, clock: Clock, out: TextIO, run: str | None = None) -> None:
        super().__init__(store, clock, out, run)
        self._console = Console(file=out, markup=False, highlight=False, emoji=False)
        self._glyphs = UNICODE if (self._console.encoding or "").lower().startswith("utf") else ASCII
        self._picture = Picture()
        self._live: Live | None = None
        self._told: set[str] = set()
        self._slots = 0
        self._shown: list[Text] = []

    def _look(self) -> None:
        update = next(iter(self._store.subscribe(self._run, since=self._picture.cursor)))
        if update.status == RunStatus.WAITING and self._live is None and not self.trouble:
            return
        if self._run is None:
            self._tell(self._store.runs(), update.run)
        if update.since is None:
            self._slots = 0
        self._picture.take(update)
        self._show()

    def _show(self, *, whole: bool = False) -> None:
        picture = self._picture
        size = self._console.size
        self._slots = max(self._slots, picture.most_running, picture.parallelism)
        rows = draw(
            picture,
            self._clock(),
            min(size.width, MAX_WIDTH),
            size.height - 1,
            slots=0 if picture.status.ended and not picture.running else self._slots,
            glyphs=self._glyphs,
            trouble=self.trouble,
            whole=whole,
        )
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._live.start()
        if rows != self._shown:
            self._shown = rows
            self._live.update(Group(*rows), refresh=True)

    def _tell(self, runs: Iterable[RunInfo], current: str) -> None:
        """Write a line above the screen for each run that has ended and is not on it."""
        for info in runs:
            if info.run == current or info.run in self._told or not info.status.ended:
                continue
            self._told.add(info.run)
            line = shorten(summarize([info]), min(self._console.width, MAX_WIDTH), self._glyphs.cut)
            self._console.print(Text(line, STATUS_STYLES[info.status]))

    def _finish(self) -> None:
        if self._live is not None:
            try:
                self._show(whole=True)  # nothing is drawn over it, so it may be higher than the terminal
            finally:
                self._live.stop()


def draw(
    picture: Picture,
    now: datetime | None,
    width: int,
    height: int,
    *,
    slots: int,
    glyphs: Glyphs = UNICODE,
    trouble: str = "",
    whole: bool = False,
) -> list[Text]:
    """Return the rows that show a run, none of them wider than `width`.

    Args:
        picture: The run.
        now: What time it is for the run.
        width: Cells in a row.
        height: How many rows there may be.
        slots: How many rows are kept for running units, used or not.
        glyphs: What bars are made of.
        trouble: Why this may be out of date.
        whole: Whether errors are wrapped and not cut, whatever the height; for the last picture.
    """
    rows = [_header(picture, now, width, glyphs)]
    if trouble:
        rows.append(Text(_shorten_end(trouble, width, glyphs), "yellow"))
    if picture.error and whole:
        rows += [Text(row, "red") for row in _wrapped(picture.error, width, glyphs)]
    elif picture.error:
        rows.append(Text(_shorten_end(picture.error, width, glyphs), "red"))
    summary = picture.summary
    bars = [
        Bar("units", summary.complete, summary.failed, summary.total),
        Bar("tasks", picture.tasks_done, 0, picture.tasks),
    ]
    digits = max(len(f"{bar.total:,}") for bar in bars)
    rows += [_bar(bar, digits, width, glyphs) for bar in bars if bar.total]
    if summary.complete < summary.total or (summary.total and not picture.status.ended):
        rows.append(_counts(picture, width))
    left = max(height - len(rows), LAST_ROWS) if whole else height - len(rows)
    failed = _failed_height(picture, left // 2 if slots else left)
    if slots:
        rows += _running(picture, now, width, min(slots, left - failed - 2), glyphs)
    if failed:
        rows += _failed(picture, width, failed - 2, glyphs, whole)
    for row in rows:
        row.truncate(width)
        row.no_wrap = True
    return rows if whole else rows[: max(height, 1)]


def shorten(text: str, cells: int, cut: str = "…") -> str:
    """Cut text in the middle, so that it takes so many cells at most: ids differ at both ends."""
    if cell_len(text) <= cells:
        return text
    if cells <= 1:
        return cut[:cells]
    half = (cells - 1) // 2
    head = _fitting(text, half)
    tail = _fitting(reversed(text), cells - 1 - half)
    return "".join([*head, cut, *reversed(tail)])


def _fitting(characters: Iterable[str], cells: int) -> list[str]:
    fitting: list[str] = []
    for character in characters:
        cells -= cell_len(character)
        if cells < 0:
            break
        fitting.append(character)
    return fitting


def _shorten_end(text: str, cells: int, glyphs: Glyphs) -> str:
    text = clean(text, SHOWN_ERROR)
    if cell_len(text) <= cells:
        return text
    return "".join(_fitting(text, cells - 1)) + glyphs.cut


def _header(picture: Picture, now: datetime | None, width: int, glyphs: Glyphs) -> Text:
    elapsed = picture.elapsed(now)
    status = Text().append(picture.status, STATUS_STYLES[picture.status])
    if elapsed is not None:
        status.append(f"  {span(elapsed):>8}")
    name = clean(picture.run) if picture.run else "run"
    return _spread(Text(shorten(name, width - status.cell_len - 2, glyphs.cut), "bold"), status, width)


def _bar(bar: Bar, digits: int, width: int, glyphs: Glyphs) -> Text:
    """Draw a bar; full, and 100 %, only where everything is done."""
    total = bar.total
    numbers = f"  {bar.done:>{digits},} of {total:>{digits},}  {100 * bar.done // total:>3} %"
    cells = width - LABEL - len(numbers)
    row = Text(f"{bar.label:<{LABEL}}")
    if cells >= 4:
        filled = cells * bar.done // total
        broken = min(-(-cells * bar.failed // total), cells - filled)
        row.append(glyphs.done * filled, "green")
        row.append(glyphs.failed * broken, "red")
        row.append(glyphs.left * (cells - filled - broken), "bright_black")
    row.append(numbers)
    return row


def _counts(picture: Picture, width: int) -> Text:
    """Say how many units are what: each in a place of its own, while they change."""
    summary = picture.summary
    parts = [
        (summary.in_progress, "running", "cyan"),
        (summary.ready, "ready", ""),
        (summary.pending, "pending", ""),
    ]
    if summary.failed or summary.blocked:
        parts += [(summary.failed, "failed", "red"), (summary.blocked, "blocked", "yellow")]
    digits = len(f"{summary.total:,}")
    if picture.status.ended:
        parts = [part for part in parts if part[0]]
    if LABEL + sum(digits + 1 + len(name) + 2 for _, name, _ in parts) > width:
        digits = 0
    row = Text(" " * LABEL)
    for count, name, style in parts:
        row.append(f"{count:>{digits},} {name}", style if count else "bright_black")
        row.append("  ")
    row.rstrip()
    return row


def _running(picture: Picture, now: datetime | None, width: int, rows: int, glyphs: Glyphs) -> list[Text]:
    """List the units that run, those that have run longest first."""
    if rows < 1:
        return []
    room, hidden = _split(len(picture.running), rows)
    units = nsmallest(room, picture.running.values(), key=_start)
    attempts = ["", *(f"attempt {unit.attempts}" if unit.attempts > 1 else "" for unit in units)]
    tasks = ["task", *map(_task, units)] if picture.most_tasks > 1 else [""] * (1 + len(units))
    spans = ["for", *(span(picture.running_for(unit, now)) for unit in units)]
    columns = [_justified(attempts), _justified(tasks), _justified(spans, 5)]
    head, *rights = ["".join(texts) for texts in zip(*columns, strict=True)]
    section = [Text(), _spread(Text("running", "bold"), Text(head, "bright_black"), width)]
    for unit, right in zip(units, rights, strict=True):
        id = shorten(clean(unit.id), width - INDENT - len(right), glyphs.cut)
        style = "yellow" if unit.attempts > 1 else ""
        section.append(_spread(Text(f"{' ' * INDENT}{id}"), Text(right, style), width))
    if hidden:
        section.append(Text(f"{' ' * INDENT}and {hidden:,} more", "bright_black"))
    section += [Text()] * (2 + rows - len(section))
    return section


def _failed_height(picture: Picture, most: int) -> int:
    """How many rows the failed units get, with what stands above them; none where that is too few."""
    return min(2 + len(picture.failed), most) if picture.failed and most > 2 else 0


def _failed(picture: Picture, width: int, rows: int, glyphs: Glyphs, whole: bool) -> list[Text]:
    """List the units that failed, those that did last at the end, and why."""
    room, hidden = _split(len(picture.failed), rows)
    units = list(islice(reversed(picture.failed.values()), room))[::-1]
    section = [Text(), Text("failed", "bold")]
    if hidden:
        section.append(Text(f"{' ' * INDENT}{hidden:,} more before these", "bright_black"))
    ids = min(max(cell_len(clean(unit.id)) for unit in units), width * 2 // 5)
    left = width - INDENT - ids - 2
    if whole and any(len(_wrapped(unit.error or "", left, glyphs)) > 1 for unit in units):
        for unit in units:
            section.append(Text(" " * INDENT + shorten(clean(unit.id), width - INDENT, glyphs.cut), "red"))
            reasons = _wrapped(unit.error or "no reason given", width - 2 * INDENT, glyphs)
            section += [Text(" " * 2 * INDENT + reason) for reason in reasons]
        return section
    for unit in units:
        id = shorten(clean(unit.id), ids, glyphs.cut)
        reason = _shorten_end(unit.error or "no reason given", left, glyphs)
        row = Text(" " * INDENT).append(id, "red").append(" " * (ids + 2 - cell_len(id)))
        section.append(row.append(reason))
    return section


def _wrapped(text: str, cells: int, glyphs: Glyphs) -> list[str]:
    return wrapped(text if len(text) <= SHOWN_ERROR else text[: SHOWN_ERROR - 1] + glyphs.cut, cells)


def _split(units: int, rows: int) -> tuple[int, int]:
    """How many units have a row of their own, and how many a row together; of one row a unit has it."""
    if units <= rows or rows == 1:
        return rows, 0
    return rows - 1, units - rows + 1


def _task(unit: UnitState) -> str:
    of = f" of {unit.total_tasks:,}" if unit.total_tasks else ""
    return f"{unit.current_task:,}{of}"


def _justified(texts: Sequence[str], least: int = 0) -> list[str]:
    """Make texts equally wide, behind a gap; empty where all of them are."""
    width = max(least, *map(len, texts))
    return [f"  {text:>{width}}" if width else "" for text in texts]


def _start(unit: UnitState) -> tuple[bool, float]:
    return (unit.started_at is None, unit.started_at.timestamp() if unit.started_at else 0.0)


def _spread(left: Text, right: Text, width: int) -> Text:
    """Put one text at the left end of a row, and one at the right."""
    gap = " " * (width - left.cell_len - right.cell_len)
    return Text().append_text(left).append(gap).append_text(right)
