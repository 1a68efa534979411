"""Producers with a spool that die where they are told to, in this process or in one of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from actorstore import Event, RemoteStore, connect
from actorstore import spool as spooling
from tests.raw import is_away
from tests.threads import ROOT, SECONDS, wait_until

WRITES: Final = ("pwrite", "ftruncate", "rename", "unlink")
"""What a spool does to files, as `os` has it."""

HOWS: Final = (
    "before",
    "after",
    "torn 1",
    "torn 7",
    "torn 100",
    "torn 300",
    "torn 512",
    "torn 600",
    "torn -1",
)
"""Where a process dies: before a call, after it, or once so many bytes are written (or all but so many)."""


class DiedError(BaseException):
    """This process is as good as dead."""


class Doom:
    """Lets the n-th change of a file be the last.

    Args:
        number: Which one; with 0, none is.
        how: One of `HOWS`.
        die: What is called there.
    """

    def __init__(self, number: int, how: str, die: Callable[[], None]) -> None:
        self.count = 0
        self.is_over = False
        self._number, self._how, self._die = number, how, die
        self._real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in WRITES}

    def plant(self, name: str) -> Callable[..., Any]:
        """Return what to put in the place of a function of `os`."""
        real = self._real[name]

        def call(*args: Any) -> Any:
            if self.is_over:  # the dead change nothing
                return len(args[1]) if name == "pwrite" else None
            self.count += 1
            if self.count != self._number:
                return real(*args)
            if self._how == "after":
                real(*args)
            elif name == "pwrite" and self._how != "before":
                file, data, start = args
                real(file, bytes(data)[: int(self._how.removeprefix("torn "))], start)
            self.is_over = True
            return self._die()

        return call


def _raise() -> None:
    raise DiedError


@contextmanager
def doomed(number: int, how: str) -> Iterator[Doom]:
    """Have this process as good as dead at a change of a file, until the block ends."""
    doom = Doom(number, how, _raise)
    with pytest.MonkeyPatch.context() as patched:
        for name in WRITES:
            patched.setattr(os, name, doom.plant(name))
        yield doom


# Processes; each function is what one of them does.


def die(place: Path, name: int, number: int, how: str, together: int, rewrite_bytes: int) -> None:
    """Hand events over, and write down each that is; die at a change of a file, or end in an orderly way."""
    doom = Doom(number, how, lambda: os.kill(os.getpid(), signal.SIGKILL))
    for function in WRITES:
        setattr(os, function, doom.plant(function))
    spooling.REWRITE_BYTES = rewrite_bytes  # type: ignore[misc]
    told = os.open(place / "told", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    remote = (RemoteStore, connect)[name % 2](place / "s", spool=place / "p")
    for event in range(4):
        remote.handle_event(Event.unit_added(f"{name}.{event}"))
        os.write(told, b"%d.%d\n" % (name, event))
        if event % together == 0:
            remote.flush(SECONDS)
    remote.close()


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


JOBS: Final[Mapping[str, Callable[..., None]]] = {job.__name__: job for job in (die, outlive, go_on)}
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
