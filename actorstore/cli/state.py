"""`actorstore state`: one run, and each of its units."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Final

from actorstore.answers import StateSnapshot, UnitState
from actorstore.cli import access, listing
from actorstore.cli.view import counted, in_words, span
from actorstore.event import MAX_INT
from actorstore.remote import RemoteStore
from actorstore.reply import ANSWER_SECONDS
from actorstore.text import clean

HEAD = ("UNIT", "STATUS", "TASK", "ATTEMPT", "TIME", "ERROR")
"""Columns of the table of units."""

LOOK_BACK_SECONDS: Final = 60.0
"""How long a look at the past may take, which has to be folded first."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore state`."""
    parser.epilog = access.EXIT_CODES + (
        "examples:\n"
        "  actorstore state\n"
        "  actorstore state nightly | grep failed\n"
        "  actorstore state --at 1200\n"
        "  actorstore state --json | jq .summary"
    )
    access.add_run(parser)
    parser.add_argument(
        "--at", type=_version, metavar="VERSION", help="as it was at this version, from the store's journal"
    )
    parser.add_argument("--json", action="store_true", help="print the snapshot as JSON")
    access.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Run `actorstore state`.

    Returns:
        0; 1 where there is no such run, or version; 2 where the call was wrong; 69 where nobody listens.
    """

    def ask(store: RemoteStore) -> str:
        snapshot = store.snapshot(
            args.run, at=args.at, timeout=LOOK_BACK_SECONDS if args.at is not None else ANSWER_SECONDS
        )
        return access.json_lines([snapshot.json()]) if args.json else described(snapshot)

    return access.answer(args, ask)


def _version(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 16 or int(text) > MAX_INT:
        raise argparse.ArgumentTypeError(
            f"a version is a number of events, 0 to {MAX_INT}; not {clean(text, 40)!r}"
        )
    return int(text)


def described(snapshot: StateSnapshot) -> str:
    """Describe a run: how it stands, in words; then its units, a row each, in graph order."""
    first = listing.title(snapshot)
    if snapshot.parallelism:
        first += f", {counted(snapshot.parallelism, 'worker')}"
    if snapshot.connected:
        first += ", fed"
    lines = [first]
    if snapshot.error:
        lines += listing.named_text("error", snapshot.error)
    if not snapshot.units:
        return "\n".join([*lines, "it has no units", ""])
    waiting = [
        f"{count:,} {name}"
        for count, name in ((snapshot.summary.ready, "ready"), (snapshot.summary.pending, "pending"))
        if count
    ]
    lines += [", ".join([in_words(snapshot.summary), *waiting]), ""]
    rows = [_row(unit) for unit in snapshot.units]
    lines += listing.table_with_texts(HEAD, rows, right=("TASK", "ATTEMPT", "TIME"))
    return "\n".join([*lines, ""])


def _row(unit: UnitState) -> tuple[str, ...]:
    task = f"{unit.current_task:,}" if unit.current_task else ""
    if unit.total_tasks:
        task = f"{unit.current_task:,} of {unit.total_tasks:,}"
    return (
        unit.id,
        str(unit.status),
        task,
        f"{unit.attempts:,}" if unit.attempts > 1 else "",
        _time(unit),
        unit.error or "",
    )


def _time(unit: UnitState) -> str:
    if unit.started_at is None:
        return ""
    end = datetime.now(UTC) if unit.status == "in_progress" else unit.finished_at
    return "" if end is None else span(max(end - unit.started_at, end - end))
