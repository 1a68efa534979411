"""A bad way between clients and their store: it cuts, loses, delays, and delivers late and twice what it may.

Each connection draws what happens to it, and after how many bytes:

    cut      both ways end at once, in the middle of whatever was on its way
    deaf     the store takes everything, and its acks are lost, for a moment, until the connection is cut
    late     the client's end is cut, and what it had written arrives some time after, when the client has
             long come back over another connection
    echo     acks are delivered twice, and old ones once more after newer ones, until it is cut
"""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.threads import SECONDS

FATES: Final = ("cut", "deaf", "late", "echo")
CUT_BYTES: Final = 12_000
"""After at most so many bytes something happens to a connection."""

ACK: Final = re.compile(rb'\{"ack":\{"lines":\d+\}\}')

LATE_SECONDS: Final = 0.03
"""How late bytes arrive at most."""


class Proxy:
    """Listens at one socket, and passes on to another, badly.

    Args:
        path: Where clients connect.
        store: Where the store listens.
        seed: Of what is drawn.
        fates: What may happen.
    """

    def __init__(self, path: Path, store: Path, seed: int, fates: tuple[str, ...] = FATES) -> None:
        self.path = path
        self.happened: Counter[str] = Counter()
        self._store = store
        self._drawn = random.Random(seed)
        self._fates = fates
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._start(self._accept)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="proxy", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            store = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                store.connect(str(self._store))
            except OSError:
                client.close()
                store.close()
                continue
            self._open |= {client, store}
            fate = self._drawn.choice(self._fates)
            self.happened[fate] += 1
            way = _Way(client, store, fate, random.Random(self._drawn.random()))
            self._start(way.to_store)
            self._start(way.to_client)

    def close(self) -> None:
        """Cut everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(SECONDS)
        for end in self._open:
            _cut(end)
        for thread in self._threads:
            thread.join(SECONDS)
        for end in self._open:
            end.close()
        self.path.unlink()


class _Way:
    """One connection through a proxy."""

    def __init__(self, client: socket.socket, store: socket.socket, fate: str, drawn: random.Random) -> None:
        self._client = client
        self._store = store
        self._fate = fate
        self._drawn = drawn
        # Bytes until something happens. A hello is never late: a socket keeps the order of its connections.
        self._there = drawn.randint(200 if fate == "late" else 1, CUT_BYTES)
        self._back = drawn.randint(1, CUT_BYTES // 20)  # the same, for what the store says

    def to_store(self) -> None:
        """Pass on what the client says."""
        passed = 0
        for data in self._read(self._client):
            left = self._there - passed
            passed += len(data)
            if left < len(data) and self._fate != "late":
                self._write(self._store, data[:left])
                break
            if left < len(data):
                _cut(self._client)
                rest = data + b"".join(self._read(self._client))
                time.sleep(LATE_SECONDS * self._drawn.random())  # so that the client has come back meanwhile
                for start in range(0, len(rest), 700):
                    self._write(self._store, rest[start : start + 700])
                break
            self._write(self._store, data)
        _cut(self._client)
        _cut(self._store)

    def to_client(self) -> None:
        """Pass on what the store says."""
        passed = 0
        acks = b""  # whole lines that were passed on last
        for data in self._read(self._store):
            left = self._back - passed
            passed += len(data)
            if left < len(data) and self._fate == "deaf":
                time.sleep(LATE_SECONDS * self._drawn.random())  # that much is lost
                break
            if left < len(data) and self._fate == "cut":
                self._write(self._client, data[:left])
                break
            self._write(self._client, data)
            if self._fate == "echo" and data.endswith(b"\n"):
                told = b"".join([line + b"\n" for line in data.split(b"\n") if ACK.fullmatch(line)])
                self._write(self._client, acks + told)
                acks = told
        if self._fate != "late":  # there, what was said last still has to arrive
            _cut(self._client)
            _cut(self._store)

    def _read(self, end: socket.socket) -> Iterator[bytes]:
        while True:
            try:
                data = end.recv(self._drawn.randint(1, 3000))
            except OSError:
                return
            if not data:
                return
            if self._drawn.random() < 0.05:
                time.sleep(0.003 * self._drawn.random())  # the delay that this makes
            yield data

    def _write(self, end: socket.socket, data: bytes) -> None:
        with suppress(OSError):
            end.sendall(data)


def _cut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def between(path: Path, store: Path, seed: int, fates: tuple[str, ...] = FATES) -> Iterator[Proxy]:
    """Put a proxy between clients and a store while the block runs."""
    proxy = Proxy(path, store, seed, fates)
    try:
        yield proxy
    finally:
        proxy.close()
