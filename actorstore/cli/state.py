"""`actorstore state`: one run, and each of its units."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from actorstore.answers import StateSnapshot, UnitState
from actorstore.cli import access, listing
from actorstore.cli.view import SHOWN_ERROR, counted, in_words, span
from actorstore.remote import RemoteStore
from actorstore.text import clean

HEAD = ("UNIT", "STATUS", "TASK", "ATTEMPT", "TIME", "ERROR")
"""Columns of the table of units."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore state`."""
    parser.epilog = access.EXIT_CODES + (
        "examples:\n"
        "  actorstore state\n"
        "  actorstore state nightly | grep failed\n"
        "  actorstore state --json | jq .summary"
    )
    access.add_run(parser)
    parser.add_argument("--json", action="store_true", help="print the snapshot as JSON")
    access.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Run `actorstore state`.

    Returns:
        0; 1 where there is no such run; 2 where the call was wrong; 69 where nobody listens.
    """

    def ask(store: RemoteStore) -> str:
        snapshot = store.snapshot(args.run)
        return access.json_lines([snapshot.json()]) if args.json else described(snapshot)

    return access.answer(args, ask)


def described(snapshot: StateSnapshot) -> str:
    """Describe a run: how it stands, in words; then its units, a row each, in graph order."""
    first = listing.title(snapshot)
    if snapshot.parallelism:
        first += f", {counted(snapshot.parallelism, 'worker')}"
    if snapshot.connected:
        first += ", fed"
    lines = [first]
    if snapshot.error:
        lines.append(f"error: {clean(snapshot.error, SHOWN_ERROR)}")
    if not snapshot.units:
        return "\n".join([*lines, "it has no units", ""])
    waiting = [
        f"{count:,} {name}"
        for count, name in ((snapshot.summary.ready, "ready"), (snapshot.summary.pending, "pending"))
        if count
    ]
    lines += [", ".join([in_words(snapshot.summary), *waiting]), ""]
    rows = [_row(unit) for unit in snapshot.units]
    lines += listing.table(HEAD, rows, right=("TASK", "ATTEMPT", "TIME"))
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
        clean(unit.error, SHOWN_ERROR) if unit.error else "",
    )


def _time(unit: UnitState) -> str:
    if unit.started_at is None:
        return ""
    end = datetime.now(UTC) if unit.status == "in_progress" else unit.finished_at
    return "" if end is None else span(max(end - unit.started_at, end - end))
