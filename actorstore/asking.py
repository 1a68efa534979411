"""The questions of one connection: put to the actor a few at a time, and answered as the other end reads.

Whoever asks much and reads little keeps little here: a question that has its
turn has a place, and keeps it until its answer is written; the others are not
asked yet. One large answer at a time is made into bytes, once the one before
has been read. What the actor, or a thread, does for a connection that is gone is
dropped, or not done.

A question that waits for something (`next`, `wait`) has no place meanwhile.
When it has happened and there is no place, it is asked again in its turn.

Everything here runs in the event loop of the server, but for `take_place` and
`give_back`, which the actor calls, too.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from actorstore.answers import StoreStats, Update
from actorstore.errors import NoJournalError, StoreClosedError
from actorstore.protocol import Ask, Refusal, answer, refusal
from actorstore.questions import KINDS, TURN_COMES, Asked, refused, takes_long
from actorstore.text import clean

if TYPE_CHECKING:
    from actorstore.connection import Connection
    from actorstore.server import Server

MAX_OPEN_QUESTIONS: Final = 1024
"""How many questions of one connection may be open."""

PLACES: Final = 16
"""How many of them are put to the actor, or have an answer that is not written yet."""


class Asking:
    """The questions of one connection.

    Args:
        connection: Who asks.
        server: Its server.
    """

    __slots__ = (
        "_connection",
        "_is_making",
        "_large",
        "_looks_back",
        "_made",
        "_open",
        "_past",
        "_places",
        "_ready",
        "_server",
        "_small",
    )

    def __init__(self, connection: Connection, server: Server) -> None:
        self._connection = connection
        self._server = server
        self._open: dict[int, Asked] = {}
        self._places: deque[None] = deque([None] * PLACES)  # the free ones
        self._ready: deque[Asked] = deque()  # wait for a place
        self._past: deque[Asked] = deque()  # of the past, which wait for the one before
        self._looks_back: Asked | None = None  # the one of them whose turn it is
        self._small: deque[tuple[Asked, object]] = deque()  # answers that are not written yet
        self._large: deque[tuple[Asked, object]] = deque()  # those that take long to be made into bytes
        self._is_making = False  # whether one of these is being made
        self._made: tuple[Asked, list[bytes]] | None = None  # and waits until the other end reads

    def __bool__(self) -> bool:
        return bool(self._open)

    # What is asked.

    def ask(self, ask: Ask) -> None:
        """Ask a question, or say at once why not."""
        if ask.what == "forget":
            self._forget(ask.id)
            return
        if (reason := self._why_not(ask)) is not None:
            self._connection.write(refusal(ask.id, reason))
            return
        if (kept := self._kept(ask)) is not None:
            self._connection.write(answer(ask.id, KINDS["snapshot"].encode(kept)))
            return
        asked = self._open[ask.id] = Asked(self, self._server, ask)
        if ask.at is not None:
            self._past.append(asked)
        elif KINDS[ask.what].waits:
            self._send(asked)
            return
        else:
            self._ready.append(asked)
        self.go_on()

    def _why_not(self, ask: Ask) -> Refusal | None:
        if ask.what not in KINDS:
            what = clean(ask.what, 80)
            return Refusal("unknown_question", f"{what!r}: the store knows {', '.join(KINDS)}")
        if ask.id in self._open:
            return Refusal("duplicate_id", f"question {ask.id} is open already")
        if len(self._open) >= MAX_OPEN_QUESTIONS:
            text = f"{MAX_OPEN_QUESTIONS} questions are open on this connection"
            return Refusal("too_many_questions", text)
        if ask.at is not None and ask.what != "snapshot":
            return Refusal("unknown_question", f"{ask.what}: only a snapshot has an `at`")
        if ask.at is not None and self._server.past is None:
            return refused(NoJournalError())
        return None

    def _kept(self, ask: Ask) -> Update | None:
        """Return the answer that still holds from the last time, where it is known without the actor."""
        if ask.what != "snapshot" or not ask.since or ask.at is not None or self._ready:
            return None
        if any(asked.question.what == "connected" for asked in self._open.values()):
            return None
        return self._server.mailbox.kept_update(ask.run, ask.since)

    def _forget(self, number: int) -> None:
        asked = self._open.pop(number, None)
        if asked is not None:
            asked.is_open = False
            self._server.mailbox.forget(asked)

    def close(self) -> None:
        """Forget all questions: the connection is gone."""
        for number in list(self._open):
            self._forget(number)
        for waiting in (self._ready, self._past, self._small, self._large):
            waiting.clear()
        self._made = None

    # Places.

    def take_place(self, asked: Asked) -> bool:
        """Give a question a place, where there is one."""
        if not asked.has_place:
            try:
                self._places.pop()
            except IndexError:
                return False
            asked.has_place = True
        return True

    def give_back(self, asked: Asked) -> None:
        """Take the place of a question back, for those that wait for one."""
        if asked.has_place:
            asked.has_place = False
            self._places.append(None)
            if self._ready:
                self._server.post(self.go_on)

    # What is answered.

    def answered(self, asked: Asked, value: object) -> None:
        """Take the answer to a question, or note that it is to be asked in its turn."""
        if not asked.is_open:
            self._is_over(asked)
        elif value is TURN_COMES:
            self._ready.append(asked)
        elif takes_long(value):
            self._large.append((asked, value))
        else:
            self._small.append((asked, value))
        self.go_on()

    def refuse(self, asked: Asked, reason: BaseException) -> None:
        """Say why a question has no answer."""
        self._end(asked, reason)
        self.go_on()

    def _end(self, asked: Asked, reason: BaseException) -> None:
        if asked.is_open:
            self._connection.write(refusal(asked.question.id, refused(reason)))
        self._is_over(asked)

    def go_on(self) -> None:
        """Ask and answer what may be, while the other end reads."""
        connection = self._connection
        while self._small and not connection.is_choked:
            asked, value = self._small.popleft()
            if asked.is_open:
                if isinstance(value, StoreStats):
                    value = self._server.add_to(value)
                connection.write(asked.encode(value))
            self._is_over(asked)
        if self._made is not None and not connection.is_choked:
            (asked, pieces), self._made = self._made, None
            self._is_making = False
            if asked.is_open:
                connection.write_pieces(pieces)
            self._is_over(asked)
        while self._large and not self._is_making and not connection.is_choked:
            self._make(*self._large.popleft())
        while self._ready and not connection.is_choked and self._has_turn(self._ready[0]):
            asked = self._ready.popleft()
            if asked.is_open:
                self._send(asked)
        while self._past and self._looks_back is None and not connection.is_choked:
            self._look_back(self._past.popleft())
        connection.has_answered()

    def _has_turn(self, asked: Asked) -> bool:
        return not asked.is_open or self.take_place(asked)

    def _send(self, asked: Asked) -> None:
        try:
            self._server.mailbox.send(asked.ask, asked)
        except StoreClosedError as error:
            self._end(asked, error)

    def _look_back(self, asked: Asked) -> None:
        past = self._server.past
        if asked.is_open and past is not None:
            self._looks_back = asked
            try:
                self._server.look_back(asked, past)
            except StoreClosedError as error:
                self._end(asked, error)

    def _make(self, asked: Asked, value: object) -> None:
        """Make an answer into bytes, in another thread."""
        if not asked.is_open:
            self._is_over(asked)
            return

        def take(pieces: list[bytes]) -> None:
            self._made = asked, pieces
            self.go_on()

        self._is_making = True
        self._server.encode(self._connection, lambda: asked.encode_slowly(value), take)

    def _is_over(self, asked: Asked) -> None:
        """Let go of a question that is answered, or that nobody waits for any more."""
        if self._open.get(asked.question.id) is asked:
            del self._open[asked.question.id]
        asked.is_open = False
        if self._looks_back is asked:
            self._looks_back = None
        self.give_back(asked)
