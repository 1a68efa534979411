"""`actorstore emit`: send one event, or the NDJSON lines of standard input, and wait for the ack.

Quick to start, since scripts call it once an event: it imports neither pykka nor
asyncio, and what only standard input needs when there is some.

Reading order: `run`, then the one event, then the lines.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import msgspec

from actorstore import wire
from actorstore.answers import FlushResult, UnknownUnit
from actorstore.cli import FAILED, WRONG
from actorstore.cli.access import add_socket, feeding, flushed, json_lines, print_data, refusal
from actorstore.cli.talk import SHOWN_COMPLAINTS, Talk
from actorstore.cli.view import counted
from actorstore.errors import ActorStoreError, InvalidEventError
from actorstore.event import Event
from actorstore.remote import RemoteStore
from actorstore.state import RULES

STANDARD_INPUT: Final = "-"
"""What stands for standard input where the type of an event would."""

FIELDS: Final = ("unit", "run", "task", "payload", "error", "time", "pr")
"""The arguments that say more about one event."""

ABOUT_UNITS: Final = ("unit.", "task.")
"""How the type of an event begins that is about a unit."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore emit`."""
    parser.description = (
        "Send one event that the arguments describe, or the events of standard input, one JSON object a\n"
        "line, as they come; then wait until the store has acked them."
    )
    parser.epilog = (
        "exit codes:\n"
        "  0 all was accepted; 1 something was rejected, or with --strict changed nothing, and the rest\n"
        "  accepted; 2 the call or the event was wrong, and nothing was sent; 69 nobody listens\n"
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
    parser.add_argument(
        "--json",
        action="store_true",
        help="print how many were accepted and rejected, and how many named an unknown unit",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="end with 1 also where an event changed nothing: no such run or unit, or a type without a rule",
    )
    parser.add_argument(
        "--spool",
        metavar="FILE",
        help="keep what is not acked in this file, also when this is killed; the next one goes on from there",
    )
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Run `actorstore emit`.

    Returns:
        0; 1 where something was rejected, or with --strict changed nothing; 2
        where the call or the event was wrong; 69 where nobody listens.
    """
    talk = Talk()
    try:
        if args.type != STANDARD_INPUT:
            if os.path.exists(args.type) or "/" in args.type:
                cure = f"send it with: actorstore emit < {args.type}"
                raise InvalidEventError(f"{args.type!r} is a file, and no type of event; {cure}")
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
    has_rule = args.type in RULES
    if not has_rule:
        near = _near(args.type)
        if near or args.strict or (sys.stderr is not None and sys.stderr.isatty()):
            talk.note(_of_no_rule(args.type, near))
    with feeding(args.socket, args.spool) as store:
        store.handle_lines(line)
        result = flushed(store)
        _print(args, result)
        if result.rejected:  # it was good here, so the store is of another mind, or version
            reasons = [rejection.reason for rejection in store.stats().rejections]
            talk.complain("rejected", reasons[-1] if reasons else "the log of the store has the reason")
            return FAILED
        named = _unknown(store, line, result.unknown_units)
        for unknown in named:
            talk.complain("emit", f"{unknown.type} changed nothing: {unknown.reason}")
        if (
            left := result.unknown_units - len(named)
        ) > 0:  # those of a spool, or the store has no word for it any more
            talk.complain("emit", f"{counted(left, 'event')} changed nothing: no such run or unit")
    return FAILED if args.strict and (result.unknown_units or not has_rule) else 0


def _near(type: str) -> str | None:
    """Return the type that has a rule, and which this one looks like."""
    import difflib  # which nobody needs who spells well

    near = difflib.get_close_matches(type, RULES, n=1, cutoff=0.8)
    return near[0] if near else None


def _of_no_rule(type: str, near: str | None) -> str:
    cure = f"did you mean {near}?" if near else f"what changes something is {', '.join(RULES)}"
    return f"{type!r} counts, and changes nothing; {cure}"


def _unknown(store: RemoteStore, lines: bytes, most: int) -> list[UnknownUnit]:
    """Return the last events of unknown units that may be among these lines, as far as the store has them."""
    if not most:
        return []
    with suppress(ActorStoreError):  # they are acked, whatever can be said of them
        last = store.stats().last_unknown
        events = [event for piece in wire.chunks(lines) for event in wire.decode(piece).events]
        sent = {(event.type, event.run, event.unit) for event in events}
        return [each for each in last if (each.type, each.run, each.unit) in sent][-most:]
    return []


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
    if args.unit is None and args.type.startswith(ABOUT_UNITS):
        raise InvalidEventError(f"{args.type} is about a unit: say which with --unit ID")
    return line


# Lines.


def _send_lines(args: argparse.Namespace, talk: Talk) -> int:
    from actorstore.cli import eventlog  # unpacks gzip too, which one event does not need

    sent = Sent(talk, is_strict=args.strict)
    result = FlushResult(0, 0)
    with feeding(args.socket, args.spool) as store:
        if sys.stdin is not None and sys.stdin.isatty():
            talk.note("reading events from the terminal, one JSON object a line; Ctrl-D ends it")
        try:
            pieces = eventlog.whole_lines(STANDARD_INPUT)
            for lines in eventlog.unmarked(pieces, lambda text: talk.note(f"<stdin>: {text}")):
                sent.begin(lines)
                store.handle_lines(lines)
                result = flushed(store)
                sent.end(lines, result, store)
        except eventlog.InputError as error:
            talk.complain("<stdin>", error.reason)
            return WRONG
        finally:
            sent.say_the_rest()
    _print(args, result)
    return FAILED if sent.rejected or (args.strict and sent.changed_nothing) else 0


def _print(args: argparse.Namespace, result: FlushResult) -> None:
    if args.json:
        print_data(json_lines([result.json()]))


class Sent:
    """What became of the lines so far; the first few that were rejected or changed nothing are named at once.

    Args:
        talk: Where to say it.
        is_strict: Whether types that have no rule are worth a word.
    """

    def __init__(self, talk: Talk, *, is_strict: bool = False) -> None:
        self.rejected = 0
        self._talk = talk
        self._is_strict = is_strict
        self._lines = 0
        self._named = 0
        self._unknown = 0
        self._named_unknown = 0
        self._without_rule = 0
        self._unacked = 0

    @property
    def changed_nothing(self) -> int:
        """How many events did; those of a type without a rule only count where this is strict."""
        return self._unknown + self._without_rule

    def begin(self, lines: bytes) -> None:
        """Take note of lines that are about to be sent."""
        self._unacked = lines.count(b"\n")

    def end(self, lines: bytes, result: FlushResult, store: RemoteStore) -> None:
        """Take note that they are acked."""
        if result.rejected > self.rejected and self._named < SHOWN_COMPLAINTS:
            self._name(lines)
        self.rejected = result.rejected
        if result.unknown_units > self._unknown and self._named_unknown < SHOWN_COMPLAINTS:
            self._name_unknown(_unknown(store, lines, result.unknown_units - self._unknown))
        self._unknown = result.unknown_units
        if self._is_strict:
            self._name_types(lines)
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

    def _name_unknown(self, unknown: list[UnknownUnit]) -> None:
        for each in unknown[: SHOWN_COMPLAINTS - self._named_unknown]:
            self._talk.complain("<stdin>", f"{each.type} changed nothing: {each.reason}")
            self._named_unknown += 1

    def _name_types(self, lines: bytes) -> None:
        before = self._lines
        for piece in wire.chunks(lines):
            chunk = wire.decode(piece)
            if any(event.type not in RULES for event in chunk.events):
                for number, line in enumerate(piece.split(b"\n"), before + 1):
                    self._name_type(number, line)
            before += chunk.lines

    def _name_type(self, number: int, line: bytes) -> None:
        for event in wire.decode(line).events:
            if event.type not in RULES:
                self._without_rule += 1
                if self._without_rule <= SHOWN_COMPLAINTS:
                    self._talk.complain(f"<stdin>:{number}", _of_no_rule(event.type, _near(event.type)))

    def say_the_rest(self) -> None:
        """Say how many more were rejected or changed nothing, and where to go on after a store went away."""
        for more, what, said in (
            (self.rejected - self._named, "more line", "rejected"),
            (self._unknown - self._named_unknown, "more event", "changed nothing: no such run or unit"),
            (self._without_rule - SHOWN_COMPLAINTS, "more event", "changed nothing: no rule has the type"),
        ):
            if more > 0:
                self._talk.complain("<stdin>", f"{counted(more, what)} {said}")
        if self._unacked:
            self._talk.note(f"the first {self._lines:,} lines are acked, and those after them may not be")
