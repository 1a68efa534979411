"""A store that is killed at a named point, or has a bug planted.

`python -m tests.chaos.saboteur POINT N BUG serve ...`; each may be empty.

The switches are here and nowhere in the package: this replaces what the points
are in a process of its own, and then is `actorstore serve`. Checkpoints and
folds of the WAL come after a few transactions, so that they are met too.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from actorstore import actor, batch, entries, journal, keeper, writer
from actorstore.cli import main
from actorstore.connection import Connection
from actorstore.run import Run
from actorstore.state import State

POINTS: Final[dict[str, tuple[Any, str]]] = {
    "read": (Connection, "data_received"),
    "decode": (entries, "decode"),
    "begin": (journal, "follow"),
    "insert": (journal.Journal, "append"),
    "commit": (journal.Journal, "_is_written"),
    "apply": (State, "apply"),
    "ack": (Connection, "_tell"),
    "checkpoint": (journal.Journal, "add_part"),
    "checkpoint end": (journal.Journal, "end_checkpoint"),
    "fold": (journal.Journal, "fold"),
}
"""Name of a point -> what is called there. It ends before the call, or after it, by turns."""


def kill_at(point: str, number: int) -> None:
    """Have this process end when a point is reached for the n-th time."""
    where, name = POINTS[point]
    real: Callable[..., Any] = getattr(where, name)
    counted = itertools.count(1)

    def reached(*args: Any, **options: Any) -> Any:
        is_now = next(counted) == number
        if is_now and number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if is_now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(where, name, reached)


# Planted bugs: what F18 names.


def ack_before_commit() -> None:
    """Entries count as durable as soon as they are appended, and are written later."""
    real = writer.Writer.append

    def append(self: writer.Writer, entry: keeper.Entry) -> None:
        real(self, entry)
        done = self.committed
        self.committed = done._replace(entries=self._appended)
        self._wake()

    def commit(self: writer.Writer, entries: list[keeper.Entry]) -> None:
        if random.random() < 0.5:
            self._held = entries + self._held  # later
            return
        late(self, entries)

    late = writer.Writer._commit
    writer.Writer.append = append  # type: ignore[method-assign]
    writer.Writer._commit = commit  # type: ignore[method-assign]


def dedupe_after_ack() -> None:
    """Counts of producers are not in the transaction of their events."""
    writer.pack = lambda steps: batch.pack(())  # type: ignore[attr-defined]


def resume_off_by_one() -> None:
    """A producer that comes back is told of one line less than it was acked, once it has some."""
    made = actor.Welcomed

    def short(account: Any, store: str, lines: int, *more: Any) -> actor.Welcomed:
        return made(account, store, max(0, lines - 1), *more)

    actor.Welcomed = short  # type: ignore[assignment, misc]


def dropped_update() -> None:
    """An update leaves a unit out now and then."""
    real = Run._bring_up_to_date

    def bring(self: Run, version: int) -> None:
        if len(self.unseen) > 2:
            del self.unseen[1]
        real(self, version)

    Run._bring_up_to_date = bring  # type: ignore[method-assign]


def swallowed_checksum() -> None:
    """A batch is taken for whole whatever its checksum says."""
    batch.Batch.follows = lambda self, before: True  # type: ignore[method-assign]


# A fault: the journal stalls.


def stalls() -> None:
    """The disk is full in half of all 50 ms, and the journal with it after a few entries.

    Which of them is drawn: what comes and goes in a fixed rhythm may be full whenever it is tried.
    """
    writer.FULL_ENTRIES = 4  # type: ignore[misc]
    real = journal.Journal.append

    def append(self: journal.Journal, *args: Any) -> Any:
        if random.Random(int(20 * time.monotonic())).random() < 0.5:
            raise journal.NoRoomError("no space left on the device")
        return real(self, *args)

    journal.Journal.append = append  # type: ignore[method-assign]


BUGS: Final = {
    function.__name__: function
    for function in (
        ack_before_commit,
        dedupe_after_ack,
        resume_off_by_one,
        dropped_update,
        swallowed_checksum,
        stalls,
    )
}
"""Name of a bug, or of a fault -> what plants it."""


def dense(checkpoints: int = 4, fold_bytes: int = 1 << 18) -> None:
    """Have a checkpoint every few transactions, and the WAL folded as often."""
    journal.FOLD_BYTES = fold_bytes  # type: ignore[misc]
    calls = itertools.count()
    kept: set[int] = set()

    def wants(self: writer.Writer) -> bool:
        seq = self.committed.place.seq
        if self._keeps or seq in kept or next(calls) % checkpoints:
            return False  # there is one already: lines that are refused make no transaction
        kept.add(seq)
        return True

    writer.Writer.wants_checkpoint = wants  # type: ignore[method-assign]


if __name__ == "__main__":
    point, number, bug, *arguments = sys.argv[1:]
    dense()
    if point:
        kill_at(point, int(number))
    if bug:
        BUGS[bug]()
    raise SystemExit(main(arguments))
