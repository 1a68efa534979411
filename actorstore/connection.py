"""One connection of another process to a listening store.

Bytes come in, are cut into messages (`actorstore.protocol`), and go to the
actor, in their order and one after the other: while one has to wait, because
intake is full or the actor is asked who the producer is, the connection is
simply not read, and its producer waits in turn. What is heard back is written
as the other end reads it.

Everything here runs in the event loop of the server, but for `hear`, which the
actor calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from actorstore.account import Account
from actorstore.answers import Rejection
from actorstore.asking import Asking
from actorstore.errors import ActorStoreError
from actorstore.intake import Lines as HandedOver
from actorstore.logs import say
from actorstore.protocol import (
    Ask,
    Bye,
    FromClient,
    Hello,
    Lines,
    Refusal,
    StoreReader,
    TooLong,
    Violation,
    Welcome,
    ack,
    cut,
    error,
    rejects,
    welcome,
)
from actorstore.questions import refused
from actorstore.wire import CHUNK_BYTES, Chunk, decode

if TYPE_CHECKING:
    from actorstore.actor import Welcomed
    from actorstore.server import Server

UNTOLD_LINES: Final = 16_384
"""How many lines of one connection may wait to be told of, each of which may be refused."""

WARY_LINES: Final = 256
"""How many lines of a connection that is not trusted may wait to be applied: one whose last lines were
refused, or of which nothing is known. It holds others up for a fraction of a millisecond, and has hundreds
of thousands of lines a second looked at all the same."""

LINE_BYTES: Final = 64
"""How many bytes of the intake a line takes at least: to look at a short one costs as much as at so many."""

MESSAGES_AT_ONCE: Final = 64
"""How many messages of one connection are handled before others have their turn."""

PIECES_AT_ONCE: Final = 16
"""How many pieces of answers are written on one connection before others have their turn: a megabyte."""

LOOK_SECONDS: Final = 1.0
"""How often a connection that says nothing more is looked after."""

HANG_UP_SECONDS: Final = 5.0
"""How long a connection that is closed waits for its other end to read what it was told."""

SUPERSEDED: Final = Violation("superseded", "another connection goes on under the same producer id")
NO_ROOM: Final = Violation("no_room", "long lines that have not ended fill the store; send this one again")
CLOSED: Final = Violation("closed", "the store is closing; what is not acked may be sent again")

logger = logging.getLogger("actorstore")


class Connection(asyncio.Protocol):
    """A producer, a reader, or both.

    Args:
        server: The one that listens.
    """

    __slots__ = (
        "_account",
        "_acked",
        "_asking",
        "_awaits_ack",
        "_choked",
        "_coming",
        "_dropped",
        "_ended",
        "_feeds",
        "_gone",
        "_held",
        "_inbox",
        "_is_trusted",
        "_judged",
        "_outbox",
        "_paused",
        "_put",
        "_reader",
        "_refused",
        "_server",
        "_transport",
        "_unfinished",
        "producer",
    )

    def __init__(self, server: Server) -> None:
        self.producer: str | None = None
        self._server = server
        self._reader = StoreReader(server.intake.max_line_bytes)
        self._transport: asyncio.Transport | None = None
        self._inbox: deque[FromClient] = deque()
        self._coming: Iterator[FromClient] = iter(())  # what was said behind that
        self._outbox: deque[bytes] | None = None  # what waits until the other end reads
        self._asking: Asking | None = None  # its questions
        self._account = Account()
        self._put = 0  # lines given to the actor since the connection began
        self._acked = 0  # of those
        self._is_trusted = False  # whether its last lines were good ones
        self._judged = 0  # lines that this was found from
        self._refused = 0  # of those
        self._unfinished = 0  # bytes of a long line that has not ended
        self._feeds = False
        self._awaits_ack = False  # is held until more of its lines are applied
        self._held = False  # waits for somebody before the next message
        self._paused = False  # is not read
        self._choked = False  # does not read
        self._dropped = False  # nothing of what it said is taken any more
        self._ended = False  # says nothing more
        self._gone = False  # hears nothing more

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let in who may come in."""
        self._transport = cast(asyncio.Transport, transport)
        try:
            reason = self._server.welcome(self, self._transport)
        except BaseException:
            self._transport.abort()  # nobody comes in unchecked
            raise
        if reason is not None:
            self._close_with(reason)

    def data_received(self, data: bytes) -> None:
        """Take what was read."""
        self._inbox.extend(self._coming)  # nothing, as a rule: it is not read before that is handled
        self._coming = self._reader.read(data)
        self.work()
        self._note_unfinished()

    def eof_received(self) -> bool:
        """Finish what was said, and answer it, before the connection is closed."""
        self._ended = True
        self.work()
        self._look_after_it()
        return not self._gone

    def _note_unfinished(self) -> None:
        """Have the server know how much is kept of a long line that has not ended."""
        size = 0 if self._ended else self._reader.unfinished
        size = size if size > CHUNK_BYTES else 0
        if size != self._unfinished:
            self._unfinished = size
            self._server.keep(self, size)

    def _look_after_it(self) -> None:
        """Let go of one that says nothing more, and waits for answers, once it hears nothing more either.

        A connection is not read any more when it has said its last, so nothing
        else would tell.
        """
        if self._gone or self._transport is None:
            return
        if self._server.is_hung_up(self._transport):
            self._transport.abort()
        else:
            self._server.later(LOOK_SECONDS, self._look_after_it)

    def connection_lost(self, _: Exception | None) -> None:
        """Finish what was said; nobody hears of it."""
        self._ended = self._gone = True
        if self._transport is not None:
            self._server.part(self._transport)
        self._transport = None
        self._outbox = None
        self._note_unfinished()
        if self._asking is not None:
            self._asking.close()
        self.work()

    def pause_writing(self) -> None:
        """The other end does not read: do not read from it either."""
        self._choked = True
        self._regulate()

    def resume_writing(self) -> None:
        """The other end reads again."""
        if self._gone:
            return
        self._choked = False
        self._write_on()
        if self._asking is not None:
            self._asking.go_on()
        self.work()

    # What was said.

    def work(self) -> None:
        """Handle what was said, until something has to wait."""
        try:
            left = MESSAGES_AT_ONCE
            while self._has_more() and not self._held and (not self._choked or self._gone):
                if not left:
                    self._held = True
                    self._server.soon(self.go_on)
                    break
                left -= 1
                message = self._inbox.popleft()
                if not self._handle(message):
                    self._inbox.appendleft(message)
        except ActorStoreError as reason:  # the store is closed, or has failed
            self._close_with(refused(reason))
        except Exception:
            say(logger.exception, "a connection was closed over a bug in actorstore")
            self._close_with(Violation("internal", "the store failed over this connection; its log says why"))
        self._regulate()
        if self._ended:
            self._end()

    def _has_more(self) -> bool:
        """Whether something was said that is not handled."""
        if not self._inbox:
            self._inbox.extend(islice(self._coming, 1))
        return bool(self._inbox)

    def _drop_rest(self) -> None:
        """Take nothing more of what was said."""
        self._inbox.clear()
        self._coming = iter(())
        self._reader.close()
        self._note_unfinished()

    def go_on(self) -> None:
        """Go on after waiting."""
        self._held = False
        self.work()

    def _handle(self, message: FromClient) -> bool:
        """Handle a message; `False` where it has to wait."""
        match message:
            case Lines():
                return self._hand_over(message)
            case TooLong(rejection):
                self._put_lines(Chunk([], [rejection], 1), 1, 0)
            case Ask():
                if not self._gone:  # or nobody hears the answer
                    self._ask(message)
            case Hello():
                self._held = True
                self.producer = message.producer
                self._server.claim(self)
            case Bye():
                self._say_bye()
            case Violation():
                self._close_with(message)
        return True

    def _hand_over(self, lines: Lines) -> bool:
        if self._reader.says_hello and self._put - self._acked >= UNTOLD_LINES:
            self._held = self._awaits_ack = True
            return False
        if not self._is_trusted and lines.lines > WARY_LINES:
            self._inbox.extendleft(reversed(cut(lines, WARY_LINES)))
            return True
        if not self._may_take(lines.lines):
            return False
        if not self._server.has_room_for(self):
            self._held = True
            return False
        if len(lines.data) > CHUNK_BYTES:
            self._held = True
            self._server.decode(
                self,
                lambda: decode(lines.data, self._server.intake.max_line_bytes),
                lambda chunk: self._decoded(cast(Chunk, chunk), len(lines.data)),
            )
            return True
        size = max(len(lines.data), lines.lines * LINE_BYTES)
        self._put_lines(lines.data, lines.lines, size, lines.alike)
        return True

    def _may_take(self, lines: int) -> bool:
        """Whether so many lines may be handed over now, rather than once those before are applied."""
        if self._account.rejected > self._refused:
            self._is_trusted = False
        if self._is_trusted or self._put + lines <= self._judged + WARY_LINES:
            return True
        self._held = True
        self._server.when_applied(self._judge)
        return False

    def _judge(self) -> None:
        """Trust one none of whose last lines was refused."""
        self._is_trusted = self._account.rejected == self._refused
        self._refused = self._account.rejected
        self._judged = self._put
        self.go_on()

    def _decoded(self, chunk: Chunk, size: int) -> None:
        self._held = False
        if not self._dropped:
            try:
                self._put_lines(chunk, 1, size)
            except ActorStoreError as reason:
                self._close_with(refused(reason))
        self.work()

    def _put_lines(self, data: bytes | Chunk, lines: int, size: int, alike: bool = False) -> None:
        if not self._feeds:
            self._server.tell_actor(lambda actor: actor.feed_begins())
            self._feeds = True
        self._account.handed += lines
        self._server.intake.put_lines(HandedOver(data, self._account, lines, alike), size)
        self._put += lines

    def _ask(self, ask: Ask) -> None:
        if self._asking is None:
            self._asking = Asking(self, self._server)
        self._asking.ask(ask)

    def _say_bye(self) -> None:
        self._ended = True
        self._drop_rest()
        if self.producer is not None:
            self._server.forget(self, self.producer)

    # What is heard back.

    def welcomed(self, told: Welcomed) -> None:
        """Go on as the producer that the other end said it is."""
        self._account = told.account
        self._put = self._acked = self._judged = told.lines
        self._refused = told.rejected
        counts = told.rejected, told.unknown_units
        self.write(welcome(Welcome(told.store, told.lines, told.version, *counts)))
        self.go_on()

    def hear(self, lines: int, rejections: Sequence[Rejection], unknown_units: int) -> None:
        """Take note of what became of lines; called by the actor."""
        self._server.post(lambda: self._tell(lines, rejections, unknown_units))

    def _tell(self, lines: int, rejections: Sequence[Rejection], unknown_units: int) -> None:
        self._acked = lines
        self.write(rejects(rejections) + ack(lines, unknown_units))
        if self._awaits_ack:
            self._awaits_ack = False
            self.go_on()
        elif self._ended:
            self._end()

    @property
    def is_choked(self) -> bool:
        """Whether the other end does not read what it is told."""
        return self._choked

    def has_answered(self) -> None:
        """Close the connection where this was the last that it waited for."""
        if self._ended:
            self._end()

    def write_pieces(self, pieces: Iterable[bytes]) -> None:
        """Write a long line piece by piece, once the other end reads: as one it would be copied twice."""
        if self._transport is None or self._gone:
            return
        for piece in pieces:
            self._put_off(piece)
        if not self._choked:
            self._write_on()

    def _write_on(self) -> None:
        """Write what was put off, while the other end reads, and not so much that others wait long."""
        left = PIECES_AT_ONCE
        while self._outbox and not self._choked and self._transport is not None:
            if not left:
                self._choked = True  # until others have had their turn
                self._server.soon(self.resume_writing)
                break
            left -= 1
            self._transport.write(self._outbox.popleft())

    def write(self, data: bytes) -> None:
        """Write something once the other end reads."""
        if self._transport is None or self._gone:
            return
        if self._choked:
            self._put_off(data)
        else:
            self._transport.write(data)

    def _put_off(self, line: bytes) -> None:
        if self._outbox is None:
            self._outbox = deque()
        self._outbox.append(line)

    # Reading, and the end.

    def _regulate(self) -> None:
        """Read from the other end only while what it says is handled, and what it hears is read."""
        pause = self._has_more() or self._held or self._choked or self._ended
        if self._transport is None or pause == self._paused or self._transport.is_closing():
            return
        self._paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def supersede(self) -> None:
        """Drop what is not handed over yet: another connection goes on."""
        self.producer = None
        self._close_with(SUPERSEDED)
        self._end()

    def is_quiet(self) -> bool:
        """Whether all that was read is handled, applied and told."""
        told = self._acked >= self._put or not self._reader.says_hello
        return not self._has_more() and not self._held and told

    def stop(self) -> None:
        """Take nothing more; what was taken is still told."""
        self._drop_rest()
        self._ended = self._dropped = True
        self._regulate()

    def close(self) -> None:
        """Close the connection, because the store is closed."""
        self._close_with(CLOSED)

    def make_room(self) -> None:
        """Close the connection, because it keeps a long line that has not ended."""
        self._close_with(NO_ROOM)

    def refuse_service(self, error: BaseException) -> None:
        """Close the connection, because the actor has died."""
        self._close_with(refused(error))

    def _close_with(self, reason: Violation | Refusal) -> None:
        """Take nothing more, say why to those who listen, and close once that is written."""
        self._ended = self._dropped = True
        self._held = False  # what it waits for may never come
        self._drop_rest()
        if self._transport is not None and not self._gone:
            if self._reader.says_hello or reason.code not in ("closed", "superseded"):
                self.write(error(reason))
            outbox, self._outbox = self._outbox, None  # nothing of it again once the other end reads
            for line in outbox or ():  # of answers no more than the rest of one that has begun
                self._transport.write(line)
            self._hang_up(self._transport)

    def _end(self) -> None:
        """Close once all that was said is applied, told and answered."""
        if self._has_more() or self._held:
            return
        if self._feeds:
            self._feeds = False
            self._server.tell_actor(lambda actor: actor.feed_ends())
        waits = self._asking or (self._reader.says_hello and self._acked < self._put)
        if self._transport is not None and not self._gone and not waits and not self._outbox:
            self._hang_up(self._transport)
        if self._gone:
            self._server.leave(self, self._account)

    def _hang_up(self, transport: asyncio.Transport) -> None:
        self._gone = True
        transport.close()
        if transport.get_write_buffer_size():
            self._server.later(HANG_UP_SECONDS, transport.abort)
