"""The actor that owns the state: the server half of a store.

One thread takes what lies in the intake and applies it, and answers questions
in between; nothing else ever touches the state, so there is nothing to lock.
Every question is answered after all that lay in the intake when it was reached,
so whoever asks sees what he handed over before.

`StoreActor` is an ordinary pykka actor: `StoreActor.start().proxy()` works. A
`Store` speaks to it through a `Mailbox`, with messages of its own, because some
questions are answered later, and some answers go to an event loop.

Only this module and the mailbox know pykka.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import pykka

from actorstore.account import Account, Listener
from actorstore.answers import (
    Cursor,
    FlushResult,
    GraphData,
    Rejection,
    RunInfo,
    StateSnapshot,
    StoreStats,
    Update,
)
from actorstore.checkpoint import freeze
from actorstore.drafts import Draft, GraphParts, SnapshotDraft
from actorstore.entries import entries
from actorstore.errors import (
    InvalidEventError,
    StoreClosedError,
    StoreFailedError,
)
from actorstore.event import Event
from actorstore.intake import Intake, Item
from actorstore.keeper import Entry, Keeper
from actorstore.producers import Claimant, Producers
from actorstore.reply import NOBODY, Receiver
from actorstore.state import AT_ONCE, BehindError, State
from actorstore.text import clean
from actorstore.unknown import UnknownUnits
from actorstore.waiting import Later, Waiting
from actorstore.wire import SHOWN_CHARS, chunks

logger = logging.getLogger("actorstore")


class Standing(NamedTuple):
    """What a subscriber has seen: of which run, up to which cursor, and whether a producer was connected."""

    run: str | None
    cursor: Cursor
    connected: bool


NOWHERE: Final = Cursor("")
"""The cursor of one who has seen nothing."""


class Origin(NamedTuple):
    """What an actor starts from."""

    state: State
    """The state."""
    accounts: dict[str, Account]
    """The accounts of producers, by their id."""


class Question(NamedTuple):
    """A message: ask this of the actor, in its thread, and hand the answer to the receiver."""

    ask: Callable[[StoreActor], object]
    """May return a `Later`: it is asked again after that change."""
    receiver: Receiver
    in_turn: bool = False
    """Whether it waits for its turn even where the journal cannot be written for now."""


class Order(NamedTuple):
    """A message: do this at once, though what was handed over before may wait for the journal."""

    do: Callable[[StoreActor], None]


class Welcomed(NamedTuple):
    """What a producer that says hello is told, and its account."""

    account: Account
    store: str
    lines: int
    version: int
    rejected: int
    unknown_units: int


class Forget(NamedTuple):
    """A message: nobody waits for this answer any more."""

    receiver: Receiver


class Wake(NamedTuple):
    """A message: events lie in the intake."""


WAKE: Final = Wake()


class CatchUp(NamedTuple):
    """A message: make some more faces of units, for those who wait for them."""


CATCH_UP: Final = CatchUp()

FACES_A_TURN: Final = 1 << 12
"""How many faces of units are made before others have their turn: a millisecond."""


class Board:
    """What the actor leaves where others can see it: the last answers about each run, and its last state."""

    def __init__(self) -> None:
        self.snapshots: dict[str | None, SnapshotDraft] = {}
        self.updates: dict[str | None, Update] = {}  # those that say that nothing has changed
        self.version = 0
        self.last: State | None = None  # what the actor left when it stopped
        self.connected = False  # as it was then
        self.reading = threading.Lock()  # of those who read what it left
        self.watchers: list[Callable[[StoreClosedError], None]] = []  # are told when it stops

    def clear(self) -> None:
        """Take the answers down: something has changed."""
        self.snapshots.clear()
        self.updates.clear()


class StoreActor(pykka.ThreadingActor):
    """Owns the state of all runs of one store.

    Args:
        intake: Where events are handed over; one of its own, where not given.
        board: Where snapshots are left for others; one of its own, where not given.
        origin: What it starts from; nothing, where not given.
        keeper: Makes events durable before they are applied; where there is none, none of them is.

    An actor with a keeper answers through a `Mailbox`: its answers wait for a disk, and a proxy would not.
    """

    use_daemon_thread = True  # a store that nobody closed must not keep the interpreter alive

    def __init__(
        self,
        intake: Intake | None = None,
        board: Board | None = None,
        origin: Origin | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        super().__init__()
        self._intake = intake or Intake()
        self._intake.attach(self._wake)
        origin = origin or Origin(State(secrets.token_hex(8)), {})
        self._state = origin.state
        self._opened_at = origin.state.version
        self._board = board or Board()
        self._board.version = origin.state.version
        self._keeper = keeper
        self._queue: deque[Entry | Question] = (
            deque()
        )  # what waits until it is durable, and who asked behind it
        self._late: list[Question] = []  # who asked while nothing more was taken in
        self._applied = 0  # entries that were
        self._has_news = False  # whether any were since the last checkpoint
        self._is_working = False
        self._has_ended = False
        self._connected = False  # what answers say: one of the next two
        self._is_said_connected = False
        self._feeding = 0  # connections of other processes that have sent events
        self._producers = Producers(origin.accounts)  # those in other processes
        self._faults = 0
        self._unknown = UnknownUnits()
        self._to_tell: list[Account] = []  # whose listeners hear what became of their lines
        self._waiting: Waiting[Question] = Waiting()  # to be asked again after a change
        self._behind: dict[Receiver, Question] = {}  # to be asked again once faces are made
        self._faces_to_make = 0  # before that; none where nobody waits for them
        self._has_caught_up = False  # whether they are made, but for what changed meanwhile
        if keeper is not None:
            keeper.attach(self._wake)

    @staticmethod
    def _create_actor_inbox() -> Any:
        # Unlike Queue, SimpleQueue may be put to from a finalizer that interrupts a put.
        return queue.SimpleQueue()

    # For everybody, through a pykka proxy.

    def handle_event(self, event: Event) -> None:
        """Apply an event; one that is wrong is counted as rejected, and never raises here."""
        try:
            self._intake.put(event)
        except TypeError as error:
            self._reject(error)
        self._work()

    def handle_lines(self, data: bytes) -> None:
        """Apply whole lines; those that are wrong are counted as rejected, and never raise here."""
        try:
            for chunk in chunks(data):
                self._intake.put_chunk(chunk)
                self._work()
        except TypeError as error:
            self._reject(error)

    def snapshot(self, run: str | None = None) -> StateSnapshot:
        """Return a run; see `Store.snapshot`."""
        return self.draft_snapshot(run).finish()

    def graph(self, run: str | None = None) -> GraphData | None:
        """Return the graph of a run; see `Store.graph`."""
        parts = self.graph_parts(run)
        return parts.data() if parts else None

    def runs(self) -> tuple[RunInfo, ...]:
        """Return all runs; see `Store.runs`."""
        self._work()
        return self._state.infos()

    def update(self, run: str | None = None, since: Cursor | None = None) -> Update:
        """Return what changed since the cursor; see `Store.subscribe`."""
        return self.draft(run, since).finish()

    def set_connected(self, connected: bool) -> None:
        """Say whether a producer is connected; whoever feeds from another process is, whatever is said."""
        self._work()
        self._is_said_connected = connected
        self._look_who_is_connected()

    def reset(self, run: str = "") -> None:
        """Set a run back to waiting; see `Store.reset`. A run that is none is counted as rejected."""
        try:
            self.handle_event(Event.orch_reset(run=run))
        except InvalidEventError as error:
            self._reject(error)

    def flush(self) -> FlushResult:
        """Return what became of everything handed over so far; see `Store.flush`."""
        self._work()
        here = self._intake.here
        return FlushResult(here.accepted, here.rejected, here.unknown_units)

    def stats(self) -> StoreStats:
        """Return how the store is doing; see `Store.stats`."""
        self._work()
        intake, state = self._intake, self._state
        return StoreStats(
            state.version,
            state.version - self._opened_at,
            intake.rejected,
            state.unknown_units,
            self._faults,
            intake.pending(),
            intake.last_rejections(),
            journal=None if self._keeper is None else self._keeper.stats(),
            last_unknown=self._unknown.last(),
        )

    # For a server: producers of other processes.

    @property
    def store_id(self) -> str:
        """Id of the store; a store that was made anew has a new one."""
        return self._state.store

    @property
    def version(self) -> int:
        """How many events were accepted."""
        return self._state.version

    def knows(self, run: str) -> bool:
        """Whether there is such a run."""
        return run in self._state.runs

    def hello(self, producer: str | None, claimant: Claimant) -> None:
        """Welcome a connection as a producer, once all that the producer handed over before is durable."""
        self._work()
        self._producers.hello(producer, claimant)
        self._welcome()

    def release(self, account: Account, listener: Listener) -> None:
        """Tell the listener of an account nothing more, unless another one is told by now."""
        self._work()
        self._producers.release(account, listener)

    def bye(self, producer: str) -> None:
        """Forget a producer that is done, once all its lines and its farewell are durable."""
        self._work()
        self._producers.bye(producer)
        self._write_farewells()
        self._welcome()

    def feed_begins(self) -> None:
        """Count a connection that sends events."""
        self._feeding += 1
        self._look_who_is_connected()

    def feed_ends(self) -> None:
        """Count a connection that sent events, and is gone."""
        self._work()
        self._feeding -= 1
        self._look_who_is_connected()

    def _look_who_is_connected(self) -> None:
        connected = self._is_said_connected or self._feeding > 0
        if connected != self._connected:
            self._connected = connected
            self._board.clear()
            self._ask_again(self._waiting.take_followers())

    # For the mailbox: answers that are finished by whoever asked, or given later.

    def graph_parts(self, run: str | None) -> GraphParts | None:
        """Return the parts of a graph, for the caller to put together."""
        self._work()
        return self._state.graph(run)

    def draft_snapshot(self, run: str | None) -> SnapshotDraft:
        """Return a snapshot, for the caller to finish."""
        self._work()
        draft = self._board.snapshots[run] = self._state.draft_snapshot(run, self._connected)
        return draft

    def draft(self, run: str | None, since: Cursor | None) -> Draft:
        """Return an update, for the caller to finish."""
        self._work()
        return self._state.update(run, since, self._connected)

    def copy(self, run: str | None, since: Cursor | None) -> tuple[SnapshotDraft, Cursor] | Update:
        """Return a run and its cursor, or what changed in it since a cursor that fits."""
        self._work()
        copy = self._state.copy(run, since, self._connected)
        if isinstance(copy, Update) and copy.cursor == since:
            self._board.updates[run] = copy
        return copy

    def next_draft(self, seen: Standing) -> object:
        """Return the next update; later, where nothing has changed."""
        if seen.connected == self._connected and not self._state.has_news(seen.run, seen.cursor):
            return Later(seen.run, "news")
        return self._state.update(seen.run, seen.cursor, self._connected)

    def ended(self, run: str | None) -> object:
        """Return the run once it has ended; later, until then."""
        if not self._state.run(run).status.ended:
            return Later(run, "turn")
        return self._state.draft_snapshot(run, self._connected)

    # The loop.

    def on_start(self) -> None:
        """Make the thread known, so that it is not made to wait for itself."""
        self._intake.actor_thread = threading.current_thread()

    def on_receive(self, message: Any) -> None:
        """Handle a message of the mailbox; an error would be a bug, and the end of this actor."""
        try:
            self._receive(message)
        except Exception:
            self._end(StoreFailedError)
            raise
        except BaseException as error:
            self._end(StoreFailedError)
            raise RuntimeError("exits are for threads of their own") from error  # pykka would stop all actors
        failure = None if self._keeper is None else self._keeper.failure
        if failure is not None:
            self._end(lambda: type(failure)(*failure.args))  # one of its own for everybody who raises it
            self.stop()

    def _receive(self, message: Any) -> None:
        match message:
            case Wake():
                self._work()
                if self._keeper is not None and self._keeper.is_full():
                    return  # whoever makes room wakes this
                if not self._intake.rest(is_done=not self._queue):
                    self.actor_ref.tell(WAKE)
            case Order():
                message.do(self)
            case Question() if self._keeper is None:
                self._work()
                self._ask(message)
            case Question():
                self._ask_durably(message)
            case CatchUp():
                self._work()
                self._catch_up()
            case Forget():
                self._forget(message.receiver)
                if self._queue or self._late:  # it may stand there, and wait for something later
                    self._ask_durably(Question(lambda actor: actor._forget(message.receiver), NOBODY))
            case _:
                with suppress(Exception):
                    logger.warning("a store's actor got a message that it does not know: %s", type(message))

    def on_stop(self) -> None:
        """Apply what was handed over, give the last answers, and refuse the rest."""
        self._end(StoreClosedError)

    def on_failure(self, *_: Any) -> None:
        """Refuse everything: the actor has died of an error."""
        self._end(StoreFailedError)

    def _reject(self, error: Exception) -> None:
        self._intake.reject_event(Rejection(clean(str(error), SHOWN_CHARS), ""))

    def _wake(self) -> None:
        with suppress(pykka.ActorDeadError):  # whoever hands over then finds the intake closed
            self.actor_ref.tell(WAKE)

    def _work(self) -> None:
        """Apply what lies in the intake, let a producer in, and ask again what was left open."""
        if self._keeper is not None:
            self._work_durably(self._keeper)
            return
        items, only_events = self._intake.take()
        if items:
            for entry in entries(self._intake, items, only_events=only_events):
                self._apply(entry)
            self._write_farewells()
            self._follow_up()
        self._intake.let_in()

    def _follow_up(self) -> None:
        """Ask again what may have an answer now, tell the listeners, and welcome producers."""
        changed, turned = self._state.take_changed()
        if self._waiting:
            self._ask_again(self._waiting.take(changed, turned, self._state.latest))
        if self._to_tell:
            self._tell()
        self._welcome()

    def _welcome(self) -> None:
        """Welcome the producers whose turn has come; what they sent before was told to others."""
        state = self._state
        for account, claimant in self._producers.welcome():
            counts = account.rejected, account.unknown_units
            claimant.receiver.set(Welcomed(account, self.store_id, account.lines, state.version, *counts))

    def _write_farewells(self) -> None:
        """Have the producers forgotten that have said bye, all of whose lines are taken."""
        for account in self._producers.farewells():
            if self._keeper is not None and account.taken:
                self._append(Entry(account, [], b"", farewell=True))
            else:
                self._producers.forget(account)

    def _tell(self) -> None:
        """Tell listeners what became of the lines of this batch."""
        accounts, self._to_tell = self._to_tell, []
        for account in accounts:
            rejections, account.told = account.told or [], None
            if account.listener is not None:
                account.listener.hear(account.lines, rejections, account.unknown_units)

    def _apply(self, entry: Entry) -> None:
        account = entry.account
        self._state.apply(entry.events)
        self._board.version = self._state.version
        self._board.clear()
        account.accepted += len(entry.events)
        if self._state.unknown:
            self._note_unknown(account)
        if entry.farewell:
            self._producers.forget(account)
        if entry.lines:
            account.lines += entry.lines
            account.rejected += entry.rejected
            if account.listener is not None:
                if account.told is None:
                    account.told = entry.rejections
                    self._to_tell.append(account)
                else:
                    account.told += entry.rejections
            self._producers.settle(account)
        if self._state.faults:
            self._report_faults()

    def _note_unknown(self, account: Account) -> None:
        unknown, self._state.unknown = self._state.unknown, []
        account.unknown_units += len(unknown)
        self._unknown.add(unknown)

    def _report_faults(self) -> None:
        faults, self._state.faults = self._state.faults, []
        self._faults += len(faults)
        with suppress(Exception):
            logger.error(
                "%d events whose rule failed are counted, and their effect may be incomplete; the first: "
                "%r at version %d",
                len(faults),
                faults[0].event,
                faults[0].version,
                exc_info=faults[0].error,
            )

    # With a keeper: what was taken in is applied once it is durable, and who asked behind it waits as long.

    def _work_durably(self, keeper: Keeper) -> None:
        if self._is_working:
            return  # a question of the queue asks for what is being done
        self._is_working = True
        try:
            if not keeper.is_full():
                self._take_in(*self._intake.take())
                self._intake.let_in()
            self._advance(keeper)
        finally:
            self._is_working = False

    def _take_in(self, items: list[Item], only_events: bool) -> None:
        for entry in entries(self._intake, items, only_events=only_events):
            self._append(entry)
        self._write_farewells()
        if self._late:
            late, self._late = self._late, []
            self._queue += late

    def _append(self, entry: Entry) -> None:
        assert self._keeper is not None
        self._keeper.append(entry)
        self._queue.append(entry)
        self._intake.waiting += len(entry.events)

    def _advance(self, keeper: Keeper) -> None:
        """Apply what is durable, and ask those whose turn has come."""
        committed = keeper.committed
        durable = committed.entries - self._applied
        queue = self._queue
        was_applied = False
        while queue:
            first = queue[0]
            if isinstance(first, Question):
                self._ask(queue.popleft())  # type: ignore[arg-type]
                continue
            if not durable:
                break
            queue.popleft()
            self._apply(first)
            self._intake.waiting -= len(first.events)
            self._applied += 1
            durable -= 1
            was_applied = True
        if was_applied:
            self._follow_up()
            self._has_news = True
        if self._has_news and keeper.wants_checkpoint():
            if self._has_caught_up or self._state.behind <= AT_ONCE:
                keeper.checkpoint(committed.place, freeze(self._state), self._producers.counts())
                self._has_news = False
            else:
                self._want_faces()
        if keeper.trouble is not None:
            self._ask_out_of_turn()

    def _ask_durably(self, question: Question) -> None:
        """Ask after all that was handed over before; out of turn where that takes nobody knows how long."""
        self._work()
        if self._intake.items or self._late:
            self._late.append(question)
        else:
            self._queue.append(question)
        self._work()

    def _ask_out_of_turn(self) -> None:
        """Answer who only wants to know from what is durable, while nothing can become so."""
        queue, self._queue = self._queue, deque()
        late, self._late = self._late, []
        for thing in queue:
            if isinstance(thing, Question) and not thing.in_turn:
                self._ask(thing)
            else:
                self._queue.append(thing)
        for question in late:
            if question.in_turn:
                self._late.append(question)
            else:
                self._ask(question)

    def _ask(self, question: Question) -> None:
        state = self._state
        before, state.is_patient = state.is_patient, not self._has_caught_up  # questions ask each other again
        try:
            answer = question.ask(self)
        except BehindError:
            self._behind[question.receiver] = question
            self._want_faces()
        except BaseException as error:
            question.receiver.fail(error)
        else:
            if isinstance(answer, Later):
                self._waiting.add(answer, question.receiver, question)
            else:
                question.receiver.set(answer)
        finally:
            state.is_patient = before

    def _forget(self, receiver: Receiver) -> None:
        self._waiting.forget(receiver)
        if self._behind.pop(receiver, None) is not None:
            receiver.set(None)  # nobody waits for it, but it may hold a place among others

    def _want_faces(self) -> None:
        """Have the faces made that are missing now, a few in each turn; a million at once take 0.3 s."""
        if not self._faces_to_make:
            self._faces_to_make = self._state.behind
            with suppress(pykka.ActorDeadError):  # it is stopping, and asks them in the end
                self.actor_ref.tell(CATCH_UP)

    def _catch_up(self) -> None:
        """Make some faces, and go on with what waits for them when there are no more to make."""
        if not self._faces_to_make:
            return
        self._state.catch_up(FACES_A_TURN)
        self._faces_to_make = max(0, min(self._faces_to_make - FACES_A_TURN, self._state.behind))
        if self._faces_to_make:
            self.actor_ref.tell(CATCH_UP)
            return
        self._has_caught_up = True
        self._ask_those_behind()
        self._work()  # a checkpoint may wait for them, too
        self._has_caught_up = False

    def _ask_those_behind(self) -> None:
        behind, self._behind = self._behind, {}
        for question in behind.values():
            self._ask(question)

    def _ask_again(self, questions: list[Question]) -> None:
        for question in questions:
            self._ask(question)

    def _end(self, error: Callable[[], StoreClosedError]) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._is_working = True  # nothing more is taken in, and what is durable is applied once
        is_orderly = error is StoreClosedError  # one that has failed promises nothing more
        try:
            last = self._intake.close(error)
            if self._keeper is None:
                for entry in entries(self._intake, last[0], only_events=last[1]):
                    self._apply(entry)
            elif is_orderly:
                self._take_in(*last)
                self._keeper.finish()
                self._advance(self._keeper)
                failure = self._keeper.failure
                if failure is not None:
                    is_orderly, error = False, lambda: type(failure)(*failure.args)
                    self._intake.closed = error
            else:
                self._keeper.abandon()
            self._has_caught_up = True  # there will be no more turns
            self._ask_those_behind()
            self._ask_again(self._waiting.take_all())
            if is_orderly:
                self._tell()
        finally:
            self._board.last, self._board.connected = self._state, self._connected
            left = [thing for thing in (*self._queue, *self._late) if isinstance(thing, Question)]
            for receiver in (*self._waiting, *self._behind, *[question.receiver for question in left]):
                receiver.fail(error())
            self._waiting, self._behind = Waiting(), {}
            self._queue.clear()
            for hear in self._board.watchers:
                hear(error())
