"""Compaction: cutting off the oldest batches of a journal, behind a checkpoint.

What is cut off cannot be asked for any more; the state and the counts of
producers are in the checkpoint, and stay.
"""

from __future__ import annotations

from typing import Final

from actorstore.batch import Count, pack_counts
from actorstore.checkpoint import encode, freeze
from actorstore.journal import Checkpoint, Journal
from actorstore.recovery import Fold, begin

BATCHES_AT_ONCE: Final = 4
"""How many batches are removed in one transaction, which is short enough for others to wait for."""


def fitting(journal: Journal, keep: int) -> list[Checkpoint]:
    """Return the checkpoints that leave at least so many versions behind them, newest first.

    Whether one is whole is for the caller to find out, before it cuts off what the state could be folded
    from without it.
    """
    return [
        kept for kept in reversed(journal.checkpoints()) if 0 <= kept.version <= journal.head.version - keep
    ]


def cut_off(journal: Journal, before: Checkpoint) -> bool:
    """Remove some of what lies before a checkpoint; say whether there is more."""
    return journal.first <= before.seq and journal.cut(before, BATCHES_AT_ONCE)


def keep_at(journal: Journal, keep: int) -> Checkpoint | None:
    """Make a checkpoint that leaves at least so many versions behind it, and as few more as there can be.

    Takes as long as folding the journal up to there; for a journal that no
    store has open.

    Returns:
        The checkpoint; `None` where there are not that many versions.

    Raises:
        JournalDamagedError: The journal does not hold what was written into it.
    """
    last = journal.head.version - keep
    if last <= journal.oldest:
        return None
    fold = begin(journal, last)
    if not _fold_up_to(journal, fold, last):
        return None
    write(journal, fold)
    found = fitting(journal, keep)[:1]
    for checkpoint in found:
        for _ in journal.parts(checkpoint):
            pass
    return found[0] if found else None


def _fold_up_to(journal: Journal, fold: Fold, version: int) -> bool:
    while batches := journal.batches(fold.place.seq):
        for batch in batches:
            fold.check(batch)
            if batch.version > version:
                return fold.place.seq > 0
            fold.add(batch)
    return fold.place.seq > 0


def write(journal: Journal, fold: Fold) -> None:
    """Write a checkpoint of what was folded."""
    seq = fold.place.seq
    if any(kept.seq == seq for kept in journal.checkpoints()):
        return
    journal.begin_checkpoint(seq)
    journal.add_part(seq, packed_accounts(fold))
    for part in encode(freeze(fold.state)):
        journal.add_part(seq, part)
    journal.end_checkpoint(fold.place)


def packed_accounts(fold: Fold) -> bytes:
    """Return the accounts as the first part of a checkpoint holds them."""
    return pack_accounts(
        [
            Count(id, account.lines, account.accepted, account.rejected, account.unknown_units)
            for id, account in fold.accounts.items()
        ]
    )


def pack_accounts(accounts: list[Count]) -> bytes:
    """Return accounts as the first part of a checkpoint, in the order of their ids."""
    return pack_counts(accounts)
