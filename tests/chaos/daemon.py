"""A store in a process of its own, which can be frozen, killed and looked at from outside."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.chaos.process import Process
from tests.chaos.script import START
from tests.raw import Raw
from tests.threads import wait_until

SERVE: Final = """
import logging, signal, sys, threading
from actorstore import Store
logging.basicConfig(level=logging.INFO)
done = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: done.set())
with Store(listen=sys.argv[1], max_line_bytes=int(sys.argv[2])):
    done.wait()
"""
"""A store that takes only short lines, which the command line has no flag for."""


class Daemon(Process):
    """A store that listens, in a process of its own; up when this returns.

    Args:
        path: The socket.
        max_line_bytes: Longest line that it takes.
        descriptors: How many files it may have open.
        umask: Which modes it does not give to files.
        begins: Whether the default run is started.
        journal: Its journal.
        point: Where it is killed, of `saboteur.POINTS`; nowhere, if empty.
        number: The how manieth time it is there.
        bug: What is planted, of `saboteur.BUGS`.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_line_bytes: int | None = None,
        descriptors: int | None = None,
        umask: int = -1,
        begins: bool = True,
        journal: Path | None = None,
        point: str = "",
        number: int = 1,
        bug: str = "",
    ) -> None:
        self.path = path
        self._log = path.with_name(path.name + ".log")
        command = [sys.executable, "-m", "actorstore", "serve", "--socket", str(path)]
        if max_line_bytes or importlib.util.find_spec("actorstore.cli.serve") is None:
            command = [sys.executable, "-c", SERVE, str(path), str(max_line_bytes or 64 << 20)]
        if journal is not None:
            command = [sys.executable, "-m", "tests.chaos.saboteur", point, str(number), bug, *command[3:]]
            command += ["--journal", str(journal)]
        if descriptors:
            command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
        with open(self._log, "ab") as log:
            super().__init__(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, umask=umask)
        try:
            wait_until(self.is_up)
            if begins:
                with Raw(path) as raw:
                    raw.hello()
                    raw.send(START).acked(1)
        except BaseException:
            self.kill()
            raise

    def is_up(self) -> bool:
        """Whether it lets one in."""
        assert self.code() is None, f"the store has ended with {self.code()}: {self.log()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            return knocking.connect_ex(str(self.path)) == 0

    def stop(self) -> int:
        """Ask it to end, as a service manager does, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def log(self) -> str:
        """Return what it, and those before it at this path, wrote to standard output and error."""
        return self._log.read_text()
