"""`actorstore replay`: feed event logs and recorded workflows into a store, and show the run.

Reading order: `run`, `Feed` (from files into the store), `Output` (`--write`).
The recorded clock is in `pace.py`, what goes to standard error in `talk.py`.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from typing import IO, Final

import msgspec

from actorstore import wire
from actorstore.answers import Rejection
from actorstore.cli import access, drawing, eventlog, view, wfformat
from actorstore.cli.pace import Pace
from actorstore.cli.talk import NEITHER, SHOWN_COMPLAINTS, Report, Talk
from actorstore.errors import ActorStoreError, InvalidEventError
from actorstore.remote import RemoteStore
from actorstore.store import Store
from actorstore.text import clean

MACHINES: Final = 8
"""How many workers a recorded workflow gets, unless told otherwise."""

TELLING_LINE: Final = re.compile(rb'"(?:unit\.failed"|orch\.)[^\n]*\n')
"""The rest of a line that plain output has a line of its own for."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore replay`."""
    parser.description = (
        "Feed event logs (NDJSON, one event a line) or recorded workflows (WfFormat 1.5, the JSON\n"
        "of the WfCommons project) into a store, and show the run as it unfolds: live on a\n"
        "terminal, as plain lines elsewhere. What is packed with gzip is unpacked."
    )
    parser.epilog = (
        "exit codes:\n"
        "  0 all is well; 1 a run failed; 2 the input or the call was wrong; 69 nobody listens (--to)\n"
        "\n"
        "examples:\n"
        "  actorstore replay events.ndjson\n"
        "  actorstore replay --speed 60 montage.json        an hour in a minute\n"
        "  zcat old.gz | actorstore replay --json - | jq .summary\n"
        "  actorstore replay --graph dot montage.json | dot -Tsvg > montage.svg\n"
        "  actorstore replay --machines 64 --write events.ndjson.gz montage.json\n"
        "  actorstore replay --to /run/user/1000/builds.sock --speed 60 montage.json"
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="event log or recorded workflow; - is standard input; several are played one after the other",
    )
    answers = parser.add_mutually_exclusive_group()
    answers.add_argument(
        "--json",
        action="store_true",
        help="print the final snapshot and nothing else; of several runs, one a line",
    )
    answers.add_argument(
        "--graph", choices=list(drawing.FORMS), help="print the dependency graph and nothing else"
    )
    answers.add_argument(
        "--to",
        metavar="SOCKET",
        help="feed the store that listens there, and show nothing; actorstore watch does",
    )
    parser.add_argument(
        "--speed",
        type=_speed,
        metavar="N",
        help="play by the recorded clock, N times faster; otherwise as fast as it goes",
    )
    parser.add_argument(
        "--machines",
        type=_machines,
        default=MACHINES,
        metavar="K",
        help="how many workers carry out a recorded workflow (default: %(default)s)",
    )
    parser.add_argument("--write", metavar="FILE", help="keep the events as NDJSON; .gz is packed")


def run(args: argparse.Namespace) -> int:
    """Run `actorstore replay`.

    Returns:
        0; 1 where a run failed; 2 where the input or the call was wrong; 69
        where nobody listens.
    """
    talk = Talk()
    if args.write is not None and (reason := _unfit_output(args.write, args.files)):
        talk.complain(args.write, reason)
        return 2
    if args.to:
        return _feed_another(args, talk)
    began = time.perf_counter()
    with Store() as store:
        pace = None if args.speed is None else Pace(args.speed)
        feed = Feed(store, talk, pace, args.machines)
        shown: AbstractContextManager[view.View | None] = nullcontext()
        if not (args.json or args.graph):
            shown = view.open_view(store, clock=pace.now if pace else view.recorded_clock)
        try:
            with shown as feed.view, Output(args.write) as feed.output:
                talk.is_held = feed.view is not None and feed.view.is_live
                for path in args.files:
                    feed.play(path)
        except OutputError as error:
            talk.complain(args.write, error.reason)
            return 2
        finally:
            talk.release()
        if feed.accepted:
            took = view.span(timedelta(seconds=time.perf_counter() - began), exact=True)
            _note_oddities(store, talk)
            if args.json:
                _print_snapshots(store)
            elif args.graph:
                _print_graphs(store, args.graph, talk)
            else:
                print(_summary(store, feed, took))
        has_failed = any(info.status == "failed" for info in store.runs())
    return 2 if talk.complaints else 1 if has_failed else 0


def _feed_another(args: argparse.Namespace, talk: Talk) -> int:
    """Play the files to a store that listens elsewhere, which may hold the runs of others too."""
    began = time.perf_counter()
    try:
        with access.feeding(args.to) as store, Output(args.write) as output:
            feed = Feed(store, talk, None if args.speed is None else Pace(args.speed), args.machines)
            feed.output = output
            for path in args.files:
                feed.play(path)
    except OutputError as error:
        talk.complain(args.write, error.reason)
    except ActorStoreError as error:
        return access.refusal(error, talk)
    else:
        took = view.span(timedelta(seconds=time.perf_counter() - began), exact=True)
        _note_unknown(feed.unknown_units, talk)
        if feed.accepted:
            print(f"{view.counted(feed.accepted, 'event')} replayed to {clean(store.address)} in {took}")
    return 2 if talk.complaints else 0


class Feed:
    """Takes files, one after the other, and hands what they hold over to a store.

    Args:
        store: Where the events go.
        talk: Where to say what is wrong.
        pace: Whose clock to play by; as fast as it goes, where not given.
        machines: How many workers carry out a recorded workflow.
    """

    def __init__(self, store: Store | RemoteStore, talk: Talk, pace: Pace | None, machines: int) -> None:
        self.view: view.View | None = None
        self.output: Output | None = None
        self.accepted = 0
        self.rejected = 0
        self.unknown_units = 0
        self._store = store
        self._talk = talk
        self._pace = pace
        self._machines = machines

    def play(self, path: str) -> None:
        """Play one file to its end; what is wrong with it is said, and the rest of it played."""
        name = "<stdin>" if path == eventlog.STANDARD_INPUT else path
        report = Report(name, self._talk)
        try:
            lines = eventlog.whole_lines(path)
            self._play(eventlog.unmarked(lines, lambda text: self._talk.note(f"{name}: {text}")), report)
        except wfformat.WorkflowError as error:
            place = name if error.line is None else f"{name}:{error.line}"
            self._talk.complain(place, f"{NEITHER}: {error.reason}")
        except (eventlog.InputError, InvalidEventError) as error:
            report.end()
            self._talk.complain(name, error.reason)
        else:
            report.end(is_whole=True)

    def _play(self, pieces: Iterator[bytes], report: Report) -> None:
        head: list[bytes] = []
        blank = 0  # lines before the first one that tells what the file is
        is_document = None
        while is_document is None and (piece := next(pieces, b"")):
            if not head and eventlog.is_blank(piece):
                blank += self._pass_over(piece, report)
                continue
            is_document = eventlog.goes_on(piece) if head else eventlog.is_document(piece)
            head.append(piece)
        if self._pace is not None:
            self._pace.begin()
        pieces = itertools.chain(head, pieces)
        if is_document:
            pieces = iter([self._carried_out(b"".join(pieces), blank)])
        for piece in pieces:
            if eventlog.is_blank(piece):
                self._pass_over(piece, report)
                continue
            for lines in self._parts(piece):
                self._hand_over(lines, report)

    def _pass_over(self, blank: bytes, report: Report) -> int:
        """Count blank lines, which no store has to see; there may be a billion of them in a small gzip."""
        count = blank.count(b"\n")
        report.add(count, 0, ())
        return count

    def _carried_out(self, document: bytes, blank: int) -> bytes:
        """Return the events of a recorded workflow, as lines."""
        try:
            workflow = wfformat.read(document)
        except wfformat.WorkflowError as error:
            raise wfformat.WorkflowError(error.reason, error.line and error.line + blank) from None
        events = wfformat.events(workflow, machines=self._machines, run=self._new_run(workflow.name))
        return msgspec.json.Encoder().encode_lines(events)

    def _parts(self, lines: bytes) -> Iterator[bytes]:
        """Cut lines where the next one is not yet due, and where each step is to be seen."""
        for due in self._pace.parts(lines) if self._pace else (lines,):
            if self.view is None or self.view.is_live:
                yield due
            else:
                yield from _steps(due)

    def _hand_over(self, lines: bytes, report: Report) -> None:
        self._store.handle_lines(lines)
        store = self._store
        result = access.flushed(store) if isinstance(store, RemoteStore) else store.flush()
        rejections = list(_rejections(lines)) if result.rejected > self.rejected else []
        report.add(lines.count(b"\n"), result.accepted - self.accepted, rejections)
        self.accepted, self.rejected = result.accepted, result.rejected
        self.unknown_units = result.unknown_units
        if self.output is not None:
            self.output.write(_without(lines, rejections))
        if self.view is not None and not self.view.is_live:
            self.view.look()

    def _new_run(self, name: str) -> str:
        """Return the name, or one like it where there is such a run already."""
        taken = {info.run for info in self._store.runs()}
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(name for name in names if name not in taken)


class OutputError(Exception):
    """Raised when the events cannot be kept.

    Attributes:
        reason: What is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Output:
    """The file that keeps the events; made when there is one, so that a wrong call overwrites nothing.

    Args:
        path: Where; nowhere, where not given.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._files: list[IO[bytes] | gzip.GzipFile] = []

    def write(self, lines: bytes) -> None:
        """Keep some lines.

        Raises:
            OutputError: They cannot be written.
        """
        if self._path is None or not lines:
            return
        try:
            if not self._files:
                self._files.append(open(self._path, "wb"))  # noqa: SIM115
                if self._path.endswith(".gz"):  # without time and name: the same events, the same bytes
                    self._files.append(gzip.GzipFile("", "wb", fileobj=self._files[0], mtime=0))
            self._files[-1].write(lines)
        except OSError as error:
            raise OutputError(eventlog.said_by(error)) from None

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            while self._files:
                self._files.pop().close()
        except OSError as error:
            raise OutputError(eventlog.said_by(error)) from None


def _steps(lines: bytes) -> Iterator[bytes]:
    """Cut lines after each one that tells something, so that no step is merged with the next."""
    start = 0
    for found in TELLING_LINE.finditer(lines):
        yield lines[start : found.end()]
        start = found.end()
    if start < len(lines):
        yield lines[start:]


def _rejections(lines: bytes) -> Iterator[Rejection]:
    """Yield all that the store has refused of these lines; it keeps the last few only, and has the rest."""
    before = 0
    for piece in wire.chunks(lines):
        chunk = wire.decode(piece)
        for rejection in chunk.rejections:
            yield msgspec.structs.replace(rejection, line=before + (rejection.line or 0))
        before += chunk.lines


def _without(lines: bytes, rejections: Iterable[Rejection]) -> bytes:
    bad = {rejection.line for rejection in rejections}
    if not bad:
        return lines
    return b"".join([line for number, line in enumerate(eventlog.split_lines(lines), 1) if number not in bad])


def _note_oddities(store: Store, talk: Talk) -> None:
    stats = store.stats()
    _note_unknown(stats.unknown_units, talk)
    if stats.faults:
        events = view.counted(stats.faults, "event")
        talk.note(f"{events} met a bug of actorstore: the state may be incomplete")


def _note_unknown(unknown_units: int, talk: Talk) -> None:
    if unknown_units:
        events = view.counted(unknown_units, "event")
        talk.note(f"{events} named a unit that the run does not have, and changed nothing")


def _summary(store: Store, feed: Feed, took: str) -> str:
    """Say how it ended, below what the view has said; a live screen has said it of the only run."""
    runs = store.runs()
    events = f"{view.counted(feed.accepted, 'event')} replayed in {took}"
    if feed.view is not None and feed.view.is_live:
        return f"\n{events}" if len(runs) == 1 else f"\n{view.summarize(runs)}\n{events}"
    return f"{view.summarize(runs)}; {events}"


def _print_snapshots(store: Store) -> None:
    runs: list[str | None] = [info.run for info in store.runs()]
    runs = runs or [None]
    access.print_data("".join([drawing.plain_json(store.snapshot(run).json()) + "\n" for run in runs]))


def _print_graphs(store: Store, form: str, talk: Talk) -> None:
    graphs = [(info.run, graph) for info in store.runs() if (graph := store.graph(info.run)) is not None]
    if not graphs:
        talk.complain("--graph", "no run has a graph")
    for run, graph in graphs:
        access.print_data(drawing.FORMS[form](graph, store.snapshot(run)))
        for problem in graph.problems[:SHOWN_COMPLAINTS]:
            talk.note(f"graph of run {run!r}: {problem}")


def _unfit_output(path: str, inputs: Iterable[str]) -> str | None:
    if path == "-":
        return "--write needs the name of a file"
    if os.path.exists(path):
        for other in inputs:
            if other != eventlog.STANDARD_INPUT and os.path.exists(other) and os.path.samefile(path, other):
                return "is read, so the events cannot be written to it"
    return None


def _speed(text: str) -> float:
    with suppress(ValueError):
        speed = float(text)
        if math.isfinite(speed) and speed > 0:
            return speed
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def _machines(text: str) -> int:
    with suppress(ValueError):
        machines = int(text)
        if machines > 0:
            return machines
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of workers, 1 or more")
