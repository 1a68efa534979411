"""The rows that the scripts return, and how they are written down.

A ratio is taken twice: the best turn of one over the best turn of the other, which is held against the bound,
and the median of the ratios of single rounds, with the lowest and the highest of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal

import msgspec


class Bound(msgspec.Struct, frozen=True):
    """What a row must reach."""

    sign: Literal["<=", ">="]
    value: float

    def holds(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value <= self.value if self.sign == "<=" else value >= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    what: str
    """What was measured."""
    unit: str
    """The unit of `best` and `values`."""
    best: float = 0.0
    """Best turn against best turn."""
    values: tuple[float, ...] = ()
    """Round by round."""
    bound: Bound | None = None
    """What it must reach; absent where it is there to be known."""
    peer: str = ""
    """Whom the ratio compares with, where a ratio below 1 says that the other one is better."""
    figures: str = ""
    """The best turns themselves."""
    skipped: str = ""
    """Why there is nothing to see."""

    @property
    def lost(self) -> bool:
        """Whether a peer is better here."""
        return bool(self.peer and self.values) and self.best < 1

    @property
    def missed(self) -> bool:
        """Whether it does not reach what it must."""
        return self.bound is not None and bool(self.values) and not self.bound.holds(self.best)

    def cells(self, judge: bool = True) -> tuple[str, str, str, str, str]:
        """Return the line as text; `judge` says whether it reaches its bound."""
        bound = str(self.bound or "")
        if self.skipped:
            return self.what, "skipped", self.skipped, bound, ""
        middle, low, high = median(self.values), min(self.values), max(self.values)
        spread = f"{_number(middle)} ({_number(low)} to {_number(high)})"
        verdict = f"{bound}: missed" if self.missed and judge else bound
        return self.what, f"{_number(self.best)} {self.unit}", spread, verdict, self.figures


HEADINGS = ("what", "best", "median (lowest to highest)", "at least", "best turns")


def slower(
    what: str, ours: Sequence[float], theirs: Sequence[float], figures: str, most: float | None = None
) -> Row:
    """How many times as long as theirs ours takes: small is good."""
    return _ratio(what, ours, theirs, figures, Bound("<=", most) if most is not None else None, "")


def faster(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    figures: str,
    least: float | None = None,
    *,
    peer: str = "",
) -> Row:
    """How many times as fast as theirs ours is: large is good, and below 1 theirs is better."""
    return _ratio(what, theirs, ours, figures, Bound(">=", least) if least is not None else None, peer)


def amount(
    what: str,
    values: Sequence[float],
    unit: str,
    most: float | None = None,
    *,
    best: float | None = None,
    figures: str = "",
) -> Row:
    """Something that is not a ratio: small is good. `best` is the smallest, where not given."""
    return Row(
        what=what,
        unit=unit,
        best=min(values) if best is None else best,
        values=tuple(values),
        bound=Bound("<=", most) if most is not None else None,
        figures=figures,
    )


def skipped(what: str, why: str, least: float | None = None) -> Row:
    """Something that could not be measured here."""
    return Row(what=what, unit="", bound=Bound(">=", least) if least is not None else None, skipped=why)


def text(rows: Iterable[Row], judge: bool = True) -> str:
    """Return the table for a terminal."""
    lines = [HEADINGS, *(row.cells(judge) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(rows: Iterable[Row]) -> str:
    """Return the table for a page."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(
    what: str,
    dividends: Sequence[float],
    divisors: Sequence[float],
    figures: str,
    bound: Bound | None,
    peer: str,
) -> Row:
    return Row(
        what=what,
        unit="times",
        best=min(dividends) / min(divisors),
        values=tuple(a / b for a, b in zip(dividends, divisors, strict=True)),
        bound=bound,
        peer=peer,
        figures=figures,
    )


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}"
