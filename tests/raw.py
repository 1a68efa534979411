"""What tests of sockets share: a client and a store by hand, which know nothing but the protocol."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from actorstore import RemoteStore, Store, StoreClosedError
from tests.threads import SECONDS, wait_until

Message = dict[str, Any]

THREADS: Final = ("StoreLink", "StoreServer")
"""How the threads of clients and servers are called."""


@contextmanager
def nothing_left() -> Iterator[None]:
    """Check that a test ends the threads, and closes the sockets, that it began with."""
    threads, sockets = _threads(), _sockets()
    yield
    end = time.monotonic() + SECONDS / 3
    while time.monotonic() < end and (_threads() - threads or len(_sockets()) > len(sockets)):
        time.sleep(0.001)  # the other end of a connection is closed a moment later
    left = sorted(thread.name for thread in _threads() - threads)
    assert not left, f"the test left threads alive: {', '.join(left)}"
    assert len(_sockets()) <= len(sockets), "the test left sockets open"


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(THREADS)}


def _sockets() -> set[str]:
    """The sockets of this process, where the system tells."""
    found = set()
    for entry in Path("/proc/self/fd").glob("*"):
        try:
            target = os.readlink(entry)
        except OSError:
            continue  # it was that of the listing itself
        if target.startswith("socket:"):
            found.add(target)
    return found


@contextmanager
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with TemporaryDirectory(prefix="store-") as made:
        yield Path(made)


class Raw:
    """A connection to a store, written to and read from by hand.

    Args:
        end: The path of a socket to connect to, or an end of a connection.
    """

    def __init__(self, end: str | Path | socket.socket) -> None:
        if isinstance(end, socket.socket):
            self.socket = end
        else:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(SECONDS)
        if self.socket is not end:
            self.socket.connect(str(end))
        self._tail = b""
        self._lines: deque[bytes] = deque()

    def send(self, data: bytes) -> Raw:
        """Write bytes."""
        self.socket.sendall(data)
        return self

    def say(self, **control: object) -> Raw:
        """Write a control line."""
        return self.send(json.dumps(control).encode() + b"\n")

    def hello(self, producer: str | None = None) -> Mapping[str, Any]:
        """Say hello, and return what the welcome says."""
        self.say(hello={"protocol": 1} | ({"producer": producer} if producer else {}))
        welcome: Mapping[str, Any] = self.read()["welcome"]
        return welcome

    def ask(self, id: int, what: str, **more: object) -> Raw:
        """Ask a question, and do not wait for the answer."""
        return self.say(ask={"id": id, "what": what, **more})

    def asked(self, id: int, what: str, **more: object) -> Mapping[str, Any]:
        """Ask a question, and return the answer."""
        return self.ask(id, what, **more).answer(id)

    def answer(self, id: int) -> Mapping[str, Any]:
        """Read until the answer to a question is there."""
        while True:
            answer: Mapping[str, Any] = self.read().get("answer", {})
            if answer.get("id") == id:
                return answer

    def acked(self, lines: int) -> list[Message]:
        """Read until so many lines are acked, and return all that came."""
        messages: list[Message] = []
        while not messages or messages[-1].get("ack", {}).get("lines", -1) < lines:
            messages.append(self.read())
        return messages

    def read(self) -> Message:
        """Read one message.

        Raises:
            EOFError: There are no more.
        """
        while not self._lines:
            data = self.socket.recv(1 << 18)
            if not data:
                raise EOFError
            *lines, self._tail = (self._tail + data).split(b"\n")
            self._lines += lines
        line = self._lines.popleft()
        message: Message = json.loads(line)
        return message

    def rest(self) -> list[Message]:
        """Read all that comes until the store closes the connection."""
        messages = []
        try:
            while True:
                messages.append(self.read())
        except EOFError:
            return messages

    def hears_nothing(self) -> bool:
        """Whether nothing lies here to be read."""
        self.socket.setblocking(False)
        try:
            return not self._lines and not self._tail and not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(SECONDS)

    def fill(self, data: bytes) -> int:
        """Write again and again until the store reads no more, and return how many bytes it took.

        It has stopped for good where nothing more fits for a while.
        """
        self.socket.settimeout(0.2)
        sent = 0
        try:
            while True:
                sent += self.socket.send(data[sent % len(data) :])
        except TimeoutError:
            return sent
        finally:
            self.socket.settimeout(SECONDS)

    def half_close(self) -> Raw:
        """Say nothing more, and go on listening."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ByHand:
    """A store that says what it is told to, and counts nothing.

    Args:
        path: Where it listens.
    """

    def __init__(self, path: str | Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.settimeout(SECONDS)
        self._listener.bind(str(path))
        self._listener.listen()
        self._made: list[Raw] = []

    def accept(self) -> Raw:
        """Let the next one in."""
        self._made.append(Raw(self._listener.accept()[0]))
        return self._made[-1]

    def welcome(self, lines: int = 0, store: str = "s", **more: object) -> tuple[Raw, str]:
        """Let the next one in, say welcome, and return the connection and the producer's id."""
        connection = self.accept()
        producer: str = connection.read()["hello"]["producer"]
        connection.say(welcome={"store": store, "lines": lines, "version": 0, **more})
        return connection, producer

    def hears_nobody(self) -> bool:
        """Whether nothing waits to be let in."""
        self._listener.setblocking(False)
        try:
            self._made.append(Raw(self._listener.accept()[0]))
        except BlockingIOError:
            return True
        finally:
            self._listener.settimeout(SECONDS)
        return False

    def close(self) -> None:
        """Close all connections, and let nobody in any more."""
        for connection in self._made:
            connection.close()
        self._listener.close()

    def __enter__(self) -> ByHand:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# The inside of a store.


def lying(store: Store) -> int:
    """How many things were handed over that the actor has not taken."""
    return len(store._intake.items)


def has_failed(store: Store) -> bool:
    """Whether the actor has died."""
    return bool(store._intake.closed)


# The inside of a client.


def waiting(remote: RemoteStore) -> int:
    """How many producers wait for room."""
    return len(remote._link.handover._waiting)


def lock(remote: RemoteStore) -> Any:
    """The lock that is held for a moment whenever something is handed over or taken."""
    return remote._link.handover._lock


def unacked(remote: RemoteStore) -> int:
    """How many lines were handed over and are not acked."""
    return remote._link.unacked()


def close_before(handover: Any, number: int) -> None:
    """Have nothing more taken before the n-th thing is handed over that is not an event."""
    real, numbers = handover.append, itertools.count(1)

    def append(item: object, size: int, *, is_event: bool) -> bool:
        if next(numbers) == number:
            handover.refuse(StoreClosedError)
        done: bool = real(item, size, is_event=is_event)
        return done

    handover.append = append


def counts(remote: RemoteStore) -> tuple[int, int]:
    """How many lines were accepted, and how many rejected, as far as is known."""
    return (remote._link._ledger.accepted, remote._link._ledger.rejected)


def is_away(remote: RemoteStore) -> bool:
    """Whether it has tried to connect, in vain."""
    return remote._link.trouble() is not None


def abandon(remote: RemoteStore) -> None:
    """Stop at once, and lose what is not acked, as a process does that is killed."""
    remote._link.abandon()


def why_refused(remote: RemoteStore) -> StoreClosedError:
    """Wait until nothing is taken any more, and return the error."""
    raised: list[StoreClosedError] = []

    def is_refused() -> bool:
        try:
            remote._link.check_open()
        except StoreClosedError as error:
            raised.append(error)
        return bool(raised)

    wait_until(is_refused)
    return raised[0]
