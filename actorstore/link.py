"""The way to a store in another process: what is handed over is kept until it is acked.

Producers hand over and go on, as they do to an actor (`actorstore.handover`).
One thread per link takes what is there, keeps it in its ledger, sends it in one
go, and reads what comes back; nothing else touches the ledger, so there is
nothing to lock, and a thread that is interrupted leaves nothing half done. When
the connection is lost, the thread connects again, and sends from where the store
says it stands.

What is kept is bounded in bytes: a producer that runs ahead waits, and nothing
is dropped. A forked child starts anew, as a producer of its own; what the
parent handed over is the parent's to send.

Reading order: `Link` and what it offers, then its thread, from `_work` on.
"""

from __future__ import annotations

import logging
import os
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count, groupby
from typing import Final, cast

import msgspec

from actorstore import address
from actorstore.answers import FlushResult
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
from actorstore.handover import Handover
from actorstore.handshake import RECEIVED_BYTES, RETRIED, answer_error, check_owner, refused, shake_hands
from actorstore.ledger import Ledger
from actorstore.logs import say
from actorstore.outgoing import SPOOLED, Flush, Forget, Item, Question, encoded, is_event, lines_in
from actorstore.protocol import (
    Ack,
    Answer,
    Ask,
    ClientReader,
    FromStore,
    Refusal,
    Reject,
    Sendable,
    ask,
    bye,
)
from actorstore.reply import Receiver
from actorstore.shelter import Latch, sheltered
from actorstore.spool import Spool
from actorstore.text import clean
from actorstore.throttle import Throttle
from actorstore.wire import SHOWN_CHARS

logger = logging.getLogger("actorstore")

KEPT_BYTES: Final = 4 << 20
"""How much may be handed over and not yet acked before producers wait."""

FIRST_DELAY: Final = 0.01
"""Seconds until the first try to connect again; each further one waits twice as long."""

LAST_DELAY: Final = 1.0
"""Seconds between tries, at most; half of it at random, so that a thousand producers do not come at once."""

WELCOME_SECONDS: Final = 5.0
"""How long a store may take to say welcome."""

BLOCKED_MS: Final = 50
"""How often one whose store does not read looks what was handed over; being woken for each costs a tenth."""

KNOWN: Final = "known"
"""The cursor of one who waits for a run that a store before has known; it fits none."""

_random: Final = random.Random()  # of its own: a program that seeds the other counts on its numbers


class Link:
    """The way to a store in another process; see the module.

    Args:
        path: The socket.
        kept_bytes: How much may be handed over and not yet acked before producers wait.
        spool: Where that is kept in a file, too.
    """

    def __init__(self, path: str, kept_bytes: int = KEPT_BYTES, spool: Spool | None = None) -> None:
        self.path = path
        self.kept_bytes = kept_bytes
        self._begin(spool)
        register(self)

    def _begin(self, spool: Spool | None = None) -> None:
        """Start as a producer that nobody knows, or go on as the one whose spool that is."""
        self._spool = spool
        self.handover: Handover[Item] = Handover()
        self.handover.attach(self._ring)
        self._ledger = Ledger(os.urandom(8).hex() if spool is None else spool.producer)
        if spool is not None:
            self._ledger.inherit(spool.standing, spool.left)
            spool.left.clear()  # or it would be kept for as long as this is
        self._lock = threading.Lock()  # of the start and the end of the thread
        self._left = Latch()  # once the thread has let everybody go
        self._thread: threading.Thread | None = None
        self._bell: Bell | None = None  # wakes the thread
        self._socket: socket.socket | None = None
        self._reader = ClientReader()
        self._throttle = Throttle()
        self._is_blocked = False  # whether the socket takes no more for now
        self._questions: dict[int, Question] = {}
        self._numbers = count(1)
        self._flushes: deque[tuple[int, Receiver]] = deque()
        self._trouble: ActorStoreError | None = None  # why there is no connection
        self._is_missed = False  # whether the connection was lost, and that was said
        self._is_forgotten = False  # whether nobody holds the store any more
        self._is_ending = False  # whether the last was taken, so that the thread ends once all is acked
        self.is_over = False  # whether the thread ends, whatever is left

    # For producers and readers.

    def put(self, event: Event) -> bool:
        """Hand one event over.

        Returns:
            Whether so much lies here that the producer ought to wait.

        Raises:
            TypeError: It is not an `Event`.
        """
        self.handover.check_open()
        if type(event) is not Event:
            raise TypeError(f"handle_event takes an actorstore.Event, not {type(event).__name__}")
        if self._spool is not None:
            return self.put_together(list(encoded([event])))
        return self.handover.append(event, len(event.payload) + len(event.error), is_event=True)

    def put_lines(self, lines: Sendable) -> bool:
        """Hand lines over.

        Returns:
            Whether so much lies here that the producer ought to wait.
        """
        if self._spool is None:
            return self.handover.append(lines, len(lines.data), is_event=False)
        return self.put_together([lines])

    def put_together(self, lines: Sequence[Sendable]) -> bool:
        """Hand lines over that are to be in the spool, all of them or none.

        Returns:
            Whether so much lies here that the producer ought to wait.

        Raises:
            SpoolError: They cannot be kept.
        """
        spool = self._spool
        if spool is None:  # it is let go once nothing is taken any more
            raise (self.handover.closed or StoreClosedError)()
        with spool.lock:  # so that the file has them in the order in which they are sent
            self.handover.check_open()
            spool.add(lines)
            try:
                size = sum([len(part.data) for part in lines])
                return self.handover.append(SPOOLED, size, is_event=False)
            except StoreClosedError:
                spool.withdraw(lines)
                raise

    def when_acked(self, receiver: Receiver) -> None:
        """Have the receiver told once all that was handed over until now is acked."""
        self.handover.append(Flush(receiver), 0, is_event=False)

    def ask(self, question: Ask, receiver: Receiver) -> int:
        """Ask the store, after all that was handed over before; returns the number of the question.

        The receiver gets the parts of the answer, by name, still in JSON. A store that is
        asked to wait for a run, and is gone before it has ended, knew the run: another one
        waits until it has heard of it.
        """
        self.handover.check_open()
        number = next(self._numbers)
        question = msgspec.structs.replace(question, id=number)
        again = ask(msgspec.structs.replace(question, since=KNOWN)) if question.what == "wait" else None
        self.handover.append(Question(number, ask(question), receiver, again), 0, is_event=False)
        return number

    def forget(self, number: int) -> None:
        """Have nobody answer a question any more."""
        with suppress(StoreClosedError):
            self.handover.append(Forget(number), 0, is_event=False)

    def unacked(self) -> int:
        """Count the lines that were handed over and are not acked."""
        lying = sum(map(lines_in, self.handover.items.copy()))
        spooled = 0 if self._spool is None else self._spool.waiting()
        return self._ledger.unacked + lying + spooled

    @property
    def outlives(self) -> bool:
        """Whether what is not acked is kept for the next producer."""
        return self._spool is not None

    def trouble(self) -> ActorStoreError | None:
        """Return why there is no connection, where there is none."""
        trouble = self._trouble
        if isinstance(trouble, StoreUnreachableError):
            return StoreUnreachableError(trouble.address, trouble.reason, self.unacked())
        return None if trouble is None else type(trouble)(*trouble.args)

    def check_open(self) -> None:
        """Raise where nothing can be handed over or asked."""
        self.handover.check_open()

    # Opening and closing.

    def open(self) -> None:
        """Connect now.

        Raises:
            StoreUnreachableError: Nobody answers there.
            RefusedError: The store does not take this producer.
        """
        try:
            if self._connect():
                self._start()
                return
            trouble = self.trouble()
        except BaseException:
            self._leave()
            raise
        self._leave()
        if trouble is not None:
            raise trouble
        self.handover.check_open()

    def send_left(self) -> None:
        """Send what the producer before has left, whether anything is handed over here or not."""
        if self._ledger.unacked:
            self._start()

    def end(self) -> None:
        """Take nothing more, and send what there is in the background."""
        self.handover.refuse(StoreClosedError)
        spool = self._spool
        if spool is not None:
            spool.keep()  # and a producer that had its lock has handed its lines over, or taken them back
        if self._thread is not None or self.handover.items or (spool is not None and spool.waiting()):
            self._ring()
        elif spool is not None:  # nothing was ever handed over
            spool.close(is_done=not self.unacked())

    def let_go(self) -> None:
        """End once somebody gets round to it; for finalizers, which may find any lock taken."""
        self._is_forgotten = True
        bell = self._bell
        if bell is not None:
            bell.ring()
        elif self._spool is not None:
            self.end()  # no other thread can have a lock of what was never used

    def join(self, timeout: float | None) -> bool:
        """Wait until all is sent and acked, and its spool let go; `False` where it is not.

        Without a timeout that is as long as it takes, but for a store that
        cannot be reached, which is waited for some seconds only.
        """
        until = None if timeout is None else time.monotonic() + timeout
        patience = time.monotonic() + PATIENCE_SECONDS
        thread = self._thread
        while thread is not None and not self._left.is_set and (self.outlives or not self._has_sent_all()):
            now = time.monotonic()
            if self._trouble is None:
                patience = now + PATIENCE_SECONDS
            end = patience if until is None else min(until, patience)
            if now >= end:
                return False
            self._left.wait(min(0.1, end - now))
        return not self.unacked()

    def _has_sent_all(self) -> bool:
        return self._is_ending and self._ledger.unacked <= 0

    def abandon(self) -> None:
        """Stop at once; what is not acked is lost."""
        self.is_over = True
        self.end()

    def leave_behind(self) -> None:
        """In a forked child: let go of the parent's connection, and start anew."""
        connection, bell, spool = self._socket, self._bell, self._spool
        closed = self.handover.closed
        self._begin()
        if closed:
            self.handover.refuse(closed)
        if spool is not None:
            spool.leave_behind()
        for descriptor in (connection, bell):
            if descriptor is not None:
                descriptor.close()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            send_at_exit(self)
            bell = self._bell = Bell()
            thread = threading.Thread(target=self._run, name="StoreLink", daemon=True)

            def start() -> None:
                thread.start()
                self._thread = thread

            try:
                sheltered(start, _nothing)  # an interruption may come after the thread has started
            except BaseException:
                if self._thread is None:
                    self._bell = None
                    bell.close()
                raise

    def _ring(self) -> None:
        if self._thread is None:
            self._start()
        bell = self._bell
        if bell is not None:
            bell.ring()

    # The thread.

    def _run(self) -> None:
        try:
            self._work()
        except Exception:
            say(logger.exception, "the way to the store at %s is closed over a bug in actorstore", self.path)
            self._fail(StoreFailedError())
        finally:
            try:
                self._leave()
            finally:
                self._left.set()

    def _work(self) -> None:
        delay = FIRST_DELAY
        while not self._is_done():
            if self._is_forgotten:
                self.handover.refuse(StoreClosedError)
            self._take_in()
            if self._socket is not None:
                self._exchange(self._socket)
            elif self._connect():
                delay = FIRST_DELAY
            elif not self.is_over:
                self._pause(delay * (0.5 + _random.random() / 2))
                delay = min(2 * delay, LAST_DELAY)

    def _is_done(self) -> bool:
        return self.is_over or self._has_sent_all()

    def _pause(self, seconds: float) -> None:
        """Take in what is handed over, for so long."""
        assert self._bell is not None
        end = time.monotonic() + seconds
        while not self.is_over and (left := end - time.monotonic()) > 0:
            if self._is_full() or self.handover.rest() or self.handover.closed:
                self._bell.wait(left)
            self._take_in()

    # What was handed over.

    def _is_full(self) -> bool:
        return self._ledger.size >= self.kept_bytes

    def _take_in(self) -> None:
        """Take what was handed over, while there is room for it."""
        closed = self.handover.closed
        if self._is_full() and not closed:
            return
        if closed:
            items, only_events = self.handover.close(closed)
            self._is_ending = True
            self._fail_questions(closed)
        else:
            items, only_events = self.handover.take()
        if self._spool is not None:
            for lines in self._spool.take():  # all that was added before any of the items
                self._ledger.add_lines(lines)
        if only_events:
            self._take_events(cast(list[Event], items))
        else:
            for are_events, group in groupby(items, key=is_event):
                if are_events:
                    self._take_events(cast(list[Event], list(group)))
                else:
                    for item in group:
                        self._take(item)
        self.handover.let_in()

    def _take_events(self, events: list[Event]) -> None:
        for lines in encoded(events):
            self._ledger.add_lines(lines)

    def _take(self, item: Item) -> None:
        match item:
            case Sendable():
                self._ledger.add_lines(item)
            case Question(number, line):
                if self._is_ending:
                    item.receiver.fail((self.handover.closed or StoreClosedError)())
                    return
                self._questions[number] = item
                if self._socket is not None:
                    self._ledger.add_question(line)
                    if item.again is not None:
                        self._questions[number] = item._replace(line=item.again)
            case Flush(receiver):
                self._flushes.append((self._ledger.handed, receiver))
                self._tell_acked()
            case Forget(number):
                if self._questions.pop(number, None) is not None and self._socket is not None:
                    self._ledger.add_question(ask(Ask(number, "forget")))

    # The connection.

    def _connect(self) -> bool:
        """Connect, say hello, and go on from where the store says it stands."""
        connection: socket.socket | None = None
        try:
            connection = address.connect(self.path, WELCOME_SECONDS)
            self._reader = ClientReader()
            welcome, messages = shake_hands(connection, self._reader, self._ledger.producer, self.path)
            check_owner(connection, self.path)
            self._ledger.resume(welcome)
            self._note()
            self._tell_acked()
            for number, question in self._questions.items():
                self._ledger.add_question(question.line)
                if question.again is not None:
                    self._questions[number] = question._replace(line=question.again)
            connection.setblocking(False)
            self._socket, self._trouble = connection, None
            if self._is_missed:
                self._is_missed = False
                say(logger.warning, "the store at %s answers again", self.path)
            self._hear(messages)
        except StoreClosedError as error:
            self._fail(error)
        except ActorStoreError as error:
            self._trouble = error
        else:
            return True
        self._socket = None
        if connection is not None:
            connection.close()
        return False

    def _disconnect(self, connection: socket.socket, reason: str) -> None:
        self._socket = None
        self._trouble = StoreUnreachableError(self.path, reason)
        connection.close()
        if not self._is_done():
            self._is_missed = True
            text = "the store at %s does not answer: %s; what is handed over is kept until it does"
            say(logger.warning, text, self.path, reason)

    def _exchange(self, connection: socket.socket) -> None:
        """Send what there is, and read once there is something."""
        self._send(connection)
        if self._is_done():
            return
        can_take = not self._is_full() and not self._is_blocked
        if can_take and not self.handover.closed and not self.handover.rest():
            return
        bell = self._bell
        assert bell is not None
        poll = select.poll()
        poll.register(connection, select.POLLIN | (select.POLLOUT if self._is_blocked else 0))
        poll.register(bell, select.POLLIN)
        ready = dict(poll.poll(BLOCKED_MS if self._is_blocked else None))
        if bell.fileno() in ready:
            bell.hear()
        if ready.get(connection.fileno(), 0) & ~select.POLLOUT:
            self._receive(connection)

    def _send(self, connection: socket.socket) -> None:
        """Send as much as the socket takes."""
        self._is_blocked = False
        try:
            while (data := self._ledger.to_send()) is not None:
                self._ledger.has_sent(connection.send(data))
        except BlockingIOError:
            self._is_blocked = True
        except OSError:
            pass  # reading tells what has happened

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
        for message in messages:
            match message:
                case Ack(lines, unknown):
                    self._ledger.hear_ack(lines, unknown)
                    self._note()
                    self._tell_acked()
                case Reject():
                    self._hear_reject(message)
                case Answer(number, parts):
                    self._hear_answer(number, parts)
                case Refusal(code) if code not in RETRIED:
                    raise refused(message)

    def _hear_reject(self, reject: Reject) -> None:
        self._ledger.hear_reject()
        more = self._throttle.lets_through()
        if more is not None:
            reason = clean(reject.reason, SHOWN_CHARS)
            text = "the store at %s rejected line %d: %s%s"
            say(logger.warning, text, self.path, reject.line, reason, more)

    def _hear_answer(self, number: int, parts: dict[str, msgspec.Raw]) -> None:
        question = self._questions.get(number)
        if question is None:
            return
        if "error" not in parts:
            del self._questions[number]
            question.receiver.set(parts)
            return
        refusal = msgspec.json.decode(parts["error"], type=Refusal)
        if refusal.code != "closed":  # that is asked again, of whoever listens next
            del self._questions[number]
            question.receiver.fail(answer_error(refusal))

    def _note(self) -> None:
        """Have the spool let go of what is acked; it hears of a new store before any line is sent there."""
        if self._spool is not None:
            self._spool.note(self._ledger.acked, self._ledger.standing)

    def _tell_acked(self) -> None:
        """Tell those who wait for acks."""
        ledger = self._ledger
        while self._flushes and self._flushes[0][0] <= ledger.acked:
            result = FlushResult(ledger.accepted, ledger.rejected, ledger.unknown_units)
            self._flushes.popleft()[1].set(result)

    # The end.

    def _fail_questions(self, error: Callable[[], StoreClosedError]) -> None:
        questions, self._questions = self._questions, {}
        for question in questions.values():
            question.receiver.fail(error())

    def _fail(self, error: StoreClosedError) -> None:
        self.is_over = True
        self._trouble = error
        self.handover.refuse(lambda: type(error)(*error.args))  # one of its own for everybody who raises it

    def _leave(self) -> None:
        """Let everybody go, and say goodbye, so that the store may forget this producer."""
        self.is_over = True
        closed = self.handover.closed or StoreClosedError
        left, _ = self.handover.close(closed)
        late = [item.receiver for item in left if isinstance(item, Question | Flush)]
        self._fail_questions(closed)
        flushing = [receiver for _, receiver in self._flushes]
        for receiver in (*flushing, *late):
            receiver.fail(closed())
        spool = self._spool
        if spool is not None:
            for lines in spool.take():
                self._ledger.add_lines(lines)
            spool.close(is_done=self._ledger.unacked <= 0 and not isinstance(closed(), RefusedError))
            self._spool = None
        connection, self._socket = self._socket, None
        if connection is not None:
            if self._ledger.unacked <= 0 and not isinstance(closed(), RefusedError):
                with suppress(OSError):
                    connection.settimeout(1.0)
                    connection.sendall(bye())
            connection.close()
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()


def _nothing() -> None:
    """Undo nothing: what has started goes on."""
