"""`actorstore journal`: what is in a journal that no store has open, and whether it is whole.

Reading order: `run`, then a function for each of its commands.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import msgspec

from actorstore.batch import unpack_counts
from actorstore.checkpoint import CheckpointError, encode, freeze, restore
from actorstore.cli import BROKEN, IN_USE, WRONG
from actorstore.cli.talk import Talk
from actorstore.compaction import cut_off, keep_at, packed_accounts
from actorstore.errors import JournalDamagedError, JournalError, JournalFailedError, JournalInUseError
from actorstore.event import MAX_INT
from actorstore.journal import Checkpoint, Journal, NoRoomError
from actorstore.journalfile import FORMAT, reason
from actorstore.recovery import Fold, begin
from actorstore.text import clean

EXIT_CODES: Final = (
    "exit codes:\n"
    "  0 all is well; 2 there is no such journal, or it is none; 74 it is damaged; 75 a store has it open\n\n"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore journal`."""
    parser.description = (
        "Look into a journal that no store has open; ask a store that has by `stats` and `state`."
    )
    parser.epilog = EXIT_CODES + (
        "examples:\n"
        "  actorstore journal check builds.journal\n"
        "  actorstore journal export builds.journal | actorstore replay -\n"
        "  actorstore journal compact builds.journal --keep 1000000"
    )
    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, (_, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.add_argument("file", metavar="FILE", help="the journal")
        if name == "info":
            command.add_argument("--json", action="store_true", help="print the figures as JSON")
        if name == "compact":
            command.add_argument(
                "--keep", type=_count, required=True, metavar="N", help="how many versions stay, at least"
            )


def run(args: argparse.Namespace) -> int:
    """Run `actorstore journal`.

    Returns:
        0; 2 where it cannot be opened; 74 where it is damaged; 75 where a store has it open.
    """
    talk = Talk()
    command, _ = COMMANDS[args.what]
    try:
        return command(args, talk)
    except JournalInUseError as error:
        talk.note(str(error))
        return IN_USE
    except (JournalDamagedError, JournalFailedError) as error:
        talk.note(str(error))
        return BROKEN
    except JournalError as error:
        talk.note(str(error))
        return WRONG
    except NoRoomError as error:
        talk.note(f"the journal {args.file} cannot be written: {error}; it is as it was")
        return WRONG


def check(args: argparse.Namespace, talk: Talk) -> int:
    """Read all of it, and fold it: every batch, and every checkpoint against what the batches make."""
    with _opened(args.file) as journal:
        problems = journal.problems()
        if problems:
            raise JournalDamagedError(journal.path, f"SQLite finds: {clean('; '.join(problems[:3]), 300)}")
        checkpoints = {checkpoint.seq: checkpoint for checkpoint in journal.checkpoints()}
        first = begin(journal, journal.oldest)
        seen = len(checkpoints)
        _compare(journal, checkpoints.pop(first.place.seq, None), first)
        for fold in _fold(journal, first):
            _compare(journal, checkpoints.pop(fold.place.seq, None), fold)
        if first.place != journal.head:
            raise JournalDamagedError(
                journal.path, f"it ends with batch {first.place.seq}, not {journal.head.seq}"
            )
        if checkpoints:
            raise JournalDamagedError(
                journal.path, f"no batch goes before the checkpoint after batch {min(checkpoints)}"
            )
        events = journal.head.version - journal.oldest
        batches = journal.head.seq - journal.first + 1
        print(
            f"{clean(journal.path)} is whole: {events:,} events in {batches:,} batches, {seen:,} checkpoints"
        )
    return 0


def _fold(journal: Journal, fold: Fold) -> Iterator[Fold]:
    while fold.place.seq < journal.head.seq:
        batches = journal.batches(fold.place.seq)
        if not batches:
            raise JournalDamagedError(journal.path, f"batch {fold.place.seq + 1} is missing")
        for batch in batches:
            fold.add(batch)
            yield fold


def _compare(journal: Journal, checkpoint: Checkpoint | None, fold: Fold) -> None:
    """Compare a checkpoint with what the batches before it make."""
    if checkpoint is None:
        return
    accounts, *parts = list(journal.parts(checkpoint)) or [b""]
    is_so = parts == list(encode(freeze(fold.state))) or _say_the_same(parts, fold)
    if not (is_so and _agree(accounts, packed_accounts(fold)) and checkpoint.place == fold.place):
        raise JournalDamagedError(
            journal.path,
            f"the checkpoint after batch {checkpoint.seq} is not what the batches before it make",
        )


def _agree(kept: bytes, made: bytes) -> bool:
    """Whether the counts of producers are the same.

    Older versions did not count events of unknown units, so a checkpoint, and
    those that build on it, may know fewer of them than there are.
    """
    try:
        pairs = list(zip(unpack_counts(kept), unpack_counts(made), strict=True))
    except (ValueError, msgspec.MsgspecError):
        return False
    return all(ours[:4] == theirs[:4] and ours[4] <= theirs[4] for ours, theirs in pairs)


def _say_the_same(parts: list[bytes], fold: Fold) -> bool:
    """Whether a checkpoint of an earlier format, or of a state that began with one, holds what was folded."""
    try:
        state = restore(parts)
    except CheckpointError:
        return False
    return list(encode(freeze(state), assembled=True)) == list(encode(freeze(fold.state), assembled=True))


def info(args: argparse.Namespace, talk: Talk) -> int:
    """Say what is in it, without reading all of it."""
    with _opened(args.file) as journal:
        checkpoints = journal.checkpoints()
        figures = {
            "journal": journal.path,
            "format": FORMAT,
            "store": journal.store,
            "version": journal.head.version,
            "oldest": journal.oldest,
            "batches": journal.head.seq - journal.first + 1,
            "checkpoints": len(checkpoints),
            "lastCheckpoint": max([checkpoint.version for checkpoint in checkpoints], default=None),
            "bytes": journal.size(),
        }
    if args.json:
        print(
            msgspec.json.encode(
                {name: figure for name, figure in figures.items() if figure is not None}
            ).decode()
        )
        return 0
    words = {"oldest": "oldest version", "lastCheckpoint": "last of them at"}
    for name, figure in figures.items():
        if figure is not None:
            text = f"{figure:,}" if isinstance(figure, int) else clean(figure)
            print(f"{words.get(name, name):<15}  {text}")
    return 0


def export(args: argparse.Namespace, talk: Talk) -> int:
    """Write its events as lines to standard output, as they came; as many as are whole."""
    with ExitStack() as stack:
        try:
            journal = stack.enter_context(_opened(args.file))
        except JournalDamagedError as error:
            if not os.path.exists(args.file):
                raise
            talk.note(str(error))
        else:
            return _export(journal, talk)
    with _copied(args.file) as journal:
        _export(journal, talk)
    return BROKEN


def _export(journal: Journal, talk: Talk) -> int:
    if journal.first > 1:
        talk.note(f"the events up to version {journal.oldest:,} were cut off when it was compacted")
    place = begin(journal, journal.oldest).place
    count = 0
    sys.stdout.flush()
    while batches := journal.batches(place.seq):
        for batch in batches:
            if not batch.follows(place):
                sys.stdout.buffer.flush()
                talk.note(
                    f"batch {place.seq + 1} is not as it was written; {count:,} events before it are whole"
                )
                return BROKEN
            sys.stdout.buffer.write(batch.lines)
            count += batch.events
            place = batch.end
    sys.stdout.buffer.flush()
    talk.note(f"{count:,} events")
    return 0


def compact(args: argparse.Namespace, talk: Talk) -> int:
    """Cut off its oldest batches behind a checkpoint, and give the room back."""
    with _opened(args.file) as journal:
        size = journal.size()
        before = keep_at(journal, args.keep)
        if before is None:
            talk.note(f"nothing to cut off: it has {journal.head.version - journal.oldest:,} versions")
            return 0
        while cut_off(journal, before):
            pass
        journal.shrink()
        left = journal.head.version - before.version
        talk.note(
            f"{left:,} versions stay, from {before.version:,} on; {size - journal.size():,} bytes are free"
        )
    return 0


@contextmanager
def _opened(path: str) -> Iterator[Journal]:
    journal = Journal(path, create=False)
    try:
        yield journal
        journal.close()
    finally:
        journal.let_go()


@contextmanager
def _copied(path: str) -> Iterator[Journal]:
    """Open a copy of a damaged journal, because SQLite changes what it opens."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.realpath(path))) as folder:
        copy = os.path.join(folder, "journal")
        try:
            for end in ("", "-wal"):
                if os.path.exists(path + end):
                    shutil.copyfile(path + end, copy + end)
        except OSError as error:
            raise JournalError(path, f"what is whole cannot be copied beside it: {reason(error)}") from None
        journal = Journal(copy, create=False, salvage=True)
        try:
            yield journal
        finally:
            journal.let_go()


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 16 or int(text) > MAX_INT:
        raise argparse.ArgumentTypeError(f"{clean(text, 40)!r} is no number of versions")
    return int(text)


Command = Callable[[argparse.Namespace, Talk], int]

COMMANDS: Final[dict[str, tuple[Command, str]]] = {
    "check": (check, "read all of it, and say whether it is whole"),
    "info": (info, "say what is in it"),
    "export": (export, "write its events to standard output, as NDJSON"),
    "compact": (compact, "cut off the oldest events, and keep the state and the counts of producers"),
}
"""What it does -> how, and in a few words."""
