"""NATS JetStream as a durable log alone: a `nats-server` of its own on a loopback port, one stream in files.

Measured: NDJSON bytes, in chunks or event by event, each one a message, to the ack of the last of them. They
are published asynchronously: many messages are on their way, and each is acked by its place in the stream.
The client writes the text protocol itself, whole batches in one `send`, and only counts the acks, because a
client that makes an object of each message takes several times as long
(https://docs.nats.io/reference/reference-protocols/nats-protocol).

Not equivalent, each in its favour: nothing is decoded, checked or applied, so there is no state to ask; and
an ack of this version means that the message was given to the system. The server syncs its files every two
minutes (`SyncInterval` of its file store), so a loss of power loses what was acked since.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable
from time import monotonic, sleep

import msgspec

EVENTS_IN_FLIGHT = 4096
"""Messages on their way where each is an event."""

CHUNKS_IN_FLIGHT = 64
"""Messages on their way where each is a chunk."""

MAX_BYTES = 8 << 20
"""Longest message that the server takes: a graph may be longer than its usual 1 MiB."""

START_SECONDS = 10.0


def unavailable() -> str | None:
    """Return in a few words why NATS cannot be run here; `None` where it can."""
    return None if shutil.which("nats-server") else "nats-server is not installed"


class NatsLog:
    """A server, a stream, and a connection that publishes."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="nats-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = os.path.join(self._folder, "config")
        with open(config, "w") as file:
            file.write(f"port: {port}\nhost: 127.0.0.1\nmax_payload: {MAX_BYTES}\n")
            file.write(f"jetstream {{ store_dir: {self._folder} }}\n")
        command = ["nats-server", "-c", config]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._socket = self._connected(port)
            self._unread = b""
            self._socket.sendall(
                b'CONNECT {"verbose":false,"pedantic":false,"headers":false}\r\nSUB R.* 1\r\nPING\r\n'
            )
            self._read_until(b"PONG\r\n")
            self._acks = 0
            stream = {"name": "events", "subjects": ["e"], "storage": "file", "retention": "limits"}
            request = msgspec.json.encode(stream)
            self._socket.sendall(
                b"PUB $JS.API.STREAM.CREATE.events R.0 %d\r\n%s\r\n" % (len(request), request)
            )
            answer = self._read_until(b"}\r\n")
            if b'"error"' in answer:
                raise RuntimeError(f"no stream: {answer.decode()}")
            self._unread = b""
        except BaseException:
            self.close()
            raise

    def publish(self, messages: Iterable[bytes], in_flight: int) -> int:
        """Publish messages, and return how many, once all of them are acked."""
        waiting: list[bytes] = []
        sent = acked = 0
        for message in messages:
            waiting.append(b"PUB e R.1 %d\r\n%s\r\n" % (len(message), message))
            if len(waiting) >= in_flight // 2:
                self._socket.sendall(b"".join(waiting))
                sent += len(waiting)
                waiting = []
                while sent - acked > in_flight // 2:
                    acked += self._hear()
        self._socket.sendall(b"".join(waiting))
        sent += len(waiting)
        while acked < sent:
            acked += self._hear()
        return sent

    def _hear(self) -> int:
        """Read some acks, and count them; one that was cut in two counts with its end."""
        data = self._unread + self._socket.recv(1 << 16)
        if b"PING\r\n" in data:
            self._socket.sendall(b"PONG\r\n")
        if b'"error"' in data:
            raise RuntimeError(f"not stored: {data[-300:].decode()}")
        self._unread = data[data.rfind(b"\r\n") + 2 :]
        return data.count(b'"seq":', 0, len(data) - len(self._unread))

    def _read_until(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            data += self._socket.recv(1 << 16)
        return data

    def _connected(self, port: int) -> socket.socket:
        late = monotonic() + START_SECONDS
        while True:
            try:
                made = socket.create_connection(("127.0.0.1", port))
            except ConnectionError:
                if monotonic() > late or self._server.poll() is not None:
                    raise
                sleep(0.005)  # there is nothing to wait on before it listens
            else:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return made

    def close(self) -> None:
        """End the server."""
        if hasattr(self, "_socket"):
            self._socket.close()
        self._server.kill()
        self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
