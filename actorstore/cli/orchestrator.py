"""The orchestrator of `actorstore demo`: units in the order of their graph, tasks to worker processes.

It knows nothing of a store; what it does is reported as events, one call each.
Those who do the tasks report these themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

from actorstore.cli.stdlib import Library
from actorstore.event import Event

OPTIMIZE: Final = (0, 1, 2)
"""The levels that a file is compiled at: all that there are, as in `python -m compileall -o 0 -o 1 -o 2`."""


class Orchestrator:
    """Compiles each unit once all that it imports is compiled, and reports what happens.

    What fails holds up only what depends on it. When nothing else can go on,
    whatever can be mended is mended and retried.

    Args:
        report: Is told what happens to the run and its units, in order.
        compile_task: Does a task, in the pool: gets unit, number, file and what
            that is called; reports that it began, and returns what is wrong with it.
        library: What to compile.
        pool: Who compiles.
        workers: How many files are compiled at once.
    """

    def __init__(
        self,
        report: Callable[[Event], None],
        compile_task: Callable[[str, int, Path, str], str],
        library: Library,
        pool: Executor,
        workers: int,
    ) -> None:
        self._report = report
        self._compile_task = compile_task
        self._library = library
        self._pool = pool
        self._workers = workers
        self._depends_on: dict[str, set[str]] = {unit: set() for unit in library.files}
        for edge in library.graph.edges:
            self._depends_on[edge.from_].add(edge.to)
        self._sorter = TopologicalSorter(self._depends_on)
        self._waiting: deque[tuple[str, int]] = deque()  # tasks of units that are ready: unit and number
        self._running: dict[Future[str], str] = {}
        self._left: dict[str, int] = {}  # tasks of a unit that are not done
        self._failed: set[str] = set()

    def run(self) -> None:
        """Run until nothing can go on."""
        self._report(Event.orch_started(self._library.graph, parallelism=self._workers))
        self._sorter.prepare()
        while True:
            for unit in self._sorter.get_ready():
                self._queue(unit)
            while self._waiting and len(self._running) < self._workers:
                self._start(*self._waiting.popleft())
            if self._running:
                done, _ = wait(self._running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._finish(self._running.pop(future), future.result())
            elif not self._retry():
                break
        if self._failed:
            total = len(self._depends_on)
            self._report(Event.orch_failed(f"{len(self._failed)} of {total} units did not compile"))
        else:
            self._report(Event.orch_completed())

    def _queue(self, unit: str) -> None:
        self._report(Event.unit_queued(unit))
        self._left[unit] = len(self._library.files[unit])
        self._waiting.extend((unit, task) for task in range(1, self._left[unit] + 1))

    def _start(self, unit: str, task: int) -> None:
        files = self._library.files[unit]
        if task == 1:
            self._report(Event.unit_started(unit, total_tasks=len(files), completed_tasks=0))
        file = files[task - 1]
        future = self._pool.submit(self._compile_task, unit, task, self._library.where(file), str(file))
        self._running[future] = unit

    def _finish(self, unit: str, error: str) -> None:
        self._left[unit] -= 1
        if unit in self._failed:
            return
        if error:
            self._fail(unit, error)
        elif not self._left[unit]:
            self._report(Event.unit_completed(unit))
            self._sorter.done(unit)

    def _fail(self, unit: str, error: str) -> None:
        self._failed.add(unit)
        self._waiting = deque(task for task in self._waiting if task[0] != unit)
        self._report(Event.unit_failed(unit, error))
        held_up = {unit}
        for level in self._library.graph.levels:
            for other in level:
                if not held_up.isdisjoint(self._depends_on[other]):
                    held_up.add(other)
                    self._report(Event.unit_blocked(other))

    def _retry(self) -> bool:
        mended = [unit for unit in sorted(self._failed) if self._library.mend(unit)]
        self._failed.difference_update(mended)
        for unit in mended:
            self._queue(unit)
        return bool(mended)


def compile_file(file: Path, name: str) -> str:
    """Compile a source file, and return what is wrong with it; nothing, where that is so."""
    try:
        source = file.read_bytes()
        for level in OPTIMIZE:
            compile(source, name, "exec", dont_inherit=True, optimize=level)
    except SyntaxError as error:
        return f"SyntaxError: {error.msg} ({name}, line {error.lineno})"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
