"""Opening a journal: what a store needs of it, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from actorstore.actor import Origin
from actorstore.journal import Durability, Journal
from actorstore.journalfile import Path
from actorstore.past import Past
from actorstore.recovery import recover
from actorstore.writer import Writer


class Opened(NamedTuple):
    """A journal that is open."""

    origin: Origin
    """What the actor starts from."""
    writer: Writer
    """Its keeper."""
    past: Past
    """What the store was."""


def open_journal(path: Path, durability: str, is_busy: Callable[[], bool]) -> Opened:
    """Open a journal, and recover what it holds.

    Args:
        path: The file; made where it is not there.
        durability: One of `Durability`.
        is_busy: Whether the store has something to do just now.

    Raises:
        JournalError: It cannot be opened, is damaged, or somebody else has it open.
    """
    if durability not in tuple(Durability):
        raise ValueError(f"durability is one of {', '.join(Durability)}; not {durability!r}")
    journal = Journal(path, Durability(durability))
    try:
        fold = recover(journal)
        writer = Writer(journal, fold.added_bytes)
    except BaseException:
        journal.let_go()
        raise
    return Opened(Origin(fold.state, fold.accounts), writer, Past(writer, is_busy))
