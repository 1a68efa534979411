"""Peers that want more than their share: of lines that are looked at, of answers, of the past, of memory.

Each is a block in which they are at it; `latency` measures what others wait for meanwhile, and a scenario
plays them beside honest producers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.chaos.daemon import Daemon
from tests.chaos.process import Process
from tests.raw import Raw

LARGE: Final = "large"
"""The run that readers ask for."""

FLOOD: Final = """
import socket, sys
with socket.socket(socket.AF_UNIX) as made:
    made.connect(sys.argv[1])
    said = sys.argv[2].encode().decode("unicode_escape").encode("latin-1")
    said *= 65536 // len(said)
    print("writing", flush=True)
    while True:
        made.sendall(said)
"""
"""A process that writes the same lines again and again, as fast as it can."""

REFUSED_LINES: Final = (r"x\n", r"garbage\n", r"\n", r'{"type":1}\n', r'{"type":"a"\n')
"""What producers of garbage write, one of them each."""


def begin_large_run(daemon: Daemon, units: int = 100_000) -> None:
    """Start a run whose answers are large."""
    nodes = [{"id": f"unit-{number}", "level": 0, "tasks": 1} for number in range(units)]
    with Raw(daemon.path) as raw:
        raw.hello()
        raw.say(type="orch.started", run=LARGE, payload={"graph": {"nodes": nodes}}).acked(1)


@contextmanager
def garbage(daemon: Daemon, said: str) -> Iterator[None]:
    """A producer writes lines that are refused, or say nothing, as fast as it can."""
    command = [sys.executable, "-c", FLOOD, str(daemon.path), said]
    with Process(command, stdout=-1) as producer:
        producer.stdout.readline()
        yield


@contextmanager
def deaf_reader(daemon: Daemon, questions: int = 400) -> Iterator[None]:
    """A reader asks for all of a large run again and again, and reads no answer."""
    with Raw(daemon.path) as reader:
        reader.hello()
        _ask(reader, questions, what="update", run=LARGE)
        yield


@contextmanager
def gone(daemon: Daemon, connections: int = 20, questions: int = 1000) -> Iterator[None]:
    """Readers ask for the past, and for large answers, and leave."""
    for number in range(connections):
        with Raw(daemon.path) as reader:
            reader.hello()
            if number % 2:
                _ask(reader, questions, what="snapshot", at=1)
            else:
                _ask(reader, questions, what="update", run=LARGE)
    yield


@contextmanager
def halves(daemon: Daemon, connections: int = 200) -> Iterator[None]:
    """Connections keep long lines to themselves, but for their ends."""
    with ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(Raw(daemon.path)).send(b'{"type":"' + b"z" * 1_000_000)
        yield


def _ask(reader: Raw, questions: int, **question: object) -> None:
    lines = [json.dumps({"ask": {"id": number, **question}}) for number in range(questions)]
    reader.send("".join([f"{line}\n" for line in lines]).encode())
