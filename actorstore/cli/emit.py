"""`actorstore emit`: send one event, or the NDJSON lines of standard input, and wait for the ack.

Quick to start, since scripts call it once an event: it imports neither pykka nor
asyncio, and what only standard input needs when there is some.

Reading order: `run`, then the one event, then the lines.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from typing import Final

import msgspec

from actorstore import wire
from actorstore.answers import FlushResult
from actorstore.cli import FAILED, WRONG
from actorstore.cli.access import add_socket, feeding, flushed, json_lines, print_data, refusal
from actorstore.cli.talk import SHOWN_COMPLAINTS, Talk
from actorstore.errors import ActorStoreError, InvalidEventError
from actorstore.event import Event
from actorstore.state import RULES

STANDARD_INPUT: Final = "-"
"""What stands for standard input where the type of an event would."""

FIELDS: Final = ("unit", "run", "task", "payload", "error", "time", "pr")
"""The arguments that say more about one event."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore emit`."""
    parser.description = (
        "Send one event that the arguments describe, or the events of standard input, one JSON object a\n"
        "line, as they come; then wait until the store has acked them."
    )
    parser.epilog = (
        "exit codes:\n"
        "  0 all was accepted; 1 something was rejected, and the rest accepted; 2 the call or the event\n"
        "  was wrong, and nothing was sent; 69 nobody listens\n"
        "\n"
        "examples:\n"
        '  actorstore emit orch.started --run nightly --payload \'{"graph": {"nodes": [{"id": "a"}]}}\'\n'
        "  actorstore emit unit.started --run nightly --unit a\n"
        '  actorstore emit unit.failed --run nightly --unit a --error "exit code 3"\n'
        "  actorstore emit < events.ndjson\n"
        "  tail -n +1 -f events.ndjson | actorstore emit"
    )
    parser.add_argument(
        "type", nargs="?", default=STANDARD_INPUT, metavar="TYPE", help="what happened; - is standard input"
    )
    parser.add_argument("--unit", metavar="ID", help="id of the unit")
    parser.add_argument("--run", metavar="ID", help='id of the run; otherwise ""')
    parser.add_argument("--task", type=int, metavar="N", help="number of the task, from 1")
    parser.add_argument("--payload", metavar="JSON", help="what else the event says")
    parser.add_argument("--error", metavar="TEXT", help="why it failed")
    parser.add_argument("--time", metavar="TIME", help="when it happened (RFC 3339); otherwise now")
    parser.add_argument("--pr", type=int, metavar="N", help="number of a pull request")
    parser.add_argument("--json", action="store_true", help="print how many were accepted and rejected")
    parser.add_argument(
        "--spool",
        metavar="FILE",
        help="keep what is not acked in this file, also when this is killed; the next one goes on from there",
    )
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Run `actorstore emit`.

    Returns:
        0; 1 where something was rejected; 2 where the call or the event was
        wrong; 69 where nobody listens.
    """
    talk = Talk()
    try:
        if args.type != STANDARD_INPUT:
            if os.path.exists(args.type) or "/" in args.type:
                cure = f"send it with: actorstore emit < {args.type}"
                raise InvalidEventError(f"{args.type!r} is a file, and no type of event; {cure}")
            _warn_of_misspelling(args.type, talk)
            return _send_event(args, talk)
        given = [f"--{field}" for field in FIELDS if getattr(args, field) is not None]
        if given:
            raise InvalidEventError(f"{given[0]} describes one event, whose type must stand before it")
        return _send_lines(args, talk)
    except InvalidEventError as error:
        talk.complain("emit", error.reason)
        return WRONG
    except ActorStoreError as error:
        return refusal(error, talk)


# One event.


def _send_event(args: argparse.Namespace, talk: Talk) -> int:
    line = _line(args)
    with feeding(args.socket, args.spool) as store:
        store.handle_lines(line)
        result = flushed(store)
        _print(args, result)
        if result.rejected:  # it was good here, so the store is of another mind, or version
            reasons = [rejection.reason for rejection in store.stats().rejections]
            talk.complain("rejected", reasons[-1] if reasons else "the log of the store has the reason")
            return FAILED
    return 0


def _warn_of_misspelling(type: str, talk: Talk) -> None:
    """Say so where a type without a rule looks like one that has one."""
    if type not in RULES:
        import difflib  # which nobody needs who spells well

        near = difflib.get_close_matches(type, RULES, n=1, cutoff=0.8)
        if near:
            talk.note(f"{type!r} counts, and changes nothing; did you mean {near[0]}?")


def _line(args: argparse.Namespace) -> bytes:
    """Return the event as a line, checked as a store will check it.

    Raises:
        InvalidEventError: It would be rejected.
    """
    given = {field: getattr(args, field) for field in FIELDS}
    if given["time"] is None:
        given["time"] = datetime.now(UTC)
    if given["payload"] is not None:
        payload = given["payload"].encode(errors="surrogateescape")
        if not payload.strip():
            raise InvalidEventError("payload: expected JSON, got nothing")
        given["payload"] = msgspec.Raw(payload)
    line = msgspec.json.encode(Event(args.type, **given)) + b"\n"
    for rejection in wire.decode(line).rejections:
        raise InvalidEventError(rejection.reason)
    return line


# Lines.


def _send_lines(args: argparse.Namespace, talk: Talk) -> int:
    from actorstore.cli import eventlog  # unpacks gzip too, which one event does not need

    sent = Sent(talk)
    result = FlushResult(0, 0)
    with feeding(args.socket, args.spool) as store:
        if sys.stdin is not None and sys.stdin.isatty():
            talk.note("reading events from the terminal, one JSON object a line; Ctrl-D ends it")
        try:
            for lines in eventlog.whole_lines(STANDARD_INPUT):
                sent.begin(lines)
                store.handle_lines(lines)
                result = flushed(store)
                sent.end(lines, result)
        except eventlog.InputError as error:
            talk.complain("<stdin>", error.reason)
            return WRONG
        finally:
            sent.say_the_rest()
    _print(args, result)
    return FAILED if sent.rejected else 0


def _print(args: argparse.Namespace, result: FlushResult) -> None:
    if args.json:
        print_data(json_lines([result.json()]))


class Sent:
    """What became of the lines so far; the first few that were rejected are named at once.

    Args:
        talk: Where to say it.
    """

    def __init__(self, talk: Talk) -> None:
        self.rejected = 0
        self._talk = talk
        self._lines = 0
        self._named = 0
        self._unacked = 0

    def begin(self, lines: bytes) -> None:
        """Take note of lines that are about to be sent."""
        self._unacked = lines.count(b"\n")

    def end(self, lines: bytes, result: FlushResult) -> None:
        """Take note that they are acked."""
        if result.rejected > self.rejected and self._named < SHOWN_COMPLAINTS:
            self._name(lines)
        self.rejected = result.rejected
        self._lines += self._unacked
        self._unacked = 0

    def _name(self, lines: bytes) -> None:
        """Name the bad ones; the store says only how many, but they are as bad here."""
        before = self._lines
        for piece in wire.chunks(lines):
            chunk = wire.decode(piece)
            for rejection in chunk.rejections[: SHOWN_COMPLAINTS - self._named]:
                self._talk.complain(f"<stdin>:{before + (rejection.line or 0)}", rejection.reason)
                self._named += 1
            before += chunk.lines

    def say_the_rest(self) -> None:
        """Say how many more were rejected, and where to go on after a store went away."""
        more = self.rejected - self._named
        if more > 0:
            self._talk.complain("<stdin>", f"{more:,} more line{'' if more == 1 else 's'} rejected")
        if self._unacked:
            self._talk.note(f"the first {self._lines:,} lines are acked, and those after them may not be")
