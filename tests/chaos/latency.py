"""How long an event takes to its ack while others misbehave: judged in `soak`, never in a test.

Quiet rounds and bad ones take turns at one store, and the best of each are
compared, so that what else the machine does counts for little.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from tests.chaos.checker import Verdict
from tests.chaos.daemon import Daemon
from tests.chaos.greedy import REFUSED_LINES, begin_large_run, deaf_reader, garbage, gone
from tests.chaos.process import Process
from tests.raw import Raw, folder
from tests.threads import wait_until

ROUNDS: Final = 8
EVENTS: Final = 3000
"""How many events a round has, one after the other."""

READERS: Final = 50

RATIO: Final = 1.2
"""How much longer others may wait at the 99th percentile while readers are frozen."""

P99_SECONDS: Final = 0.003
"""How long one event, alone, may take to its ack at the 99th percentile."""

BESIDE_SNAPSHOTS_P99_SECONDS: Final = 0.03
"""How long it may take beside a reader of whole snapshots of a large run."""

LARGE_UNITS: Final = 150_000
"""How many units that run has."""

GREEDY_P99_SECONDS: Final = 0.01
"""How long it may take beside peers that want more than their share."""

MOST_BYTES: Final = 128 << 20
"""How much memory bad company may cost a store."""

FOLLOW: Final = """
import sys, threading
from actorstore import RemoteStore
def follow():
    for _ in RemoteStore(sys.argv[1]).subscribe(""):
        began.release()
began = threading.Semaphore(0)
for _ in range(int(sys.argv[2])):
    threading.Thread(target=follow).start()
for _ in range(int(sys.argv[2])):
    began.acquire()
print("following", flush=True)
"""
"""Many readers in one process."""


READ_SNAPSHOTS: Final = """
import socket, sys
reader = socket.socket(socket.AF_UNIX)
reader.connect(sys.argv[1])
reader.sendall(b'{"hello":{"protocol":1}}\\n')
number = 0
while True:
    lines = 0
    while not lines:
        lines = reader.recv(1 << 20).count(b"\\n")
    if number == 1:
        print("reading", flush=True)
    number += 1
    reader.sendall(b'{"ask":{"id":%d,"what":"snapshot","run":"large"}}\\n' % number)
"""
"""A reader of whole snapshots, one after the other."""


class Times(NamedTuple):
    """What the events of one round took, in seconds."""

    p50: float
    p99: float


def measure(path: Path) -> Times:
    """Send events one after the other, each once the one before is acked."""
    with Raw(path) as raw:
        raw.hello()
        took = []
        for number in range(1, EVENTS + 1):
            began = time.perf_counter()
            raw.send(b'{"type":"unit.queued","unit":"unit-7"}\n')
            raw.acked(number)
            took.append(time.perf_counter() - began)
    took.sort()
    return Times(took[len(took) // 2], took[len(took) * 99 // 100])


@contextmanager
def frozen_readers(daemon: Daemon) -> Iterator[None]:
    """Fifty readers that follow the run, and are frozen."""
    command = [sys.executable, "-c", FOLLOW, str(daemon.path), str(READERS)]
    with Process(command, stdout=-1) as readers:
        readers.stdout.readline()
        readers.freeze()
        yield


@contextmanager
def bad_peers(daemon: Daemon) -> Iterator[None]:
    """Peers that are silent, stopped half-way, do not read their acks or answers, or ask for all there is."""
    with ExitStack() as stack:
        for said in (b"", b'{"type":', b'{"hello":', b'{"hello":{"protocol":1}}\n', b"\0" * 1000) * 20:
            stack.enter_context(Raw(daemon.path)).send(said)
        for said in (b"x\n" * 1000, b'{"ask":{"id":1,"what":"snapshot"}}\n' * 50):
            for _ in range(3):
                deaf = stack.enter_context(Raw(daemon.path))
                deaf.say(hello={"protocol": 1})
                deaf.fill(said)
        for _ in range(20):
            with suppress(OSError):
                stack.enter_context(Raw(daemon.path)).half_close().socket.shutdown(socket.SHUT_RD)
        yield


@contextmanager
def snapshot_reader(daemon: Daemon) -> Iterator[None]:
    """One that reads whole snapshots of a large run, as fast as it gets them."""
    with Process([sys.executable, "-c", READ_SNAPSHOTS, str(daemon.path)], stdout=-1) as reader:
        reader.stdout.readline()
        yield


def start_run_with_edges(daemon: Daemon) -> None:
    """Start a large run with edges; it takes one line."""
    nodes = [{"id": f"unit-{number}"} for number in range(LARGE_UNITS)]
    edges = [{"from": f"unit-{number}", "to": f"unit-{number // 10}"} for number in range(1, LARGE_UNITS)]
    with Raw(daemon.path) as raw:
        raw.hello()
        raw.say(type="orch.started", run="large", payload={"graph": {"nodes": nodes, "edges": edges}}).acked(
            1
        )
        raw.asked(1, "snapshot", run="large")


class Company(NamedTuple):
    """Peers of a producer, and what they may cost it."""

    join: Callable[[Daemon], AbstractContextManager[None]]
    """Has them there for as long as its block lasts."""
    most: float
    """How many seconds an event may take to its ack beside them, at the 99th percentile."""
    prepare: Callable[[Daemon], None] | None = None
    """Makes the large run that they read."""
    rounds: int = ROUNDS
    """How often it is measured."""


def compare(company: Company) -> tuple[list[Times], list[Times], int]:
    """Measure with and without, in turns; returns both, and the memory that it has cost."""
    with folder() as place, Daemon(place / "s", begins=False) as daemon:
        if company.prepare is not None:
            company.prepare(daemon)
        graph = {"nodes": [{"id": f"unit-{number}", "level": 0, "tasks": 1} for number in range(1000)]}
        with Raw(daemon.path) as raw:
            raw.hello()
            raw.say(type="orch.started", payload={"graph": graph}).acked(1)
        measure(daemon.path)
        memory = daemon.resident()
        alone, beside = [], []
        for _ in range(company.rounds):
            alone.append(measure(daemon.path))
            with company.join(daemon):
                beside.append(measure(daemon.path))
                memory_beside = daemon.resident()
            wait_until(lambda: daemon.descriptors() < READERS)
        return alone, beside, max(memory_beside, daemon.resident()) - memory


def greedy(join: Callable[[Daemon], AbstractContextManager[None]]) -> Company:
    """Return peers that would take all they can get, beside a run that takes long to read."""
    return Company(join, GREEDY_P99_SECONDS, begin_large_run, rounds=ROUNDS // 4)


COMPANIES: Final[Mapping[str, Company]] = {
    "frozen readers": Company(frozen_readers, P99_SECONDS),
    "bad peers": Company(bad_peers, P99_SECONDS),
    "a reader of whole snapshots": Company(
        snapshot_reader, BESIDE_SNAPSHOTS_P99_SECONDS, start_run_with_edges
    ),
    **{f"a producer of {said!r}": greedy(partial(garbage, said=said)) for said in REFUSED_LINES},
    "a reader that never reads": greedy(deaf_reader),
    "readers that are gone": greedy(gone),
}
"""Who they are."""


def judge_times() -> Verdict:
    """Judge what may be judged only where nothing else is measured."""
    verdict = Verdict()
    for name, company in COMPANIES.items():
        alone, beside, memory = compare(company)
        best, worst = min(times.p99 for times in alone), min(times.p99 for times in beside)
        print(
            f"an event to its ack, p50 / p99 in ms: alone {1e3 * min(alone).p50:.2f} / {1e3 * best:.2f}, "
            f"beside {name} {1e3 * min(beside).p50:.2f} / {1e3 * worst:.2f}; memory {memory / 1e6:+.1f} MB",
            flush=True,
        )
        if name == "frozen readers":
            verdict.check(
                "F10", worst <= RATIO * best, f"p99 is {worst / best:.2f} times as long beside {name}"
            )
        verdict.check("G8", worst <= company.most, f"p99 is {1e3 * worst:.1f} ms beside {name}")
        verdict.check("G9", memory < MOST_BYTES, f"{name} cost {memory / 1e6:.0f} MB")
    return verdict
