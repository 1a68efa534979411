"""Processes, as others see them: started, frozen, killed and looked at from outside."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.chaos.producer import Plan
from tests.threads import ROOT, SECONDS, wait_until

TICKS: Final = os.sysconf("SC_CLK_TCK")


def environment() -> Mapping[str, str]:
    """Return the environment of a process that can import the package and the tests."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


class Process:
    """A process, watched through `/proc`.

    Args:
        command: What it runs.
        options: Those of `subprocess.Popen`.
    """

    def __init__(self, command: list[str], **options: Any) -> None:
        self._popen = subprocess.Popen(command, cwd=ROOT, env=environment(), **options)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def stdin(self) -> Any:
        """Its standard input, where that is a pipe."""
        return self._popen.stdin

    @property
    def stdout(self) -> Any:
        """Its standard output, where that is a pipe."""
        return self._popen.stdout

    def code(self) -> int | None:
        """Return its exit code, and `None` while it runs."""
        return self._popen.poll()

    def wait(self, seconds: float = SECONDS) -> int:
        """Wait for its end, and return its exit code."""
        return self._popen.wait(seconds)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def freeze(self) -> None:
        """Stop it where it stands."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: self.code() is not None or self._stat()[0] == "T")

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; it does not get to do anything more."""
        self._popen.kill()
        self._popen.wait(SECONDS)
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()

    def descriptors(self) -> int:
        """Count its open files."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident(self) -> int:
        """Return how many bytes of memory it uses."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Return how many seconds it has computed for."""
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def _stat(self) -> list[str]:
        """Return the fields of `/proc/PID/stat` from the state on (proc(5))."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Producer(Process):
    """A producer in a process of its own."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.record = Path(plan.record)
        command = [sys.executable, "-m", "tests.chaos.producer", json.dumps(dataclasses.asdict(plan))]
        super().__init__(command, stderr=subprocess.DEVNULL)  # where it would log each bad line


class Reader(Process):
    """A reader in a process of its own."""

    def __init__(self, socket: Path, record: Path, name: str) -> None:
        self.record = record
        super().__init__([sys.executable, "-m", "tests.chaos.reader", str(socket), str(record), name])
