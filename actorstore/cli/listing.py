"""Answers as people read them: words and tables, in colour where a terminal shows them.

Everything goes through `actorstore.text.clean` here.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from actorstore.answers import RunInfo, StateSnapshot
from actorstore.cli.view import span
from actorstore.text import clean

COLOURS: Final[Mapping[str, str]] = {
    "running": "36",
    "in_progress": "36",
    "completed": "32",
    "complete": "32",
    "failed": "31",
    "blocked": "33",
}
"""The colour of a status, as a terminal numbers them."""

GAP: Final = 2
"""Cells between the columns of a table."""

LEAST_CELLS: Final = 10
"""The last column of a table is not cut below this, and no text is wrapped narrower."""

INDENT: Final = "    "
"""What stands before a text below its row."""

ENDLESS: Final = 10**9
"""How many cells a row has that is not a terminal's."""

PAINT: Final = re.compile(r"\x1b\[[0-9]*m")
"""What makes a colour."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """Lay a table out; a column that holds nothing is left out, and the last one cut where a terminal ends.

    Args:
        head: Names of the columns.
        rows: What they hold; as many cells as there are columns.
        right: Those that are flush right.
    """
    return _laid(head, rows, right, _width())


def table_with_texts(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> list[str]:
    """Lay a table out whose last column holds texts of any length, and cut none of them.

    Where each of them fits into the rows of a terminal, or there is no terminal,
    they are a column like any other; else they stand below their rows, wrapped.

    Args:
        head: Names of the columns.
        rows: What they hold; as many cells as there are columns.
        right: Those that are flush right.
    """
    body = list(rows)
    width = _width()
    one_line = _laid(head, body, right, ENDLESS)
    texts = [row[-1] for row in body]
    fits = _widest(one_line) <= width and not any("\n" in text for text in texts)
    if fits or width == ENDLESS:
        return one_line
    first, *lines = _laid(head[:-1], [row[:-1] for row in body], right, width)
    laid = [first]
    for line, text in zip(lines, texts, strict=True):
        laid.append(line)
        laid += [f"{INDENT}{part}" for part in wrapped(text, width - len(INDENT)) if text]
    return laid


def named_text(name: str, text: str) -> list[str]:
    """Write "name: text", wrapped where a terminal ends, the rest of it below its beginning."""
    begin = f"{name}: "
    if not sys.stdout.isatty():
        return [begin + clean(text)]
    first, *others = wrapped(text, _width() - len(begin))
    return [begin + first, *(" " * len(begin) + part for part in others)]


def wrapped(text: str, room: int) -> list[str]:
    """Wrap a text of any size into rows of so many cells: between words, and inside of one that is longer."""
    rows = []
    room = max(room, LEAST_CELLS)
    for paragraph in text.rstrip().split("\n"):
        line = clean(paragraph.rstrip().expandtabs(4))
        start = 0
        while True:
            end = start + _fitting(line[start : start + room + 1], room)
            if end >= len(line):
                break
            indented = start + len(line[start:end]) - len(line[start:end].lstrip())
            gap = line.rfind(" ", indented, end + 1)
            end = gap if gap > indented else end
            rows.append(line[start:end].rstrip())
            start = end + (line[end] == " ")
        rows.append(line[start:])
    return rows


def _fitting(text: str, room: int) -> int:
    """Return how many characters of a text fit into so many cells; one at least, or nothing would."""
    if text.isascii():
        return min(len(text), room)
    for place, character in enumerate(text):
        room -= _cells(character)
        if room < 0:
            return max(place, 1)
    return len(text)


def _widest(lines: Iterable[str]) -> int:
    return max(cells(PAINT.sub("", line)) for line in lines)


def _laid(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str], width: int) -> list[str]:
    body = [[clean(cell) for cell in row] for row in rows]
    used = [column for column in range(len(head)) if any(row[column] for row in body)]
    lines = [[head[column] for column in used], *([row[column] for column in used] for row in body)]
    widths = [max(map(cells, column)) for column in zip(*lines, strict=True)]
    room = width - sum(widths[:-1]) - GAP * len(widths[:-1])
    is_coloured = has_colours()
    laid = []
    for number, line in enumerate(lines):
        parts = []
        for place, cell in enumerate(line):
            if place == len(line) - 1 and room:
                cell = _cut(cell, max(room, LEAST_CELLS))
            padding = " " * (widths[place] - cells(cell))
            name = head[used[place]]
            text = painted(cell) if is_coloured and number and name == "STATUS" else cell
            parts.append(padding + text if name in right else text + padding)
        laid.append((" " * GAP).join(parts).rstrip())
    return laid


def title(run: RunInfo | StateSnapshot) -> str:
    """Say how a run stands: "nightly: running for 0:12"."""
    name = clean(run.run) if run.run else "run"
    status = painted(run.status) if has_colours() else str(run.status)
    taken = elapsed(run)
    if taken == "-":
        return f"{name}: {status}"
    word = "for" if not run.status.ended else "in" if run.status == "completed" else "after"
    return f"{name}: {status} {word} {taken}"


def elapsed(run: RunInfo | StateSnapshot) -> str:
    """Say how long a run has taken, or takes."""
    if run.started_at is None or run.status == "waiting":
        return "-"
    end = run.finished_at if run.status.ended else datetime.now(UTC)
    return "-" if end is None else span(max(end - run.started_at, end - end), exact=run.status.ended)


def local(time: datetime) -> str:
    """Write a time as clocks here show it; with its own offset, where the calendar has no such time here."""
    try:
        return f"{time.astimezone().replace(tzinfo=None).isoformat(' ', 'seconds')}"
    except (OverflowError, ValueError):
        return time.isoformat(" ", "seconds")


def has_colours() -> bool:
    """Whether standard output shows colours, and whoever reads it wants them (no-color.org)."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    )


def painted(status: str) -> str:
    """Return a status in its colour."""
    colour = COLOURS.get(status)
    return f"\x1b[{colour}m{status}\x1b[0m" if colour else str(status)


def cells(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, room: int) -> str:
    if cells(text) <= room:
        return text
    while cells(text) > room - 1:
        text = text[: min(len(text) - 1, room - 1)]
    return text + "…"


def _width() -> int:
    """Return how many cells a row has; 0 where it is no terminal's, and rows may be as long as they like."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else ENDLESS
