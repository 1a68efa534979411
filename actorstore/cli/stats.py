"""`actorstore stats`: how the store is doing, and what it rejected."""

from __future__ import annotations

import argparse

from actorstore.answers import JournalStats, Rejection, StoreStats, UnknownUnit
from actorstore.cli import access
from actorstore.remote import RemoteStore
from actorstore.text import clean


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore stats`."""
    parser.epilog = access.EXIT_CODES + (
        "examples:\n  actorstore stats\n  actorstore stats --json | jq -r '.rejections[].reason'"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    access.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Run `actorstore stats`.

    Returns:
        0; 2 where the call was wrong; 69 where nobody listens.
    """

    def ask(store: RemoteStore) -> str:
        stats = store.stats()
        return access.json_lines([stats.json()]) if args.json else described(store.address, stats)

    return access.answer(args, ask)


def described(address: str, stats: StoreStats) -> str:
    """Describe how a store is doing: a figure a line, then the last rejections."""
    figures: dict[str, str | None] = {
        "store": clean(address),
        "connections": None if stats.connections is None else f"{stats.connections:,}",
        "version": f"{stats.version:,}",
        "accepted": f"{stats.accepted:,}",
        "rejected": f"{stats.rejected:,}",
        "unknown units": f"{stats.unknown_units:,}",
        "faults": f"{stats.faults:,}",
        "pending": f"{stats.pending:,}",
    }
    if stats.journal is not None:
        figures |= _journal(stats.journal)
    lines = [f"{name:<14}  {figure}" for name, figure in figures.items() if figure is not None]
    if stats.rejections:
        lines += ["", "last rejected:", *map(_described, stats.rejections)]
    if stats.last_unknown:
        lines += ["", "last of unknown units:", *map(_unknown, stats.last_unknown)]
    return "\n".join([*lines, ""])


def _journal(journal: JournalStats) -> dict[str, str | None]:
    return {
        "journal": clean(journal.path),
        "durability": journal.durability,
        "oldest version": f"{journal.oldest:,}",
        "transactions": f"{journal.batches:,}",
        "size": f"{journal.bytes:,} bytes",
        "trouble": journal.trouble and f"nothing is acked: {clean(journal.trouble)}",
    }


def _described(rejection: Rejection) -> str:
    place = "an event" if rejection.line is None else f"line {rejection.line:,}"
    return f"  {place}: {clean(rejection.reason)}: {clean(rejection.text)}"


def _unknown(unknown: UnknownUnit) -> str:
    return f"  {clean(unknown.type)}: {clean(unknown.reason)}"
