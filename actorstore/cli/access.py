"""How commands reach a store that listens: where it is, what is printed of its answers, and which exit code.

Imports neither pykka nor asyncio, so that a command is quick to start.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from actorstore.address import VARIABLE
from actorstore.answers import FlushResult
from actorstore.cli import BROKEN, FAILED, IN_USE, UNREACHABLE, WRONG
from actorstore.cli.drawing import plain_json
from actorstore.cli.talk import Talk
from actorstore.errors import (
    ActorStoreError,
    AddressError,
    JournalDamagedError,
    JournalFailedError,
    NoJournalError,
    SpoolError,
    SpoolInUseError,
    StoreTimeoutError,
    UnknownRunError,
    VersionGoneError,
)
from actorstore.remote import RemoteStore, connect

Answer: TypeAlias = Callable[[RemoteStore], str]
"""Asks a store, and returns what to print."""

PATIENCE_SECONDS: Final = 5.0
"""How long a store that has gone away is waited for; one that is only busy, as long as it takes."""

EXIT_CODES: Final = (
    "exit codes:\n  0 all is well; 1 there is no such run; 2 the call was wrong; 69 nobody listens\n\n"
)
"""What the help of a command that only asks says."""


def add_socket(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says where the store listens."""
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help=f"where the store listens; otherwise ${VARIABLE}, else $XDG_RUNTIME_DIR/actorstore/store.sock, "
        "else ~/.actorstore/store.sock",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a run."""
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="id of the run; the one that started last, if none"
    )


@contextmanager
def feeding(address: str | None, spool: str | None = None) -> Iterator[RemoteStore]:
    """A store to feed; leaving it waits for the acks, unless something has gone wrong by then.

    Then what is left is given up: its command has said what was not acked, and ends.

    Raises:
        StoreUnreachableError: Nobody listens there.
    """
    store = connect(address, spool=spool)
    try:
        yield store
    except BaseException:
        store._link.abandon()
        raise
    store.close()


def answer(args: argparse.Namespace, ask: Answer) -> int:
    """Ask the store, print the answer, and return the exit code."""
    try:
        with connect(args.socket) as store:
            text = ask(store)
    except ActorStoreError as error:
        return refusal(error, Talk())
    print_data(text)
    return 0


def refusal(error: ActorStoreError, talk: Talk) -> int:
    """Say why there is no answer, and return the exit code that says so too."""
    if isinstance(error, UnknownRunError):
        talk.complain("no such run", f"{error.run!r}; those there are: actorstore runs")
        return FAILED
    talk.note(str(error))
    if isinstance(error, VersionGoneError | NoJournalError):
        return FAILED
    if isinstance(error, JournalDamagedError | JournalFailedError):
        return BROKEN
    if isinstance(error, SpoolInUseError):
        return IN_USE
    return WRONG if isinstance(error, AddressError | SpoolError) else UNREACHABLE


def flushed(store: RemoteStore) -> FlushResult:
    """Wait until all that was handed over is acked.

    Raises:
        StoreUnreachableError: Nobody answers any more.
    """
    while True:
        try:
            return store.flush(PATIENCE_SECONDS)
        except StoreTimeoutError:
            continue  # it is busy, and answers


def json_lines(answers: Iterable[bytes]) -> str:
    """Return JSON that is harmless to a terminal, one answer a line."""
    return "".join([f"{plain_json(data)}\n" for data in answers])


def print_data(text: str) -> None:
    """Print text that programs read: UTF-8, whatever the locale says."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
