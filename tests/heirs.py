"""Producers with a spool, in processes of their own, that die where they are told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from actorstore import Event, connect
from tests.raw import is_away
from tests.threads import ROOT, SECONDS, wait_until


def outlive(place: Path, name: int) -> None:
    """Hand an event over, and one more once the store is gone; then die."""
    remote = connect(place / "s", spool=place / "p")
    remote.handle_event(Event.unit_added(f"{name}.0"))
    remote.flush(SECONDS)
    (place / f"met {name}").touch()
    wait_until(lambda: is_away(remote))
    remote.handle_event(Event.unit_added(f"{name}.1"))
    os.kill(os.getpid(), signal.SIGKILL)


def go_on(place: Path, name: int) -> None:
    """Take the place of one that has died, and hand an event over."""
    with connect(place / "s", spool=place / "p") as remote:
        remote.handle_event(Event.unit_added(f"{name}.2"))
        remote.flush(SECONDS)


JOBS: Final[Mapping[str, Callable[..., None]]] = {job.__name__: job for job in (outlive, go_on)}
"""What a process may be told to do, by name."""


def breed() -> None:
    """Fork a producer for each line of standard input, and say how it has ended."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 1
            try:
                place, job, *rest = json.loads(line)
                JOBS[job](Path(place), *rest)
                code = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


@contextmanager
def breeder() -> Iterator[Callable[..., int]]:
    """Yield a function that runs a producer, and returns its exit code; a fork is quicker than a start."""
    command = [sys.executable, "-c", "from tests.heirs import breed; breed()"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, cwd=ROOT, text=True) as process:

        def run(place: Path, *arguments: object) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([str(place), *arguments]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        try:
            yield run
        finally:
            assert process.stdin is not None
            process.stdin.close()
