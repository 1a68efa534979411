"""The way to a running actor: questions go out, answers come back, pykka's errors become ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar, cast

import pykka

from actorstore.actor import Board, Forget, Order, Origin, Question, Standing, StoreActor
from actorstore.answers import StateSnapshot, Update
from actorstore.drafts import Draft
from actorstore.errors import StoreClosedError, StoreTimeoutError
from actorstore.intake import Intake
from actorstore.keeper import Keeper
from actorstore.reply import Receiver, Reply
from actorstore.shelter import Latch

T = TypeVar("T")

POLL_SECONDS: Final = 0.5
"""How often one who waits looks whether the actor is still alive."""


class Mailbox:
    """The way to a running actor: what goes wrong there comes back as an error of ours.

    Args:
        intake: Where the actor takes its events from.
        origin: What the actor starts from.
        keeper: Makes its events durable.
    """

    def __init__(self, intake: Intake, origin: Origin | None = None, keeper: Keeper | None = None) -> None:
        self._intake = intake
        self._keeper = keeper
        self._board = Board()
        self.ended = ended = Latch()  # once the actor has given its last answer
        self._board.watchers.append(lambda _: ended.set())
        self._ref = StoreActor.start(intake, self._board, origin, keeper)

    def ask(self, question: Callable[[StoreActor], T], timeout: float | None, *, in_turn: bool = False) -> T:
        """Ask the actor, and wait for the answer.

        Args:
            question: Called with the actor, in its thread; may return a `Later`.
            timeout: Seconds to wait; `None` waits until the store is closed.
            in_turn: Whether it waits for its turn even where the journal cannot be written for now.

        Raises:
            StoreTimeoutError: The answer did not come in time.
            StoreClosedError: The store is closed, or was while this waited.
        """
        self._intake.check_open()
        self._intake.check_thread()
        reply = Reply()
        self.send(question, reply, in_turn=in_turn)
        try:
            self._await(reply, timeout)
        except BaseException:
            self.forget(reply)
            raise
        return cast(T, reply.result())

    def _await(self, reply: Reply, timeout: float | None) -> None:
        until = None if timeout is None else time.monotonic() + timeout
        while not reply.wait(POLL_SECONDS if until is None else self._slice(until)):
            if self.has_ended() and not reply.wait(0):
                raise self.closed_error()
            if until is not None and time.monotonic() >= until:
                raise self.timeout_error(timeout)

    def timeout_error(self, timeout: float | None) -> StoreTimeoutError:
        """Return the error of one who has waited so long."""
        trouble = None if self._keeper is None else self._keeper.trouble
        return StoreTimeoutError(timeout or 0, self._intake.pending(), trouble)

    def kept(self, run: str | None) -> StateSnapshot | None:
        """Return the last snapshot of a run where it still holds, without waking the actor.

        While intake is idle, all that this caller handed over is applied; and
        where the version has not moved since the snapshot was made, nothing has
        changed. So whoever looks at an idle store disturbs nobody.

        Raises:
            StoreClosedError: The store is closed.
        """
        if not self._intake.idle:
            return None
        kept = self._board.snapshots.get(run)
        if kept is None or kept.version != self._board.version:
            return None
        self._intake.check_open()
        self._intake.check_thread()
        return kept.finish()

    def kept_update(self, run: str | None, since: str) -> Update | None:
        """Return the update that says that nothing has changed since a cursor, where that still holds.

        As with `kept`, nobody is disturbed.
        """
        if not self._intake.idle:
            return None
        kept = self._board.updates.get(run)
        if kept is None or kept.version != self._board.version or kept.cursor != since:
            return None
        return kept

    def last_draft(self, seen: Standing) -> Draft | None:
        """Return what a subscriber of a store that was closed has not seen yet, if anything."""
        self._wait_for_end()  # it may still be applying its last events
        board = self._board
        if board.last is None:
            return None
        with board.reading:
            if board.connected == seen.connected and not board.last.has_news(seen.run, seen.cursor):
                return None
            return board.last.update(seen.run, seen.cursor, board.connected)

    def send(
        self, question: Callable[[StoreActor], object], receiver: Receiver, *, in_turn: bool = False
    ) -> None:
        """Ask the actor, and have the answer sent to the receiver.

        Raises:
            StoreClosedError: The actor takes no questions any more.
        """
        try:
            self._ref.tell(Question(question, receiver, in_turn))
        except pykka.ActorDeadError:
            raise self.closed_error() from None

    def order(self, do: Callable[[StoreActor], None]) -> None:
        """Have the actor do something at once, in the order of these calls; nothing comes back.

        Raises:
            StoreClosedError: The actor takes nothing any more.
        """
        try:
            self._ref.tell(Order(do))
        except pykka.ActorDeadError:
            raise self.closed_error() from None

    def watch(self, hear: Callable[[StoreClosedError], None]) -> None:
        """Have somebody told, in the actor's thread, when it ends: what its callers hear from then on."""
        self._board.watchers.append(hear)

    def forget(self, receiver: Receiver) -> None:
        """Tell the actor that nobody waits for this answer any more."""
        with suppress(pykka.ActorDeadError):
            self._ref.tell(Forget(receiver))

    def undurable(self) -> int:
        """Count the events that are not in the journal yet; a line counts as one before it is looked at."""
        if self._keeper is None:
            return 0
        return self._board.version + self._intake.pending() - self._keeper.committed.place.version

    def has_ended(self) -> bool:
        """Whether the actor has given its last answer."""
        return self.ended.is_set

    def is_alive(self) -> bool:
        """Whether the actor still takes messages."""
        return self._ref.is_alive()

    def closed_error(self) -> StoreClosedError:
        """Return the error that says why nothing is taken any more."""
        return (self._intake.closed or StoreClosedError)()

    def stop(self) -> None:
        """Have the actor apply what was handed over and stop; does not wait."""
        self._ref.stop(block=False)

    def join(self, timeout: float | None) -> None:
        """Have the actor stop, and wait until it has.

        Raises:
            StoreTimeoutError: It is still at work.
        """
        self._intake.check_thread()
        until = None if timeout is None else time.monotonic() + timeout
        self.stop()
        if not self._wait_for_end(until):
            raise self.timeout_error(timeout)

    def _wait_for_end(self, until: float | None = None) -> bool:
        """Wait until the actor has given its last answer, and its thread has ended, or it is so late."""
        if not self.ended.wait(None if until is None else until - time.monotonic()):
            return False
        thread = self._intake.actor_thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return True

    @staticmethod
    def _slice(until: float) -> float:
        return max(0.0, min(POLL_SECONDS, until - time.monotonic()))
