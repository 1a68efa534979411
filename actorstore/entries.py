"""From what lies in the intake to entries: decoded, checked, and counted on their producers' accounts.

Called in the actor's thread. Nothing here changes the state.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from itertools import groupby
from typing import Final, cast

import msgspec

from actorstore.answers import Rejection
from actorstore.event import Event
from actorstore.intake import KEPT_REJECTIONS, Intake, Item, Lines
from actorstore.keeper import Entry
from actorstore.text import clean
from actorstore.wire import SHOWN_CHARS, chunks, decode

_encoder: Final = msgspec.json.Encoder()


def entries(intake: Intake, items: list[Item], *, only_events: bool) -> Iterator[Entry]:
    """Return what was taken as entries, in order; what is wrong with it is refused.

    Args:
        intake: Where it comes from.
        items: What was taken.
        only_events: Whether there are no lines among it.
    """
    if only_events:
        if items:
            yield _of_events(intake, cast(list[Event], items))
        return
    for is_event, group in groupby(items, key=_is_event):
        if is_event:
            yield _of_events(intake, cast(list[Event], list(group)))
            continue
        for item in group:
            yield _of_lines(intake, cast(Lines, item))


def _is_event(item: Item) -> bool:
    return type(item) is Event


def _of_lines(intake: Intake, lines: Lines) -> Entry:
    data, account, count, alike = lines
    chunk = data
    if isinstance(chunk, bytes):
        told = KEPT_REJECTIONS if account.listener is None else None  # a connection that hears nothing
        chunk = decode(chunk, intake.max_line_bytes, lines=count, alike=alike, told=told)
    taken = account.taken
    rejections = [
        Rejection(rejection.reason, rejection.text, taken + (rejection.line or 0))
        for rejection in chunk.rejections
    ]
    if rejections:
        intake.reject_lines(rejections, chunk.untold)
    account.taken += chunk.lines
    return Entry(account, chunk.events, chunk.accepted, chunk.lines, rejections, chunk.untold)


def _of_events(intake: Intake, events: list[Event]) -> Entry:
    if not intake.keeps_lines:
        return Entry(intake.here, events, b"")
    events, data = _written(intake, events)
    return Entry(intake.here, events, data)


def _written(intake: Intake, events: list[Event]) -> tuple[list[Event], bytes]:
    """Return events and their lines; both say the same, so that a replay has the same state."""
    try:
        data = _encoder.encode_lines(events)
    except Exception:
        events = [event for event in events if _can_be_written(intake, event)]
        data = _encoder.encode_lines(events)
    if all(event.time is None or event.time.tzinfo is UTC for event in events):
        return events, data
    read = [decode(chunk) for chunk in chunks(data)]
    for chunk in read:
        for rejection in chunk.rejections:
            intake.reject_event(rejection)
    return [event for chunk in read for event in chunk.events], b"".join([chunk.accepted for chunk in read])


def _can_be_written(intake: Intake, event: Event) -> bool:
    try:
        _encoder.encode(event)
    except Exception as error:  # a time zone of somebody else's
        reason = f"it cannot be written: {type(error).__name__}: {error}"
        intake.reject_event(Rejection(clean(reason, SHOWN_CHARS), clean(event.type, SHOWN_CHARS)))
        return False
    return True
