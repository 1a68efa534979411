"""What becomes known of events of unknown units: the last few of them, and a word in the log.

Such an event is accepted and changes nothing, which is what a producer that
forgot `orch.started`, or misspelled a unit, would never notice.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

from actorstore.answers import UnknownUnit
from actorstore.event import Event
from actorstore.logs import say
from actorstore.state import Unknown
from actorstore.text import clean
from actorstore.throttle import Throttle

KEPT_UNKNOWN: Final = 16
"""How many of them `stats()` shows."""

SHOWN_ID_CHARS: Final = 60
"""How much of an id is shown."""

logger = logging.getLogger("actorstore")


class UnknownUnits:
    """The last few events of unknown units; for one thread."""

    def __init__(self) -> None:
        self._last: deque[UnknownUnit] = deque(maxlen=KEPT_UNKNOWN)
        self._throttle = Throttle()

    def add(self, found: list[Unknown]) -> None:
        """Keep the last few for `stats()`, and log the last one, at most one a second."""
        self._last.extend([_described(*each) for each in found[-KEPT_UNKNOWN:]])
        more = self._throttle.lets_through(len(found))
        if more is not None:
            last = self._last[-1]
            type = clean(last.type, SHOWN_ID_CHARS)
            say(logger.warning, "%s changed nothing: %s%s", type, last.reason, more)

    def last(self) -> tuple[UnknownUnit, ...]:
        """Return the last few, oldest first."""
        return tuple(self._last)


def _described(_: int, event: Event, has_run: bool) -> UnknownUnit:
    run, unit = _shown(event.run), _shown(event.unit)
    if not event.unit:
        reason = f"it names no unit of run {run}"
    elif has_run:
        reason = f"run {run} has no unit {unit}"
    else:
        reason = f"no run {run} has started that could have unit {unit}: send orch.started first"
    return UnknownUnit(event.type, event.run, event.unit, reason)


def _shown(id: str) -> str:
    return clean(repr(id), SHOWN_ID_CHARS)
