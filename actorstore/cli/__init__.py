"""The command line: `actorstore COMMAND ...`, also as `python -m actorstore`.

A command is a module here that has `configure(parser)`, which adds its
arguments, and `run(args)`, which returns the exit code. It is imported when it
is called, so that none pays for the imports of another.

Exit codes: 0; 1 a run failed, something was rejected, or there is no such run;
2 the input or the call was wrong; 69 nobody listens; 74 the journal failed, or is
damaged, or the output cannot be written; 75 somebody else owns the socket or the
journal; 128 + n ended by signal n (130 is Ctrl-C); 141 the reader of the output
has gone away.
"""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Final

from actorstore import __version__
from actorstore.cli import streams
from actorstore.cli.arguments import Parser

COMMANDS: Final = {
    "demo": "compile the standard library with worker processes, and watch",
    "replay": "show what event logs and recorded workflows tell",
    "serve": "hold the state of runs for all processes",
    "emit": "send events to a store that listens",
    "watch": "follow a run as it unfolds",
    "state": "show a run: its status, and that of each unit",
    "graph": "show what the units of a run depend on",
    "runs": "list the runs",
    "stats": "show how the store is doing, and what it rejected",
    "journal": "check, describe, export or compact a journal that no store has open",
}
"""Name of a command, and of its module -> what it does."""

FAILED: Final = 1
"""The exit code where a run failed, something was rejected, or there is no such run."""

WRONG: Final = 2
"""The exit code where the input or the call was wrong."""

UNREACHABLE: Final = 69
"""The exit code where nobody listens: `EX_UNAVAILABLE` of sysexits.h."""

BROKEN: Final = 74
"""The exit code where the journal failed or is damaged, or the output failed: `EX_IOERR` of sysexits.h."""

IN_USE: Final = 75
"""The exit code where somebody else owns the socket or the journal: `EX_TEMPFAIL` of sysexits.h."""

HANGUP: Final = getattr(signal, "SIGHUP", signal.SIGTERM)
"""The signal that the terminal is gone, where there is one."""

INTERRUPTED: Final = 128 + signal.SIGINT
"""The exit code of a command that Ctrl-C has ended."""

UNREAD: Final = 141
"""The exit code of a command whose reader has gone away: 128 + SIGPIPE, as shells count."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code.

    Args:
        argv: The arguments; those of the process, where not given.
    """
    if argv is None:  # the process is ours
        argv = sys.argv[1:]
        streams.prepare()
        for number in (signal.SIGTERM, HANGUP):
            if not is_ignored(number):  # nohup has the one ignored that ends us otherwise
                signal.signal(number, _leave)  # as Ctrl-C does: nothing stays behind, the cursor comes back
    logger = logging.getLogger("actorstore")
    if not logger.hasHandlers():
        logger.addHandler(logging.NullHandler())  # commands say what was rejected themselves
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=streams.ERRORS)
    try:
        code = _call(list(argv))
        sys.stdout.flush()
    except streams.UnwritableError as error:
        streams.let_go_of_stdout()
        if error.is_unread:
            return UNREAD
        print(f"actorstore: standard output cannot be written: {error.reason}", file=sys.stderr)
        return BROKEN
    return code


def _call(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, and return its exit code."""
    try:
        if not arguments:
            return _help()
        args = _parser(arguments).parse_args(arguments)
        return int(importlib.import_module(f"actorstore.cli.{args.command}").run(args))
    except SystemExit as leaving:  # argparse has said why
        return leaving.code if isinstance(leaving.code, int) else WRONG
    except KeyboardInterrupt:
        return INTERRUPTED


def _help() -> int:
    """Say what there is to call, and which store is there."""
    _parser([]).print_help()
    sys.stdout.flush()  # a store may take its time
    print(f"\n{importlib.import_module('actorstore.cli.overview').found_store()}")
    return 0


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser; only the command that is called brings its arguments."""
    parser = Parser(
        prog="actorstore",
        description="The live state of an orchestration run.",
        epilog=(
            "examples:\n"
            "  actorstore demo                       a real run, on any machine\n"
            "  actorstore replay events.ndjson       what an event log tells\n"
            "  actorstore serve &                    a store for all processes\n"
            "  actorstore emit < events.ndjson       feed it\n"
            "  actorstore watch                      see what happens\n"
            "  actorstore replay --help              more about a command\n"
            "\n"
            "exit codes:\n"
            "  0 all is well; 1 a run failed, an event was rejected, or there is no such run;\n"
            "  2 the input or the call was wrong; 69 nobody listens; 74 the journal failed or is damaged,\n"
            "  or the output cannot be written; 75 another store listens there, or has the journal open;\n"
            "  128 + n ended by signal n; 141 the reader of the output has gone away"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"actorstore {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == called:
            importlib.import_module(f"actorstore.cli.{name}").configure(command)
    return parser


def is_ignored(number: int) -> bool:
    """Whether who started this process wants a signal to be ignored."""
    return signal.getsignal(number) is signal.SIG_IGN


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)
