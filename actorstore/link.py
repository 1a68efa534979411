"""The way to a store in another process: what is handed over is kept until it is acked.

Producers append under a lock and go on; one thread per link connects, sends
what is there in one go, and reads what comes back. Whoever is about to wait for
an answer sends for itself, which spares a change of threads. When the
connection is lost, the thread connects again, and sends from where the store
says it stands.

What is kept is bounded in bytes: a producer that runs ahead waits, and nothing
is dropped. A forked child starts anew, as a producer of its own; what the
parent handed over is the parent's to send.

Reading order: `Link`, its producers' side, its questions, then the thread.
"""

from __future__ import annotations

import logging
import random
import secrets
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from actorstore import address
from actorstore.bell import Bell
from actorstore.endings import PATIENCE_SECONDS, register, send_at_exit
from actorstore.errors import (
    ActorStoreError,
    RefusedError,
    StoreClosedError,
    StoreFailedError,
    StoreUnreachableError,
)
from actorstore.event import Event
from actorstore.handshake import RECEIVED_BYTES, RETRIED, answer_error, refused, shake_hands
from actorstore.ledger import Ledger
from actorstore.protocol import Ack, Answer, Ask, ClientReader, FromStore, Refusal, Reject, Sendable, ask, bye
from actorstore.reply import Receiver

logger = logging.getLogger("actorstore")

KEPT_BYTES: Final = 4 << 20
"""How much may be handed over and not yet acked before producers wait."""

FIRST_DELAY: Final = 0.01
"""Seconds until the first try to connect again; each further one waits twice as long."""

LAST_DELAY: Final = 1.0
"""Seconds between tries, at most; half of it at random, so that a thousand producers do not come at once."""

WELCOME_SECONDS: Final = 5.0
"""How long a store may take to say welcome."""


class Pending(NamedTuple):
    """A question that has no answer yet."""

    line: bytes
    receiver: Receiver


class Link:
    """The way to a store in another process; see the module.

    Args:
        path: The socket.
        kept_bytes: How much may be handed over and not yet acked before producers wait.
    """

    def __init__(self, path: str, kept_bytes: int = KEPT_BYTES) -> None:
        self.path = path
        self.kept_bytes = kept_bytes
        self._begin()
        register(self)

    def _begin(self) -> None:
        """Start as a producer that nobody knows."""
        self._ledger = Ledger(secrets.token_hex(8))
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._bell: Bell | None = None  # wakes the thread
        self._is_asleep = False  # whether it has to be woken for what is appended
        self._wants_to_write = False  # whether the socket takes no more for now
        self._questions: dict[int, Pending] = {}
        self._next_question = 0
        self._flushes: deque[tuple[int, Receiver]] = deque()
        self._waiting: deque[Receiver] = deque()  # for room
        self._trouble: ActorStoreError | None = None  # why there is no connection
        self._closed: StoreClosedError | None = None  # why nothing is taken any more
        self._is_ending = False  # whether the thread ends once all is acked
        self._is_over = False  # whether it ends now

    # Producers.

    def put(self, event: Event) -> bool:
        """Hand one event over.

        Returns:
            Whether so much is kept that the producer ought to wait.

        Raises:
            TypeError: It is not an `Event`.
        """
        if type(event) is not Event:
            raise TypeError(f"handle_event takes an actorstore.Event, not {type(event).__name__}")
        with self._lock:
            if self._closed is not None:
                raise self._closed_error()
            self._ledger.add_event(event)
            full = self.is_full()
            wake, self._is_asleep = self._is_asleep, False
        if wake:
            self._ring()
        elif self._thread is None:
            self._start()
        return full

    def put_lines(self, lines: Sendable) -> bool:
        """Hand lines over.

        Returns:
            Whether so much is kept that the producer ought to wait.
        """
        with self._lock:
            if self._closed is not None:
                raise self._closed_error()
            self._ledger.add_lines(lines)
            full = self.is_full()
            wake, self._is_asleep = self._is_asleep, False
        if wake:
            self._ring()
        elif self._thread is None:
            self._start()
        return full

    def is_full(self) -> bool:
        """Whether so much is kept that producers ought to wait."""
        return self._ledger.size >= self.kept_bytes

    def queue_up(self, receiver: Receiver) -> bool:
        """Wait for room; `False` where there is some."""
        with self._lock:
            if self._closed is not None or not self.is_full():
                return False
            self._waiting.append(receiver)
            return True

    def leave_queue(self, receiver: Receiver) -> None:
        """Go on, whether there is room or not."""
        with self._lock, suppress(ValueError):
            self._waiting.remove(receiver)

    def unacked(self) -> int:
        """Count the lines that were handed over and are not acked."""
        return self._ledger.unacked

    def counts(self) -> tuple[int, int]:
        """Return how many of the lines were accepted, and how many rejected."""
        with self._lock:
            return self._ledger.accepted, self._ledger.rejected

    def when_acked(self, receiver: Receiver) -> None:
        """Have the receiver told once all that was handed over until now is acked."""
        with self._lock:
            self._flushes.append((self._ledger.handed, receiver))
            self._settle_flushes()
            self._send()
        self._see_to_it()

    # Questions.

    def ask(self, question: Ask, receiver: Receiver) -> int:
        """Ask the store, after all that was handed over before; returns the number of the question.

        The receiver gets the parts of the answer, by name, still in JSON.
        """
        with self._lock:
            if self._closed is not None:
                raise self._closed_error()
            self._next_question += 1
            number = self._next_question
            line = ask(msgspec.structs.replace(question, id=number))
            self._questions[number] = Pending(line, receiver)
            if self._socket is not None:
                self._ledger.add_question(line)
                self._send()
        self._see_to_it()
        return number

    def forget(self, number: int) -> None:
        """Have nobody answer a question any more."""
        with self._lock:
            if self._questions.pop(number, None) is not None and self._socket is not None:
                self._ledger.add_question(ask(Ask(number, "forget")))
                self._send()

    # Opening and closing.

    def open(self) -> None:
        """Connect now.

        Raises:
            StoreUnreachableError: Nobody answers there.
            RefusedError: The store does not take this producer.
        """
        if self._connect():
            self._start()
            return
        trouble = self._closed or self._trouble
        self.abandon()
        assert trouble is not None
        raise trouble

    def check_open(self) -> None:
        """Raise where nothing can be handed over or asked."""
        if self._closed is not None:
            raise self._closed_error()

    def trouble(self) -> ActorStoreError | None:
        """Return why there is no connection, where there is none."""
        trouble = self._trouble
        if isinstance(trouble, StoreUnreachableError):
            return StoreUnreachableError(trouble.address, trouble.reason, self.unacked())
        return trouble

    def end(self) -> None:
        """Take nothing more, and send what there is in the background."""
        with self._lock:
            self._closed = self._closed or StoreClosedError()
            self._is_ending = True
            self._let_everybody_in()
        self._see_to_it()

    def join(self, timeout: float | None) -> bool:
        """Wait until all is sent and acked; `False` where it is not.

        Without a timeout that is as long as it takes, but for a store that
        cannot be reached, which is waited for some seconds only.
        """
        until = None if timeout is None else time.monotonic() + timeout
        patience = time.monotonic() + PATIENCE_SECONDS
        thread = self._thread
        while thread is not None and thread.is_alive():
            now = time.monotonic()
            if self._trouble is None:
                patience = now + PATIENCE_SECONDS
            end = patience if until is None else min(until, patience)
            if now >= end:
                return False
            thread.join(min(0.1, end - now))
        return not self.unacked()

    def abandon(self) -> None:
        """Stop at once; what is not acked is lost."""
        with self._lock:
            self._closed = self._closed or StoreClosedError()
            self._is_over = True
            self._settle()
        if self._thread is not None:
            self._ring()

    # What happens under the lock.

    def _send(self) -> None:
        """Send as much as the socket takes."""
        self._wants_to_write = False
        if self._socket is None:
            return
        try:
            while (data := self._ledger.to_send()) is not None:
                self._ledger.has_sent(self._socket.send(data))
        except BlockingIOError:
            self._wants_to_write = True
        except OSError:
            pass  # the thread finds out when it reads

    def _settle_acked(self) -> None:
        """Let those go on who waited for acks."""
        self._settle_flushes()
        while self._waiting and not self.is_full():
            self._waiting.popleft().set(None)

    def _settle_flushes(self) -> None:
        while self._flushes and self._flushes[0][0] <= self._ledger.acked:
            self._flushes.popleft()[1].set(None)

    def _let_everybody_in(self) -> None:
        while self._waiting:
            self._waiting.popleft().set(None)

    def _settle(self) -> None:
        """Let everybody go who waits for what will not come."""
        self._let_everybody_in()
        questions, self._questions = self._questions, {}
        for pending in questions.values():
            pending.receiver.fail(self._closed_error())
        while self._flushes:
            self._flushes.popleft()[1].fail(self._closed_error())

    def _closed_error(self) -> StoreClosedError:
        closed = self._closed
        assert closed is not None
        return type(closed)(*closed.args)  # one of its own for everybody who raises it

    def _fail(self, error: StoreClosedError) -> None:
        with self._lock:
            self._closed = error
            self._is_over = True
            self._settle()

    # The thread.

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._is_over:
                return
            self._bell = Bell()
            self._thread = threading.Thread(target=self._run, name="StoreLink", daemon=True)
            self._thread.start()
        send_at_exit(self)

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.ring()

    def _see_to_it(self) -> None:
        """Have the thread look, where there is something for it to do."""
        if self._thread is None:
            self._start()
        elif self._wants_to_write or self._is_ending or self._socket is None:
            self._ring()

    def _run(self) -> None:
        try:
            self._work()
        except Exception:
            logger.exception("the way to the store at %s is closed over a bug in actorstore", self.path)
            self._fail(StoreFailedError())
        self._leave()

    def _work(self) -> None:
        delay = FIRST_DELAY
        while not self._is_done():
            if self._socket is None:
                if self._connect():
                    delay = FIRST_DELAY
                elif not self._is_over:
                    self._pause(delay * (0.5 + random.random() / 2))
                    delay = min(2 * delay, LAST_DELAY)
            else:
                self._exchange(self._socket)

    def _is_done(self) -> bool:
        with self._lock:
            return self._is_over or (self._is_ending and not self._ledger.unacked)

    def _leave(self) -> None:
        """Say goodbye, so that the store may forget this producer."""
        with self._lock:
            connection, self._socket = self._socket, None
            self._is_over = True
            self._settle()
        if connection is not None:
            if not self._ledger.unacked and not isinstance(self._closed, RefusedError):
                with suppress(OSError):
                    connection.settimeout(1.0)
                    connection.sendall(bye())
            connection.close()
        with self._lock:
            bell, self._bell = self._bell, None
            if bell is not None:
                bell.close()

    def _pause(self, seconds: float) -> None:
        """Wait, but for the end."""
        end = time.monotonic() + seconds
        assert self._bell is not None
        while not self._is_over and (left := end - time.monotonic()) > 0:
            self._bell.wait(left)

    def _connect(self) -> bool:
        """Connect, say hello, and send from where the store says it stands."""
        connection: socket.socket | None = None
        try:
            connection = address.connect(self.path, WELCOME_SECONDS)
            reader = ClientReader()
            welcome, messages = shake_hands(connection, reader, self._ledger.producer, self.path)
            with self._lock:
                self._ledger.resume(welcome)
                self._settle_acked()
                for pending in self._questions.values():
                    self._ledger.add_question(pending.line)
                connection.setblocking(False)
                self._socket, self._reader, self._trouble = connection, reader, None
                self._send()
            self._hear(messages)
        except StoreClosedError as error:
            self._fail(error)
        except ActorStoreError as error:
            self._trouble = error
        else:
            return True
        if connection is not None:
            connection.close()
        return False

    def _disconnect(self, connection: socket.socket, reason: str) -> None:
        with self._lock:
            self._socket = None
            self._trouble = StoreUnreachableError(self.path, reason)
        connection.close()

    def _exchange(self, connection: socket.socket) -> None:
        """Send and read until something has happened."""
        bell = self._bell
        assert bell is not None
        with self._lock:
            self._send()
            self._is_asleep = not self._wants_to_write
            writes = self._wants_to_write
            if self._is_over or (self._is_ending and not self._ledger.unacked):
                return
        poll = select.poll()
        poll.register(connection, select.POLLIN | (select.POLLOUT if writes else 0))
        poll.register(bell, select.POLLIN)
        ready = dict(poll.poll())
        self._is_asleep = False
        if bell.fileno() in ready:
            bell.hear()
        if ready.get(connection.fileno(), 0) & ~select.POLLOUT:
            self._receive(connection)

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(RECEIVED_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._disconnect(connection, error.strerror or str(error))
            return
        if not data:
            self._disconnect(connection, "it has closed the connection")
            return
        try:
            self._hear(self._reader.feed(data))
        except ValueError as error:
            self._fail(RefusedError("not_this_protocol", f"the other end speaks something else: {error}"))
        except StoreClosedError as error:
            self._fail(error)

    def _hear(self, messages: list[FromStore]) -> None:
        """Take note of what the store says.

        Raises:
            RefusedError: It takes nothing more from this producer.
        """
        with self._lock:
            for message in messages:
                match message:
                    case Ack(lines):
                        self._ledger.hear_ack(lines)
                        self._settle_acked()
                    case Reject():
                        self._ledger.rejected += 1
                    case Answer(number, parts):
                        self._hear_answer(number, parts)
                    case Refusal(code) if code not in RETRIED:
                        raise refused(message)

    def _hear_answer(self, number: int, parts: dict[str, msgspec.Raw]) -> None:
        pending = self._questions.get(number)
        if pending is None:
            return
        if "error" not in parts:
            del self._questions[number]
            pending.receiver.set(parts)
            return
        refusal = msgspec.json.decode(parts["error"], type=Refusal)
        if refusal.code != "closed":  # that is asked again, of whoever listens next
            del self._questions[number]
            pending.receiver.fail(answer_error(refusal))

    # Children of this process.

    def leave_behind(self) -> None:
        """In a forked child: let go of the parent's connection, and start anew."""
        connection, bell = self._socket, self._bell
        was_closed = self._closed
        self._begin()
        self._closed = was_closed
        self._is_over = was_closed is not None
        for descriptor in (connection, bell):
            if descriptor is not None:
                descriptor.close()
