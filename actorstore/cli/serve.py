"""`actorstore serve`: a store that listens until it is told to stop.

It says on standard error where it listens, and logs there what is worth
knowing. SIGTERM and Ctrl-C let it read what was on its way, have it applied and
acked, and leave no file behind.

Reading order: `run`, `Log`.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import queue
import signal
import sys
import threading
from types import TracebackType
from typing import Final, TypeAlias

from actorstore.address import VARIABLE, default_address, is_usual
from actorstore.cli import BROKEN, FAILED, HANGUP, IN_USE, WRONG, is_ignored
from actorstore.cli.talk import Talk
from actorstore.errors import (
    AddressError,
    JournalDamagedError,
    JournalError,
    JournalFailedError,
    JournalInUseError,
    SocketInUseError,
    StoreClosedError,
    StoreTimeoutError,
)
from actorstore.store import Store
from actorstore.text import clean

CLOSE_SECONDS: Final = 4.5
"""How long closing may take; who sends the signal was promised 5 s."""

LOOK_SECONDS: Final = 0.5
"""How often this looks whether the actor is still alive."""

HELD_RECORDS: Final = 1000
"""How many log records wait for whoever reads standard error; what comes on top is counted, and dropped."""

LAST_SECONDS: Final = 0.3
"""How long the end waits until the last of the log is written."""

PROMISES: Final = {
    "lose-nothing": "every ack is on disk",
    "lose-a-second": "kill -9 loses nothing acked, a loss of power at most the last second",
    "lose-unwritten": "kill -9 loses nothing acked, a loss of power what the system had not written",
}
"""Durability -> what it promises."""

ExceptionInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore serve`."""
    parser.description = (
        "Hold the state of runs for all processes of this user: producers feed it, everybody else asks.\n"
        "Says on standard error where it listens, and logs there. Stops on SIGTERM and on Ctrl-C, within\n"
        "5 seconds, with everything applied and acked that was on its way."
    )
    parser.epilog = (
        "exit codes:\n"
        "  0 stopped by SIGTERM; 130 by Ctrl-C; 1 the store died; 2 nothing can listen there, or the\n"
        "  journal is none; 74 the journal failed, or is damaged; 75 another store listens there, or has\n"
        "  the journal open\n"
        "\n"
        "examples:\n"
        "  actorstore serve &\n"
        "  actorstore emit orch.started --run nightly\n"
        "  actorstore serve --journal builds.journal\n"
        "  actorstore serve --socket /run/user/1000/builds.sock -v"
    )
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help=f"where to listen, in a directory that is there; otherwise ${VARIABLE}, else "
        "$XDG_RUNTIME_DIR/actorstore/store.sock, else ~/.actorstore/store.sock, whose directory is made",
    )
    parser.add_argument(
        "--journal",
        metavar="FILE",
        help="keep every accepted event in this file, and go on from what it holds; without one, what the "
        "store knows ends with it",
    )
    parser.add_argument(
        "--durability",
        choices=list(PROMISES),
        help="what a loss of power may lose of what was acked: nothing (the default), what came in the last "
        "second, or what the system had not written; after kill -9 nothing is lost with any of them",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log connections too")


def run(args: argparse.Namespace) -> int:
    """Run `actorstore serve`.

    Returns:
        0 after SIGTERM, 128 + n after another signal; 1 where the store died, 74
        where its journal did; 2, 74 and 75 where it cannot begin.
    """
    if args.durability and not args.journal:
        Talk().note("--durability is that of a journal; name one with --journal")
        return WRONG
    talk = Talk()
    named = args.socket or os.environ.get(VARIABLE)
    folder = os.path.dirname(os.path.abspath(named or ""))
    if named and not (os.path.isdir(folder) or is_usual(named)):
        talk.note(str(AddressError(named, f"there is no directory {folder}; make it first")))
        return WRONG
    signals = _signals()
    with Log(logging.INFO if args.verbose else logging.WARNING):
        try:
            store = Store(
                listen=named or default_address(),
                journal=args.journal,
                durability=args.durability or next(iter(PROMISES)),
            )
        except (SocketInUseError, JournalInUseError) as error:
            talk.note(str(error))
            return IN_USE
        except (JournalDamagedError, JournalFailedError) as error:
            talk.note(str(error))
            return BROKEN
        except (AddressError, JournalError) as error:
            talk.note(str(error))
            return WRONG
        talk.note(f"listening at {store.address} (process {os.getpid()})")
        try:
            talk.note(_promise(store))
            number = _serve(store, signals)
        except JournalFailedError as error:
            talk.note(str(error))
            return BROKEN
        except StoreClosedError as error:
            talk.note(str(error))
            return FAILED
        finally:
            is_closed = _close(store, talk)
            _ignore_signals()
        return FAILED if not is_closed else 0 if number == signal.SIGTERM else 128 + number


def _promise(store: Store) -> str:
    """Say what survives what."""
    stats = store.stats()
    if stats.journal is None:
        return "no journal: what this store knows ends with it"
    promise = PROMISES[stats.journal.durability]
    return f"journal {clean(stats.journal.path)} at version {stats.version:,}: {promise}"


def _signals() -> queue.SimpleQueue[int]:
    """Return where the signals come that tell this to stop.

    Only the first one counts: those that follow find it stopping, and change
    nothing, until the process is gone.
    """
    came: queue.SimpleQueue[int] = queue.SimpleQueue()  # its `put` may interrupt its `get`
    for number in {signal.SIGTERM, signal.SIGINT, HANGUP}:
        if not is_ignored(number):
            signal.signal(number, lambda number, _: came.put(number))
    return came


def _ignore_signals() -> None:
    """Let no late signal change the exit code: the interpreter lets go of its handlers as it ends."""
    for number in {signal.SIGTERM, signal.SIGINT, HANGUP}:
        signal.signal(number, signal.SIG_IGN)


def _serve(store: Store, signals: queue.SimpleQueue[int]) -> int:
    """Wait for a signal.

    Raises:
        StoreFailedError: The actor has died.
    """
    while True:
        try:
            return signals.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            store.handle_lines(b"")  # raises where nothing is taken any more, and disturbs nobody


def _close(store: Store, talk: Talk) -> bool:
    try:
        store.close(CLOSE_SECONDS)
    except StoreTimeoutError as error:
        why = f", because the journal cannot be written: {error.trouble}" if error.trouble else ""
        talk.note(
            f"stopped before everything was applied{why}: {error.pending} events are lost, none of them acked"
        )
        return False
    except JournalFailedError:
        return False  # which was said
    return True


class Log(logging.Handler):
    """Writes what is logged to standard error, one harmless line a record, while the block runs.

    A thread of its own writes: whoever started this may not read what it says,
    and must not hold up a store with it.

    Args:
        level: From where on records of actorstore are written; others are from WARNING on.
    """

    def __init__(self, level: int) -> None:
        super().__init__()
        self.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._level = level
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(HELD_RECORDS)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="actorstore log", daemon=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written, when its turn comes."""
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while (record := self._records.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if not self._say(self.format(record)):
                continue
            if dropped:
                self._say(f"actorstore: {dropped} records before this were dropped, because nobody read them")

    def _say(self, text: str) -> bool:
        try:
            print(text, file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return False  # nobody reads it any more
        return True

    def __enter__(self) -> Log:
        logging.getLogger().addHandler(self)
        logging.getLogger("actorstore").setLevel(self._level)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
        try:
            self._records.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(LAST_SECONDS)


class _Formatter(logging.Formatter):
    """Writes a record so that nobody can forge another, or talk to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        record.exc_text = None  # which another formatter may have left, as it came
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return clean(super().formatMessage(record))

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802
        return "\n".join([f"  {clean(line)}" for line in super().formatException(ei).split("\n")])
