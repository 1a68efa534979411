"""The listening half of a store: one event loop in one thread, in front of the actor.

It reads what other processes write, hands it over as any producer does, and
writes what they hear. Nothing here touches the state. Nobody waits for anybody
else: a connection whose lines find no room waits in line, and is not read
meanwhile, and whatever takes long is done in a thread beside the loop.

Reading order: `Server`, what it does for its connections
(`actorstore.connection`), its end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actorstore.account import Account
from actorstore.actor import StoreActor
from actorstore.address import BACKLOG, Address, SocketFile, peer
from actorstore.answers import StoreStats
from actorstore.connection import Connection
from actorstore.errors import StoreClosedError, StoreFailedError
from actorstore.intake import Intake
from actorstore.logs import say
from actorstore.mailbox import Mailbox
from actorstore.producers import Claimant
from actorstore.protocol import Violation
from actorstore.questions import Asked
from actorstore.reply import NOBODY
from actorstore.shelter import Latch
from actorstore.throttle import Throttle

if TYPE_CHECKING:
    from actorstore.past import Past

ACCEPTED_AT_ONCE: Final = 16
"""How many connections are accepted in one go, and tried to be where no descriptors are left."""

UNFINISHED_LINES: Final = 2
"""How much is kept of lines that have not ended, of all connections together: as much as of so many of the
longest lines that are taken. Short ones, of less than a chunk, do not count."""

DRAIN_SECONDS: Final = 2.0
"""How long a server that closes still reads what was on its way; who writes on after that is cut off."""

WIND_UP_SECONDS: Final = 1.0
"""How long a server that closes waits for acks, and then for others to read what they are told."""

LOOK_SECONDS: Final = 0.005
"""How often a server that closes looks whether all was read and told."""

logger = logging.getLogger("actorstore")


class Server:
    """Listens at a socket, from the moment it is made until `close`.

    Args:
        address: Path of the socket.
        intake: Where lines are handed over.
        mailbox: Where questions go.
        past: Where questions about the past go, where the store has a journal.

    Raises:
        SocketInUseError: Another store listens there.
        AddressError: Nothing can listen there.
    """

    def __init__(self, address: Address, intake: Intake, mailbox: Mailbox, past: Past | None = None) -> None:
        self.intake = intake
        self.mailbox = mailbox
        self.past = past
        self._loop = asyncio.new_event_loop()
        self._throttle = Throttle()
        self._loop.set_exception_handler(self._log)
        self._connections: set[Connection] = set()
        self._sockets: set[asyncio.Transport] = set()
        self._owners: dict[str, Connection] = {}  # producer id -> who speaks for it
        self._waiting: deque[Connection] = deque()  # for room in the intake
        self._unfinished: dict[Connection, int] = {}  # bytes of long lines, the one longest idle first
        self._gate = _Gate(self)
        self._is_queued = False
        self._is_admitting = False
        self._posted: deque[Callable[[], None]] = deque()
        self._is_awake = False
        self._decoders = ThreadPoolExecutor(1, "StoreServer-lines")  # one at a time: all hold the GIL
        self._encoders = ThreadPoolExecutor(1, "StoreServer-answers")
        self._historian = ThreadPoolExecutor(1, "StoreServer-past")  # who is slow, and rests most of the time
        self._is_closing = False
        self.ended = Latch()  # once nobody is connected any more, and no file left
        self._thread = threading.Thread(target=self._run, name="StoreServer", daemon=True)
        self._started: Future[None] = Future()
        try:
            self._file = SocketFile(address)
        except BaseException:
            self._loop.close()
            raise
        try:
            self._thread.start()
            self._started.result()
        except BaseException:
            self._loop.close()
            self._file.release()
            raise
        mailbox.watch(self._hear_of_the_end)
        _servers.add(self)

    @property
    def address(self) -> str:
        """Path of the socket."""
        return self._file.path

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._sockets)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._listening = self._loop.run_until_complete(
                self._loop.create_unix_server(
                    lambda: Connection(self), sock=self._file.listener, backlog=ACCEPTED_AT_ONCE
                )
            )
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._file.listener.listen(BACKLOG)  # more than asyncio asks for
        self._started.set_result(None)
        try:
            self._loop.run_forever()
        finally:
            self._decoders.shutdown(cancel_futures=True)
            self._encoders.shutdown(cancel_futures=True)
            self._historian.shutdown(wait=False, cancel_futures=True)
            self._loop.close()
            _servers.discard(self)  # or a forked child would let go of descriptors that are others' by now
            self._file.release()
            self.ended.set()

    def add_to(self, stats: StoreStats) -> StoreStats:
        """Add to the figures of a store what is known here."""
        return msgspec.structs.replace(stats, connections=self.connections)

    # For connections.

    def welcome(self, connection: Connection, transport: asyncio.Transport) -> Violation | None:
        """Take a connection on; returns why not, where it may not come in."""
        self._sockets.add(transport)
        self._connections.add(connection)
        who = peer(transport.get_extra_info("socket"))
        if who is not None and who[1] != os.geteuid():
            say(logger.warning, "refused a connection of user %d, process %d", who[1], who[0])
            return Violation("forbidden", f"this store is user {os.geteuid()}'s alone")
        say(logger.info, "process %s connected (%d open)", who[0] if who else "?", self.connections)
        return None

    def part(self, transport: asyncio.Transport) -> None:
        """Take note that a connection is closed, though what it said may not be handled yet."""
        self._sockets.discard(transport)
        say(logger.info, "a connection closed (%d open)", self.connections)

    def keep(self, connection: Connection, size: int) -> None:
        """Take note of how much is kept of a line that has not ended, and make room for it.

        Whoever has sent none of its line for longest is closed; it may come back, and send
        it again.
        """
        self._unfinished.pop(connection, None)
        if size:
            self._unfinished[connection] = size
        most = UNFINISHED_LINES * self.intake.max_line_bytes
        while len(self._unfinished) > 1 and sum(self._unfinished.values()) > most:
            idle = next(iter(self._unfinished))
            del self._unfinished[idle]
            idle.make_room()

    def leave(self, connection: Connection, account: Account) -> None:
        """Let go of a connection that is done."""
        if connection in self._connections:
            self._connections.discard(connection)
            if connection.producer is not None and self._owners.get(connection.producer) is connection:
                del self._owners[connection.producer]
            if account.listener is not None:
                with suppress(StoreClosedError):
                    self.mailbox.order(lambda actor: actor.release(account, connection))

    def claim(self, connection: Connection) -> None:
        """Have the actor welcome a producer; the connection that spoke for it before is superseded."""
        producer = connection.producer
        if producer is not None:
            before = self._owners.get(producer)
            self._owners[producer] = connection
            if before is not None:
                before.supersede()
        claimant = Claimant(connection, _Posted(self, connection.welcomed))
        self.mailbox.order(lambda actor: actor.hello(producer, claimant))

    def forget(self, connection: Connection, producer: str) -> None:
        """Forget a producer that said goodbye."""
        if self._owners.get(producer) is connection:
            with suppress(StoreClosedError):
                self.mailbox.order(lambda actor: actor.bye(producer))

    def has_room_for(self, connection: Connection) -> bool:
        """Whether lines may be handed over now; else the connection goes on when its turn comes."""
        if not self.intake.is_full() and (self._is_admitting or not self._waiting):
            return True
        self.intake.check_open()
        self._waiting.append(connection)
        self._ask_for_room()
        return False

    def when_applied(self, callback: Callable[[], None]) -> None:
        """Run this in the loop once all that was handed over is applied."""
        self.mailbox.send(lambda _: None, _Posted(self, lambda _: callback()), in_turn=True)

    def tell_actor(self, what: Callable[[StoreActor], object]) -> None:
        """Have the actor do something after all that was handed over; it may be gone."""
        with suppress(StoreClosedError):
            self.mailbox.send(what, NOBODY, in_turn=True)

    def decode(self, connection: Connection, work: Callable[[], object], then: Callable[[Any], None]) -> None:
        """Decode a long line in another thread, and go on with what comes of it.

        Each connection has one at a time, so they take turns.
        """
        self._do_beside(self._decoders, connection, work, then)

    def encode(self, connection: Connection, work: Callable[[], object], then: Callable[[Any], None]) -> None:
        """Encode a large answer in another thread, where no line waits behind it, and go on with it.

        Each connection has one at a time, so they take turns.
        """
        self._do_beside(self._encoders, connection, work, then)

    def _do_beside(
        self,
        threads: ThreadPoolExecutor,
        connection: Connection,
        work: Callable[[], object],
        then: Callable[[Any], None],
    ) -> None:
        if self._is_closing:
            then(work())
            return

        def run() -> None:
            try:
                result = work()
            except Exception as error:
                say(logger.exception, "a connection was closed over a bug in actorstore")
                failed = error
                self.post(lambda: connection.refuse_service(failed))
            else:
                self.post(lambda: then(result))

        threads.submit(run)

    def look_back(self, asked: Asked, past: Past) -> None:
        """Answer a question about the past, after all that was handed over, and when its turn comes.

        Each connection has one at a time, so they take turns.
        """

        def run() -> None:
            try:
                run, at = asked.question.run, asked.question.at
                asked.set(past.snapshot(run, at or 0, is_wanted=lambda: asked.is_open))
            except BaseException as error:
                asked.fail(error)

        self.mailbox.send(lambda actor: actor.version, _Then(self._historian, run, asked))

    def is_hung_up(self, transport: asyncio.Transport) -> bool:
        """Whether the other end of a connection has gone altogether."""
        return _is(transport.get_extra_info("socket"), select.POLLHUP)

    def soon(self, callback: Callable[[], None]) -> None:
        """Run this in the loop, after others have had their turn."""
        self._loop.call_soon(callback)

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run this in the loop, in so many seconds."""
        self._loop.call_later(seconds, callback)

    def post(self, callback: Callable[[], None]) -> None:
        """Run this in the loop; callable from any thread, and many of them cost one waking up."""
        self._posted.append(callback)
        if not self._is_awake:
            self._is_awake = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._run_posted)

    def _run_posted(self) -> None:
        self._is_awake = False
        for _ in range(len(self._posted)):
            try:
                self._posted.popleft()()
            except Exception:
                say(logger.exception, "a server went on after a bug in actorstore")

    # Room.

    def _ask_for_room(self) -> None:
        if self._is_queued or self._is_admitting:
            return
        self._is_queued = self.intake.queue_up(self._gate)
        if not self._is_queued:
            self._loop.call_soon(self.admit)

    def admit(self) -> None:
        """Let those in that wait for room, one after the other, while there is some."""
        self._is_queued = False
        self._is_admitting = True
        try:
            while self._waiting and (self.intake.closed or not self.intake.is_full()):
                self._waiting.popleft().go_on()
        finally:
            self._is_admitting = False
        self.intake.leave_queue(self._gate)
        if self._waiting:
            self._ask_for_room()

    # The end.

    def close(self, timeout: float | None = None) -> None:
        """Read what was on its way, have it applied and told, and leave no file behind.

        Args:
            timeout: Seconds for all of it; at most `DRAIN_SECONDS` and
                `WIND_UP_SECONDS` are used.
        """
        self.end(timeout)
        self.join()

    def end(self, timeout: float | None = None) -> None:
        """Close in the background; for finalizers too, which may find any lock taken, in any thread."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._start_closing, timeout)

    def join(self) -> None:
        """Wait until it is closed."""
        self.ended.wait()
        self._thread.join()

    def _start_closing(self, timeout: float | None) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._last_task = self._loop.create_task(self._close(timeout))

    async def _close(self, timeout: float | None) -> None:
        try:
            await self._until(self._is_quiet, DRAIN_SECONDS if timeout is None else timeout / 2)
            self._listening.close()
            for connection in list(self._connections):
                connection.stop()
            wind_up = WIND_UP_SECONDS if timeout is None else timeout / 4
            await self._until(self._is_told, wind_up)
            for connection in list(self._connections):
                connection.close()
            await self._until(lambda: not self._sockets, wind_up)
            for transport in list(self._sockets):
                transport.abort()
            await asyncio.sleep(0)
        finally:
            self._loop.stop()

    async def _until(self, is_so: Callable[[], bool], seconds: float) -> None:
        """Wait so long at most until something is so, twice, because what was read may be on its way."""
        end = self._loop.time() + min(seconds, DRAIN_SECONDS)
        times = 0
        while times < 2 and self._loop.time() < end:
            await asyncio.sleep(LOOK_SECONDS)
            times = times + 1 if is_so() else 0

    def _is_told(self) -> bool:
        """Whether all that was taken is applied, and told to those who listen."""
        if self.intake.closed:
            return True
        return not self._posted and all(connection.is_quiet() for connection in self._connections)

    def _log(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        more = self._throttle.lets_through()
        if more is not None:
            error = context.get("exception")
            trace = None if isinstance(error, OSError) else error
            say(logger.error, "%s: %s%s", context["message"], error, more, exc_info=trace)

    def _is_quiet(self) -> bool:
        """Whether nothing more is on its way either."""
        if self.intake.closed:
            return True
        return (
            self._is_told()
            and not self.intake.items
            and not any(map(_has_unread, self._sockets))
            and not _is(self._file.listener, select.POLLIN)
        )

    def _hear_of_the_end(self, error: StoreClosedError) -> None:
        """Refuse service where the actor has died; called in its thread."""
        if isinstance(error, StoreFailedError):
            self.post(lambda: self._refuse_service(error))

    def _refuse_service(self, error: StoreFailedError) -> None:
        for connection in list(self._connections):
            connection.refuse_service(error)

    def leave_behind(self) -> None:
        """In a forked child: let go of every descriptor without touching what it stands for."""
        nowhere = os.open(os.devnull, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        theirs = [transport.get_extra_info("socket") for transport in self._sockets]
        loops: list[Any] = [getattr(self._loop, "_selector", None), getattr(self._loop, "_ssock", None)]
        loops.append(getattr(self._loop, "_csock", None))
        for thing in [self._file, self._file.listener, *theirs, *loops]:
            with suppress(OSError, ValueError, AttributeError):
                os.dup2(nowhere, thing.fileno(), inheritable=False)
        os.close(nowhere)


class _Gate:
    """The receiver that stands in the intake's line for all connections."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def set(self, _: object) -> bool:
        """Let connections in."""
        self._server.post(self._server.admit)
        return True

    def fail(self, _: BaseException) -> None:
        """Never called: room is no question."""


class _Then:
    """A receiver that has something done in a thread once its answer is there."""

    def __init__(self, threads: ThreadPoolExecutor, work: Callable[[], None], asked: Asked) -> None:
        self._threads = threads
        self._work = work
        self._asked = asked

    def set(self, _: object) -> bool:
        """Have it done."""
        try:
            self._threads.submit(self._work)
        except RuntimeError:  # the server is closing
            self._asked.fail(StoreClosedError())
        return False

    def fail(self, error: BaseException) -> None:
        """Pass on why not."""
        self._asked.fail(error)


class _Posted:
    """The receiver of an answer that the loop goes on with; where there is none, so much for that."""

    def __init__(self, server: Server, then: Callable[[Any], None]) -> None:
        self._server = server
        self._then = then

    def set(self, value: object) -> bool:
        """Have the loop go on."""
        self._server.post(lambda: self._then(value))
        return False

    def fail(self, error: BaseException) -> None:
        """The store is closed, and so are its connections."""


def _has_unread(transport: asyncio.Transport) -> bool:
    """Whether bytes lie in a socket that is read from."""
    return transport.is_reading() and _is(transport.get_extra_info("socket"), select.POLLIN)


def _is(thing: Any, event: int) -> bool:
    """Whether something can be said of a socket now."""
    poll = select.poll()
    poll.register(thing.fileno(), event)
    return any(events & event for _, events in poll.poll(0))


_servers: weakref.WeakSet[Server] = weakref.WeakSet()


_left: list[Server] = []  # in a forked child: never collected, or their loops would complain


def _leave_behind() -> None:
    for server in _servers:
        server.leave_behind()
        _left.append(server)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)
