"""What becomes known of events of unknown units: the last few of them, and a word in the log.

Such an event is accepted and changes nothing, which is what a producer that
forgot `orch.started`, or misspelled a unit, would never notice.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final, TypeAlias

from actorstore.answers import UnknownUnit
from actorstore.logs import say
from actorstore.state import Unknown
from actorstore.text import clean
from actorstore.throttle import Throttle

KEPT_UNKNOWN: Final = 16
"""How many of them `stats()` shows."""

SHOWN_ID_CHARS: Final = 60
"""How much of an id is shown."""

_Kept: TypeAlias = tuple[str, str, str, bool]  # type, run, unit, and whether its run was there

logger = logging.getLogger("actorstore")


class UnknownUnits:
    """The last few events of unknown units; for one thread."""

    def __init__(self) -> None:
        self._last: deque[_Kept] = deque(maxlen=KEPT_UNKNOWN)
        self._throttle = Throttle()

    def add(self, found: list[Unknown]) -> None:
        """Keep the last few for `stats()`, and log the last one, at most one a second."""
        for _, event, has_run in found[-KEPT_UNKNOWN:]:  # whose payload is not kept: it may be large
            self._last.append((event.type, event.run, event.unit, has_run))
        more = self._throttle.lets_through(len(found))
        if more is not None:
            last = _described(*self._last[-1])
            type = clean(last.type, SHOWN_ID_CHARS)
            say(logger.warning, "%s changed nothing: %s%s", type, last.reason, more)

    def last(self) -> tuple[UnknownUnit, ...]:
        """Return the last few, oldest first."""
        return tuple([_described(*each) for each in self._last])


def _described(type: str, run: str, unit: str, has_run: bool) -> UnknownUnit:
    if not unit:
        reason = f"it names no unit of run {_shown(run)}"
    elif has_run:
        reason = f"run {_shown(run)} has no unit {_shown(unit)}"
    else:
        reason = (
            f"no run {_shown(run)} has started that could have unit {_shown(unit)}: send orch.started first"
        )
    return UnknownUnit(type, run, unit, reason)


def _shown(id: str) -> str:
    return clean(repr(id), SHOWN_ID_CHARS)
