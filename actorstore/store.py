"""What people hold: the state of their runs, in this process.

The client half of the store, one short method a question. How events reach the
actor is in `actorstore.intake`, how it answers in `actorstore.actor`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from actorstore.actor import NOWHERE, Standing, StoreActor
from actorstore.address import Address
from actorstore.answers import Cursor, FlushResult, GraphData, RunInfo, StateSnapshot, StoreStats, Update
from actorstore.drafts import Draft, SnapshotDraft
from actorstore.errors import ForkedStoreError, NoJournalError, StoreClosedError, StoreFailedError
from actorstore.event import ABSENT, Event
from actorstore.handover import MAX_ITEMS
from actorstore.intake import Intake
from actorstore.remote import RemoteStore
from actorstore.reply import ANSWER_SECONDS
from actorstore.reporting import Reporter
from actorstore.service import Service
from actorstore.wire import MAX_LINE_BYTES, chunks

if TYPE_CHECKING:
    from actorstore.aio import AsyncStore
    from actorstore.past import Past

P = ParamSpec("P")
T = TypeVar("T")


def _also_elsewhere(method: Callable[Concatenate[Store, P], T]) -> Callable[Concatenate[Store, P], T]:
    """Have a method of a store that listens go on in forked children, over its socket."""

    @wraps(method)
    def call(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except ForkedStoreError:
            found: T = getattr(self._elsewhere(), method.__name__)(*args, **kwargs)
            return found

    return call


class Store(Reporter):
    """The live state of orchestration runs, held by one actor in this process.

    Safe to use from any thread. Producers hand events over and go on; everybody
    else gets immutable copies. Close it, or use it in a `with` statement:
    closing applies all that was handed over.

    Args:
        listen: Path of a Unix socket, so that other processes may `connect`; a
            missing directory is made, for this user alone.
        journal: Path of a file that keeps every accepted event; made where it is
            not there. The store goes on from what it holds.
        durability: What a loss of power may lose: `lose-nothing`, `lose-a-second`
            or `lose-unwritten`. Where a process is killed, nothing acked is lost
            with any of them.
        max_line_bytes: Longest line that is taken, in bytes.

    Raises:
        SocketInUseError: Another store listens there; it is left alone.
        AddressError: Nothing can listen there.
        JournalInUseError: Another store has the journal open; it is left alone.
        JournalDamagedError: The journal does not hold what was written into it.
        JournalError: The journal cannot be opened, or is none.

    One that listens pickles to a `RemoteStore`, and goes on as one in forked
    children, so it can be handed to processes and pools like any argument.

    Every method raises `StoreClosedError` once the store is closed,
    `StoreFailedError` once its actor has died, `ForkedStoreError` in a forked
    child, and `ActorThreadError` where the actor would have to wait for itself.
    """

    def __init__(
        self,
        *,
        listen: Address | None = None,
        journal: Address | None = None,
        durability: str = "lose-nothing",
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self._intake = Intake(max_line_bytes, keeps_lines=journal is not None)
        self._remote: RemoteStore | None = None  # the way to it, in a forked child
        self._remote_made = threading.Lock()  # taken in forked children only
        self._service = Service(self._intake, listen, journal, durability)
        self._forgotten = weakref.finalize(self, self._service.let_go)
        self._forgotten.atexit = False  # it sees to that
        try:
            self._service.open()
            self._mailbox = self._service.mailbox
            self._past, self._writer = self._service.past, self._service.writer
            self._server = self._service.server
        except BaseException:
            self._service.close()  # whatever has come in between
            raise

    @property
    def address(self) -> str | None:
        """Path of the socket, where the store listens."""
        return self._server.address if self._server else None

    # Producers.

    def handle_event(self, event: Event) -> None:
        """Hand one event over; waits only while intake is full.

        The event is applied in its turn: in the order of this thread, and in the
        order of arrival between threads. One whose payload does not fit is
        counted as rejected, logged, and listed in `stats()`.

        Raises:
            TypeError: It is not an `Event`.
        """
        intake = self._intake
        try:
            if type(event) is Event and event.payload is ABSENT and not event.error:
                items = intake.items
                items.append(event)
                if (intake.asleep or len(items) >= MAX_ITEMS) and intake.turn(event):
                    intake.wait_for_room()
            elif intake.put(event):
                intake.wait_for_room()
        except ForkedStoreError:
            self._elsewhere().handle_event(event)

    @_also_elsewhere
    def handle_lines(self, data: bytes) -> None:
        """Hand whole NDJSON lines over, the last LF being optional; waits only while intake is full.

        A line that is wrong is counted as rejected, logged, and listed in
        `stats()`; the good lines around it are applied. Nothing is kept between
        calls. Where the store is closed meanwhile, the lines before are applied.

        Raises:
            TypeError: It is not bytes.
            StoreClosedError: It is closed; `handed` says how many lines are applied.
        """
        self._intake.check_open()
        done = 0
        try:
            for chunk in chunks(data):
                if self._intake.put_chunk(chunk):
                    self._intake.wait_for_room()
                done += len(chunk)
        except StoreClosedError as error:
            error.handed = data.count(b"\n", 0, done)
            raise

    @_also_elsewhere
    def set_connected(self, connected: bool) -> None:
        """Say whether a producer is connected; it is added to every answer."""
        self._mailbox.ask(lambda actor: actor.set_connected(connected), ANSWER_SECONDS)

    @_also_elsewhere
    def flush(self, timeout: float | None = None) -> FlushResult:
        """Wait until all that was handed over to this store is applied, and say what became of it.

        The caller is whoever holds the store: all its threads are counted as one.

        Args:
            timeout: Seconds to wait; `None` waits as long as it takes.

        Raises:
            StoreTimeoutError: The actor was too busy; nothing is lost.
        """
        return self._mailbox.ask(lambda actor: actor.flush(), timeout, in_turn=True)

    # Everybody else.

    @_also_elsewhere
    def snapshot(
        self, run: str | None = None, *, at: int | None = None, timeout: float = ANSWER_SECONDS
    ) -> StateSnapshot:
        """Return the run as it stands between two events, or as it stood at a version.

        The copy is immutable and shares nothing that can change: keep it as long
        as you like, hand it to any thread. It holds every event that this caller
        handed over before.

        Args:
            run: Id of the run; `None` for the one that started last.
            at: A version of the past, folded from the journal in this thread; its
                `connected` is false.
            timeout: Seconds to wait for the actor's answer.

        Raises:
            UnknownRunError: No `orch.*` event has created the run.
            StoreTimeoutError: The actor was too busy; asking again is safe.
            VersionGoneError: The journal does not hold that version.
            NoJournalError: A version was asked for, and the store has no journal.
            ValueError: `at` has more than 53 bits.
        """
        if at is not None:
            past = self._look_back()
            self._mailbox.ask(lambda actor: actor.version, timeout)  # after all that this caller handed over
            return past.snapshot(run, at, timeout)
        kept = self._mailbox.kept(run)
        if kept is not None:
            return kept
        return self._mailbox.ask(lambda actor: actor.draft_snapshot(run), timeout).finish()

    @_also_elsewhere
    def graph(self, run: str | None = None, *, timeout: float = ANSWER_SECONDS) -> GraphData | None:
        """Return the dependency graph of the run, or `None` where none has arrived.

        Args and errors are those of `snapshot`.
        """
        parts = self._mailbox.ask(lambda actor: actor.graph_parts(run), timeout)
        return parts.data() if parts else None

    @_also_elsewhere
    def runs(self, *, timeout: float = ANSWER_SECONDS) -> tuple[RunInfo, ...]:
        """Return all runs, in the order in which they were created."""
        return self._mailbox.ask(lambda actor: actor.runs(), timeout)

    @_also_elsewhere
    def subscribe(self, run: str | None = None, *, since: Cursor | None = None) -> Iterator[Update]:
        """Follow a run: first all of it, or what changed since the cursor; then what changes, as it does.

        There is no queue behind this. Whoever is slow gets the changes merged,
        never a hole, and costs no memory. `None` follows the run that started
        last, also when another one starts. Ends when the store is closed, after
        the last change.

        Args:
            run: Id of the run; `None` for the one that started last.
            since: The cursor of an update seen before. One that does not fit,
                because it is another store's or the run was made anew, is
                answered with the whole run.

        Raises:
            UnknownRunError: No `orch.*` event has created the run.
            StoreFailedError: The actor died while this followed.
        """
        self._mailbox.ask(lambda actor: actor.draft(run, since), ANSWER_SECONDS)
        return self._updates(run, since)

    def _updates(self, run: str | None, since: Cursor | None) -> Iterator[Update]:
        seen = Standing(run, since or NOWHERE, connected=False)
        question: Callable[[StoreActor], object] = partial(StoreActor.draft, run=run, since=since)
        while True:
            try:
                draft = cast(Draft, self._mailbox.ask(question, None))
            except ForkedStoreError:
                yield from self._elsewhere()._follow(run, seen.cursor, seen.connected)
                return
            except StoreFailedError:
                raise
            except StoreClosedError:
                last = self._mailbox.last_draft(seen)
                if last is None:
                    return
                draft = last
            update = draft.finish()
            yield update
            seen = Standing(run, update.cursor, update.connected)
            question = partial(StoreActor.next_draft, seen=seen)

    @_also_elsewhere
    def wait(self, run: str | None = None, *, timeout: float | None = None) -> StateSnapshot:
        """Wait until the run has ended, and return it.

        It looks after each batch of events: a run that ends and starts anew
        within one has not ended.

        Args:
            run: Id of the run; `None` for the one that started last, also if
                another one starts meanwhile.
            timeout: Seconds to wait; `None` waits as long as it takes.

        Raises:
            UnknownRunError: No `orch.*` event has created the run.
            StoreTimeoutError: The run has not ended in time.
        """
        return cast(SnapshotDraft, self._mailbox.ask(lambda actor: actor.ended(run), timeout)).finish()

    @_also_elsewhere
    def stats(self) -> StoreStats:
        """Return how the store is doing: its version, what was refused, and why."""
        return self._add_to(self._mailbox.ask(lambda actor: actor.stats(), ANSWER_SECONDS))

    def _add_to(self, stats: StoreStats) -> StoreStats:
        return self._server.add_to(stats) if self._server else stats

    def _look_back(self) -> Past:
        self._intake.check_open()
        if self._past is None:
            raise NoJournalError
        return self._past

    def compact(self, *, keep: int) -> int:
        """Cut off the past but for the last versions; returns the oldest version that can still be asked for.

        The cut is made behind a checkpoint, so more may stay than was asked for.
        The state stays, and so do the counts of producers, for good. The room is
        used again by what comes; `actorstore journal compact` gives it back.

        Args:
            keep: How many versions stay, at least.

        Raises:
            NoJournalError: The store has no journal.
            JournalFullError: There is no room to write down what is cut off; nothing is lost.
        """
        self._intake.check_open()
        if self._writer is None:
            raise NoJournalError
        if keep < 0:
            raise ValueError(f"keep is how many versions stay; {keep} cannot")
        return self._writer.compact(keep)

    # The end.

    def close(self, timeout: float | None = None) -> None:
        """Apply all that was handed over, and stop; closing again does nothing.

        Args:
            timeout: Seconds to wait; `None` waits as long as it takes.

        Raises:
            StoreTimeoutError: Not everything is applied yet; the store goes on closing.
        """
        self._intake.check_thread()
        if self._intake.forked:
            if self._remote is not None:
                self._remote.close(timeout)
            return
        self._service.close(timeout)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._server is None:
            raise TypeError(
                "this Store cannot be pickled: it lives in the process that made it, and has no listen= "
                "address. Make it with Store(listen=PATH), and it can be handed to other processes"
            )
        return RemoteStore, (self._server.address,)

    def _elsewhere(self) -> RemoteStore:
        """Return the way to this store from a forked child.

        Raises:
            ForkedStoreError: There is none, because the store does not listen.
        """
        if self._server is None:
            raise ForkedStoreError(self._intake.owner)
        if self._intake.closed:
            raise StoreClosedError
        with self._remote_made:
            if self._remote is None:
                self._remote = RemoteStore(self._server.address)
            return self._remote

    def __repr__(self) -> str:
        closed = self._intake.closed or self._intake.forked
        where = f" at {self.address}" if self.address else ""
        return f"<Store in process {self._intake.owner}{where}{', closed' if closed else ''}>"

    @property
    def aio(self) -> AsyncStore:
        """The same methods, awaitable; none of them blocks the event loop."""
        from actorstore.aio import AsyncStore  # importing asyncio costs 30 ms, so who needs it pays

        return AsyncStore(
            self._intake,
            self._mailbox,
            self.close,
            lambda: self._elsewhere().aio,
            self._look_back,
            self._add_to,
        )
