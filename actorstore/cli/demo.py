"""`actorstore demo`: a real orchestration on any machine, no data needed.

It compiles the standard library of the interpreter that runs it. Units are the
top-level modules and packages, their tests left out; tasks are the source
files, compiled by worker processes; a unit depends on what its files import at
module level. The store listens; the workers feed it themselves, and anybody may
look in from another terminal.

Reading order: `run` here, `stdlib.py` (where the graph comes from),
`orchestrator.py`, `workers.py`.
"""

from __future__ import annotations

import argparse
import difflib
import os
import platform
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from actorstore.answers import StateSnapshot
from actorstore.cli import INTERRUPTED
from actorstore.cli.orchestrator import Orchestrator
from actorstore.cli.stdlib import Library, find_modules
from actorstore.cli.view import counted, open_view, span
from actorstore.cli.workers import compile_task, workers
from actorstore.event import Event
from actorstore.store import Store
from actorstore.text import clean

MOST_WORKERS: Final = 8
"""How many workers there are at most, unless told otherwise: more take longer to start than to work."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore demo`."""
    parser.description = (
        "Compile the standard library of this Python with worker processes, and watch: a unit is a module\n"
        "or package, a task one of its files, and what it imports has to be compiled before it. Nothing is\n"
        "kept, so this can be run anywhere, any time."
    )
    parser.epilog = (
        "exit codes:\n"
        "  0 all is compiled; 1 something is not; 2 the call was wrong\n"
        "\n"
        "examples:\n"
        "  actorstore demo\n"
        "  actorstore demo --break typing      see a failure, what it holds up, and a retry\n"
        "  actorstore demo --json | jq .summary"
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument(
        "--break",
        dest="broken",
        metavar="MODULE",
        help="plant a syntax error in a copy of this module, and mend it when nothing else can go on",
    )
    parser.add_argument(
        "--workers",
        type=_worker_count,
        default=min(cores, MOST_WORKERS),
        metavar="N",
        help="how many processes compile (here %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the final snapshot and nothing else")


def run(args: argparse.Namespace) -> int:
    """Run `actorstore demo`.

    Returns:
        0; 1 where the run failed; 2 where the call was wrong; 130 after Ctrl-C.
    """
    root = Path(sysconfig.get_path("stdlib"))
    modules = find_modules(root, sys.stdlib_module_names)
    if not modules:
        _say(f"actorstore demo: this Python has no source files in {root}")
        return 1
    if args.broken is not None and args.broken not in modules:
        near = difflib.get_close_matches(args.broken, modules, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}?" if near else "try typing"
        _say(f"actorstore demo: --break: no module {args.broken!r} has source files in {root}; {hint}")
        return 2
    code = 0
    told: Counter[str] = Counter()
    if not args.json:
        files = sum(map(len, modules.values()))
        _say(f"reading the {files} files of the standard library of Python {platform.python_version()}")
    with TemporaryDirectory(prefix="actorstore-") as folder, Store(listen=f"{folder}/store.sock") as store:
        if not args.json:
            _say(f"to look in from elsewhere: actorstore state --socket {store.address}")
        with nullcontext() if args.json else open_view(store) as view:

            def report(event: Event) -> None:
                store.handle_event(event)
                told[event.type] += 1
                if view is not None:
                    view.check()  # nothing goes on that the reader of the output does not wait for
                    if event.type == "unit.failed":
                        view.look()  # or a short failure would be over before anybody saw it

            try:
                orchestrate(store, report, root, modules, args.workers, args.broken)
            except KeyboardInterrupt:
                code = INTERRUPTED
                if store.runs():
                    report(Event.orch_failed("interrupted"))
            except BrokenProcessPool:
                report(Event.orch_failed("a worker process died"))
        snapshot = store.snapshot()
    if args.json:
        print(snapshot.json().decode())
    elif snapshot.units:
        _say(_summary(snapshot, told["unit.blocked"]))
    return code or int(snapshot.status != "completed")


def orchestrate(
    store: Store,
    report: Callable[[Event], None],
    root: Path,
    modules: Mapping[str, list[Path]],
    count: int,
    broken: str | None,
) -> None:
    """Compile the modules below `root` with so many workers, one of them broken at first; report it all.

    The workers tell the store of their tasks, and `report` is told the rest.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(workers(count, store))
        library = Library(root, modules, pool)
        if broken is not None:
            folder = stack.enter_context(TemporaryDirectory(prefix="actorstore-"))
            library.plant(modules[broken][0], Path(folder))
        Orchestrator(report, compile_task, library, pool, count).run()


def _worker_count(text: str) -> int:
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= 64:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 64")


def _summary(snapshot: StateSnapshot, blocked: int) -> str:
    done = [unit for unit in snapshot.units if unit.status == "complete"]
    files = sum(unit.total_tasks for unit in done)
    of_all = "" if len(done) == len(snapshot.units) else f" of {len(snapshot.units)}"
    text = f"compiled {len(done)}{of_all} units, {counted(files, 'file')}"
    if snapshot.started_at and snapshot.finished_at:
        text += f" in {span(snapshot.finished_at - snapshot.started_at, exact=True)}"
    retried = [unit.id for unit in done if unit.attempts > 1]
    return text + "".join(f"; {unit} failed once and held up {blocked or 'none'}" for unit in retried)


def _say(text: str) -> None:
    print(clean(text), file=sys.stderr, flush=True)
