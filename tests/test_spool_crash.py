"""Spools of producers that die at each of their writes: no line is lost, none counts twice, none is refused.

Once with a ledger and a store of a few lines in this process, thousands of
times; and once with processes that kill themselves, and a real store.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from actorstore import Event, RemoteStore, Store
from actorstore import spool as spooling
from actorstore.ledger import Ledger
from actorstore.protocol import Sendable, Welcome
from actorstore.spool import Spool
from tests.heirs import HOWS, DiedError, breeder, doomed
from tests.raw import folder
from tests.threads import SECONDS

# In this process.


class Counting:
    """A store of a few lines: it has got these numbers, in this order."""

    def __init__(self, id: str = "s") -> None:
        self.id = id
        self.got: list[int] = []

    def feed(self, data: bytes) -> int:
        """Take lines, and return how many there are now."""
        self.got += [json.loads(line)["n"] for line in data.splitlines()]
        return len(self.got)


class Life:
    """A producer with a spool, from its start to its death or its end; no sockets, no threads.

    Args:
        path: Its spool.
        drawn: Decides what it does.
        numbers: Where it gets its lines from.
        told: Numbers that it was told are handed over.
    """

    def __init__(self, path: Path, drawn: random.Random, numbers: Iterator[int], told: list[int]) -> None:
        self._path, self._drawn, self._numbers, self._told = path, drawn, numbers, told
        self._spool: Spool | None = None

    def live(self, store: Counting, steps: int) -> None:
        """Hand lines over, send them, and hear of acks."""
        spool = self._spool = Spool(self._path)
        ledger = Ledger(spool.producer)
        ledger.inherit(spool.standing, spool.left)
        for _ in range(self._drawn.choice((0, 1, 3))):
            self._add(spool)  # before the store answers
        ledger.resume(Welcome(store.id, len(store.got), 0))
        spool.note(ledger.acked, ledger.standing)
        for _ in range(steps):
            if self._drawn.random() < 0.6:
                self._add(spool)
            if self._drawn.random() < 0.5:
                for lines in spool.take():
                    ledger.add_lines(lines)
                self._send(ledger, store)
                ledger.hear_ack(self._drawn.choice((len(store.got), ledger.standing.lines)))
                spool.note(ledger.acked, ledger.standing)

    def _add(self, spool: Spool) -> None:
        mine = [next(self._numbers) for _ in range(self._drawn.choice((1, 1, 2, 5)))]
        lines = [b'{"n":%d,"x":"%s"}\n' % (number, b"x" * self._drawn.choice((0, 50))) for number in mine]
        with spool.lock:
            spool.add([Sendable(line, 1, 0) for line in lines])
        self._told += mine

    def _send(self, ledger: Ledger, store: Counting) -> None:
        while (data := ledger.to_send()) is not None:
            store.feed(bytes(data))
            ledger.has_sent(len(data))

    def end(self) -> None:
        """Let the system close what is open."""
        if self._spool is not None:
            self._spool.leave_behind()
            self._spool._lock_file.leave_behind()


def lives(path: Path, seed: int, dooms: list[tuple[int, str]], steps: int) -> bool:
    """Have producers die one after the other, and look what the store has got; `False` where none did."""
    drawn, numbers, told, store = random.Random(seed), itertools.count(), list[int](), Counting()
    died = False
    for number, how in [*dooms, (0, "")]:
        life = Life(path, drawn, numbers, told)
        with doomed(number, how) as doom, suppress(DiedError):
            life.live(store, steps if number else 0)
        life.end()
        died = died or doom.is_over
    life = Life(path, drawn, numbers, told)
    life.live(store, 20)
    spool = life._spool
    assert spool is not None
    ledger = Ledger(spool.producer)
    for lines in spool.take():
        ledger.add_lines(lines)
    life._send(ledger, store)
    spool.close(is_done=True)
    assert store.got == sorted(set(store.got)), (seed, dooms)
    assert set(told) <= set(store.got), (seed, dooms)
    return died


@pytest.mark.parametrize("rewrite_bytes", [40, 400, spooling.REWRITE_BYTES])
@pytest.mark.parametrize("how", HOWS)
def test_a_producer_may_die_at_each_of_its_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, rewrite_bytes: int
) -> None:
    monkeypatch.setattr(spooling, "REWRITE_BYTES", rewrite_bytes)
    for seed in range(2):
        for number in itertools.count(1):
            if not lives(tmp_path / "p", seed, [(number, how)], 25):
                break
        assert number > 20


@pytest.mark.parametrize("how", HOWS)
def test_its_successor_may_die_at_each_of_its_writes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(spooling, "REWRITE_BYTES", 100)
    for number, then in itertools.product(range(1, 25), range(1, 8)):
        lives(tmp_path / "p", 7, [(number, how), (then, how), (then, "before")], 12)


# Processes.


@pytest.mark.parametrize(("together", "rewrite_bytes"), [(1, spooling.REWRITE_BYTES), (4, 60)])
def test_processes_that_kill_themselves_at_each_write_lose_and_double_nothing(
    together: int, rewrite_bytes: int
) -> None:
    names = itertools.count()
    with folder() as place, Store(listen=place / "s") as store, breeder() as run:
        store.handle_event(Event.orch_started())
        for how in HOWS:
            for number in itertools.count(1):
                code = run(place, "die", next(names), number, how, together, rewrite_bytes)
                assert code in (0, -signal.SIGKILL), (number, how)
                if code == 0:
                    break
            assert number > 8
        with RemoteStore(place / "s", spool=place / "p") as last:
            last.flush(SECONDS)
        ids = [tuple(map(int, unit.id.split("."))) for unit in store.snapshot().units]
        told = [tuple(map(int, line.split("."))) for line in (place / "told").read_text().split()]
        assert ids == sorted(ids)
        assert not set(told) - set(ids)
        assert store.stats().version == len(ids) + 1
        assert store.stats().rejected == 0
