"""Judges what happened: `python -m tests.chaos.checker FOLDER`.

A program of its own that has seen nothing but the records of producers and
readers and the last answer of the store (`final.json`, see `conclude`), and
knows what each line does from `script` alone. It says how often each promise
was checked, and every way in which it was broken; the exit code is 1 then.

    G1  an acked line is in the state; one in a spool outlives its producer
    G2  a line counts at most once, and nothing counts that was not handed over
    G3  the lines of one producer apply in its order, without a hole
    G4  the versions that a reader sees never go down, and the last is the number of events
    G5  updates put together are the snapshot, byte for byte
    G6  a snapshot asked for after an ack holds the acked lines
    G7  a journal that was killed again and again is whole, each checkpoint what its batches make
    G12 the journal, folded twice, gives the same bytes, and those of the last snapshot
    R   every bad line is rejected, no good one is, and the producer hears of it before the ack

Where there is a journal, its lines are read with nothing but SQLite, and judged
like the state. Without one, a state begins with its store: what an earlier store
acked is in none of the later ones.
"""

from __future__ import annotations

import io
import json
import sqlite3
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actorstore import RemoteStore
from actorstore.cli import main as main_of_actorstore
from actorstore.journal import Journal
from actorstore.recovery import recover
from tests.chaos.reader import digest
from tests.chaos.record import Entry, entries
from tests.chaos.script import bad, events, kind, line, runs, units
from tests.raw import Raw

RECORD = "*.record"
JOURNAL = "j"
"""Name of a journal in the folder; its store has ended when it is judged."""


@dataclass
class Verdict:
    """How often each promise was checked, and how it was broken."""

    checked: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def check(self, promise: str, holds: bool, why: str) -> bool:
        """Take note of one check."""
        self.checked[promise] += 1
        if not holds:
            self.broken.append(f"{promise}: {why}")
        return holds

    def add(self, other: Verdict) -> Verdict:
        """Put another verdict to this one."""
        self.checked += other.checked
        self.broken += other.broken
        return self

    def __str__(self) -> str:
        counted = ", ".join(f"{promise} {count}" for promise, count in sorted(self.checked.items()))
        return "\n".join([f"checked: {counted}", *self.broken])


def conclude(folder: Path, socket: Path, others: int = 1) -> None:
    """Write down what the store answers last.

    Args:
        folder: Where.
        socket: Of the store.
        others: Events of those who keep no record: `script.START`, and the end of the run.
    """
    with Raw(socket) as raw:
        store = raw.hello()["store"]
    with RemoteStore(socket) as remote:
        stats = remote.stats()
        final: dict[str, Any] = {"store": store, "version": stats.version, "others": others, "units": []}
        final["runs"] = [info.run for info in remote.runs()]
        if "" in final["runs"]:
            snapshot = remote.snapshot("")
            final["units"] = [[unit.id, unit.attempts] for unit in snapshot.units]
            final["digest"] = digest(snapshot)
    (folder / "final.json").write_text(json.dumps(final))


class Told:
    """What one producer wrote down, of the store that answered last."""

    def __init__(self, path: Path, store: str) -> None:
        self.entries = list(entries(path))
        _, self.name, self.kind, self.words = self.entries[0]
        self.handed = max((entry[1] for entry in self.entries if entry[0] == "hand"), default=0)
        self.welcomes = [entry for entry in self.entries if entry[0] == "welcome"]
        self.before: int | None = None  # what others acked before; nothing, where it never met the store
        self.acked = 0
        met = ""
        for entry in self.entries:
            match entry:
                case ["welcome", met, before] if met == store:
                    self.before = self.acked = before
                case ["ack", last]:
                    self.acked = last
                    if met == store and self.before is None:
                        self.before = 0
        if met != store:
            self.before = None
        self.done: Entry | None = next((entry for entry in self.entries if entry[0] == "done"), None)


def journaled(path: Path) -> list[bytes]:
    """Return the lines of a journal that nobody has open, in order."""
    connection = sqlite3.connect(path)
    try:
        blobs = connection.execute("SELECT lines FROM batch ORDER BY seq").fetchall()
    finally:
        connection.close()
    return b"".join([lines for (lines,) in blobs]).splitlines(keepends=True)


def _fold(path: Path) -> tuple[str, int]:
    """Fold a journal, and return what its default run is, and how many events it holds."""
    journal = Journal(path)
    try:
        state = recover(journal).state
        return (digest(state.snapshot("")) if "" in state.runs else "", state.version)
    finally:
        journal.let_go()


def _judge_journal(verdict: Verdict, folder: Path, final: dict[str, Any], told: list[Told]) -> None:
    path = folder / JOURNAL
    if not path.exists():
        return
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(said):
        code = main_of_actorstore(["journal", "check", str(path)])
    verdict.check("G7", code == 0, f"journal check: {said.getvalue()}")
    folds = {_fold(path), _fold(path), (final.get("digest", ""), final["version"])}
    verdict.check("G12", len(folds) == 1, f"the journal, and the last snapshot, are {folds}")
    lines = journaled(path)
    verdict.check("G4", len(lines) == final["version"], f"{len(lines)} lines at version {final['version']}")
    for producer in told:
        mark = f"{producer.name}/".encode()
        held = [line for line in lines if mark in line]
        made = [
            each
            for number in range(1, producer.handed + 1)
            if kind(producer.name, number) == "event"
            for each in [line(producer.name, number, producer.words)]
        ]
        due = events(producer.name, 0, producer.acked)
        why = f"{producer.name}: the journal holds {len(held)} lines, and {due} were acked"
        verdict.check("G1", len(held) >= due, why)
        verdict.check(
            "G2", len(set(held)) == len(held) or len(held) <= len(made), f"{producer.name}: doubled"
        )
        verdict.check(
            "G3",
            held == made[: len(held)],
            f"{producer.name}: the journal holds other lines, or another order",
        )


def judge(folder: Path) -> Verdict:
    """Judge what happened in a folder."""
    final = json.loads((folder / "final.json").read_text())
    verdict = Verdict()
    everybody: list[Told] = []
    least = most = final["others"]
    for path in sorted(folder.glob(RECORD)):
        first = next(entries(path), None)
        if first is None:
            continue  # it was killed before it began
        if first[0] == "reads":
            _judge_reader(verdict, path, final)
            continue
        told = Told(path, final["store"])
        everybody.append(told)
        low, high = _judge_producer(verdict, told, final)
        least, most = least + low, most + high
        _judge_rejections(verdict, told)
        _judge_looks(verdict, told)
        _judge_spool(verdict, told)
    _judge_journal(verdict, folder, final, everybody)
    verdict.check(
        "G4",
        least <= final["version"] <= most,
        f"the store is at version {final['version']}, and the events are {least} to {most}",
    )
    return verdict


def _judge_producer(verdict: Verdict, told: Told, final: dict[str, Any]) -> tuple[int, int]:
    """Judge what the state holds of a producer; returns how many events that may be."""
    prefix = told.name + "/"
    if told.words == "runs":
        seen = {int(run[len(prefix) :]): 1 for run in final["runs"] if run.startswith(prefix)}
    else:
        seen = {int(id[len(prefix) :]): n for id, n in final["units"] if id.startswith(prefix)}
    before = told.before or 0
    last = _last(told.words, seen, told.name)
    may_be = told.before is not None and last <= told.handed
    verdict.check("G2", may_be or not seen, f"{told.name}: line {last} was never handed over")
    end = max(before, told.acked if told.before is not None else 0, min(last, told.handed))
    if told.done is not None and told.before is not None:
        end = told.handed
    made = dict.fromkeys(runs(told.name, before, end), 1)
    wanted = made if told.words == "runs" else units(told.name, before, end)
    missing = [place for place in wanted if place not in seen or seen[place] < wanted[place]]
    doubled = [place for place in seen if seen[place] > wanted.get(place, 0)]
    acked = f"handed over up to {told.handed}, acked up to {told.acked}, from {before} on"
    verdict.check("G1", not missing, f"{told.name}: {missing[:9]} are missing; {acked}")
    verdict.check("G2", not doubled, f"{told.name}: {doubled[:9]} count too often; {acked}")
    verdict.check("G3", list(seen) == sorted(seen), f"{told.name}: applied out of order")
    return events(told.name, before, end), events(told.name, before, max(end, told.handed))


def _last(words: str, seen: dict[int, int], name: str) -> int:
    """Return the last line that shows in the state."""
    if words == "runs":
        return max(seen, default=0)
    return max((2 * place + 1 if attempts else 2 * place for place, attempts in seen.items()), default=0)


def _judge_rejections(verdict: Verdict, told: Told) -> None:
    if told.done is not None and told.kind == "remote":
        _, accepted, rejected = told.done
        counts = events(told.name, 0, told.handed), bad(told.name, 0, told.handed)
        verdict.check(
            "R", (accepted, rejected) == counts, f"{told.name}: {accepted}, {rejected}, not {counts}"
        )
    if told.kind != "raw":
        return
    is_whole = sum(entry[0] in ("welcome", "again") for entry in told.entries) == 1
    heard: set[int] = set()
    acked = 0
    for entry in told.entries:
        match entry:
            case ["welcome", *_]:
                heard.clear()
            case ["reject", number]:
                is_new = number not in heard and kind(told.name, number) == "bad"
                verdict.check("R", is_new, f"{told.name}: line {number} is rejected")
                heard.add(number)
            case ["ack", last]:
                if is_whole:
                    due = {n for n in range(acked + 1, last + 1) if kind(told.name, n) == "bad"}
                    verdict.check("R", due <= heard, f"{told.name}: nothing was heard of {due - heard}")
                acked = last


def _judge_looks(verdict: Verdict, told: Told) -> None:
    before = 0
    version = 0
    for entry in told.entries:
        match entry:
            case ["welcome", _, before]:
                version = 0
            case ["held", acked, seen, last]:
                made = units(told.name, before, acked)
                due = max(made, default=-1)
                why = f"{told.name}: unit {due} was acked, and a later snapshot ends with {last}"
                verdict.check("G6", last >= due, why)
                verdict.check("G4", seen >= version, f"{told.name}: saw {seen} after {version}")
                version = seen


def _judge_spool(verdict: Verdict, told: Told) -> None:
    """Judge whether what was handed over outlived its producer: the next one goes on behind it."""
    handed = kept = 0
    for entry in told.entries:
        match entry:
            case ["hand", handed]:
                pass
            case ["kept", kept]:
                pass
            case ["found", last]:
                why = f"{told.name}: {kept} lines were handed over, or up to {handed}, and {last} are found"
                verdict.check("G1", kept <= last <= handed, why)
                kept = last


def _judge_reader(verdict: Verdict, path: Path, final: dict[str, Any]) -> None:
    version = 0
    name = path.stem
    for entry in entries(path):
        match entry:
            case ["welcome", *_]:
                version = 0
            case ["saw" | "whole", seen]:
                verdict.check("G4", seen >= version, f"{name}: saw version {seen} after {version}")
                version = seen
            case ["end", seen, *digests]:
                verdict.check("G4", seen >= version, f"{name}: ended at version {seen} after {version}")
                why = f"{name}: updates, kept snapshot and new snapshot differ: {digests}"
                verdict.check("G5", len({*digests, final["digest"]}) == 1, why)


def main(folder: str) -> int:
    """Judge a folder, say so, and return the exit code."""
    verdict = judge(Path(folder))
    print(verdict)
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
