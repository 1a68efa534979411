"""`actorstore runs`: all runs, a row each."""

from __future__ import annotations

import argparse

from actorstore.answers import RunInfo
from actorstore.cli import access, listing
from actorstore.remote import RemoteStore

HEAD = ("RUN", "STATUS", "STARTED", "TIME", "UNITS", "COMPLETE", "RUNNING", "FAILED", "BLOCKED")
"""Columns of the table of runs."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore runs`."""
    parser.epilog = access.EXIT_CODES + (
        "examples:\n"
        "  actorstore runs\n"
        "  actorstore runs --json | jq -r '.[] | select(.status == \"failed\").run'"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array, a run an element")
    access.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Run `actorstore runs`.

    Returns:
        0; 2 where the call was wrong; 69 where nobody listens.
    """

    def ask(store: RemoteStore) -> str:
        infos = store.runs()
        if args.json:
            return access.json_lines([b"[" + b",".join([info.json() for info in infos]) + b"]"])
        lines = listing.table(HEAD, map(_row, infos), right=HEAD[3:]) if infos else ["no run has started"]
        return "\n".join([*lines, ""])

    return access.answer(args, ask)


def _row(info: RunInfo) -> tuple[str, ...]:
    summary = info.summary
    started = listing.local(info.started_at) if info.started_at else ""
    counts = (summary.complete, summary.in_progress, summary.failed, summary.blocked)
    return (
        info.run or '""',
        str(info.status),
        started,
        listing.elapsed(info),
        f"{summary.total:,}",
        *(f"{count:,}" if count else "" for count in counts),
    )
