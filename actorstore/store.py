"""What people hold: the state of their runs, in this process.

The client half of the store, one short method a question. How events reach the
actor is in `actorstore.intake`, how it answers in `actorstore.actor`.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Never, cast

from actorstore.actor import NOWHERE, Standing, StoreActor
from actorstore.answers import Cursor, FlushResult, GraphData, RunInfo, StateSnapshot, StoreStats, Update
from actorstore.errors import StoreClosedError, StoreFailedError, noted
from actorstore.event import ABSENT, Event
from actorstore.intake import MAX_EVENTS, Intake
from actorstore.mailbox import ANSWER_SECONDS, Mailbox
from actorstore.run import Draft
from actorstore.wire import MAX_LINE_BYTES, chunks

if TYPE_CHECKING:
    from actorstore.aio import AsyncStore


class Store:
    """The live state of orchestration runs, held by one actor in this process.

    Safe to use from any thread. Producers hand events over and go on; everybody
    else gets immutable copies. Close it, or use it in a `with` statement:
    closing applies all that was handed over.

    Args:
        max_line_bytes: Longest line that is taken, in bytes.

    Every method raises `StoreClosedError` once the store is closed,
    `StoreFailedError` once its actor has died, `ForkedStoreError` in a forked
    child, and `ActorThreadError` where the actor would have to wait for itself.
    """

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._intake = Intake(max_line_bytes)
        self._mailbox = Mailbox(self._intake)
        self._forgotten = weakref.finalize(self, _close_forgotten, self._mailbox, self._intake)

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
        if type(event) is Event and event.payload is ABSENT and not event.error:
            items = intake.items
            items.append(event)
            if (intake.asleep or len(items) >= MAX_EVENTS) and intake.turn(event):
                intake.wait_for_room()
        elif intake.put(event):
            intake.wait_for_room()

    def handle_lines(self, data: bytes) -> None:
        """Hand whole NDJSON lines over, the last LF being optional; waits only while intake is full.

        A line that is wrong is counted as rejected, logged, and listed in
        `stats()`; the good lines around it are applied. Nothing is kept between
        calls. Where the store is closed meanwhile, the lines before are applied.

        Raises:
            TypeError: It is not bytes.
        """
        self._intake.check_open()
        for chunk in chunks(data):
            if self._intake.put_chunk(chunk):
                self._intake.wait_for_room()

    @contextmanager
    def unit(self, id: str, *, run: str = "") -> Iterator[None]:
        """Report a unit around a block: started; then completed, or failed, and the error goes on."""
        self.handle_event(Event.unit_started(id, run=run))
        try:
            yield
        except BaseException as error:
            with noted(error):
                self.handle_event(Event.unit_failed(id, error, run=run))
            raise
        self.handle_event(Event.unit_completed(id, run=run))

    def set_connected(self, connected: bool) -> None:
        """Say whether a producer is connected; it is added to every answer."""
        self._mailbox.ask(lambda actor: actor.set_connected(connected), ANSWER_SECONDS)

    def reset(self, run: str = "") -> None:
        """Hand over `orch.reset`: the run goes back to waiting, with no units and no graph."""
        self.handle_event(Event.orch_reset(run=run))

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Wait until all that was handed over to this store is applied, and say what became of it.

        The caller is whoever holds the store: all its threads are counted as one.

        Args:
            timeout: Seconds to wait; `None` waits as long as it takes.

        Raises:
            StoreTimeoutError: The actor was too busy; nothing is lost.
        """
        return self._mailbox.ask(lambda actor: actor.flush(), timeout)

    # Everybody else.

    def snapshot(self, run: str | None = None, *, timeout: float = ANSWER_SECONDS) -> StateSnapshot:
        """Return the run as it stands between two events.

        The copy is immutable and shares nothing that can change: keep it as long
        as you like, hand it to any thread. It holds every event that this caller
        handed over before.

        Args:
            run: Id of the run; `None` for the one that started last.
            timeout: Seconds to wait for the actor's answer.

        Raises:
            UnknownRunError: No `orch.*` event has created the run.
            StoreTimeoutError: The actor was too busy; asking again is safe.
        """
        kept = self._mailbox.kept(run)
        if kept is not None:
            return kept
        return self._mailbox.ask(lambda actor: actor.snapshot(run), timeout)

    def graph(self, run: str | None = None, *, timeout: float = ANSWER_SECONDS) -> GraphData | None:
        """Return the dependency graph of the run, or `None` where none has arrived.

        Args and errors are those of `snapshot`.
        """
        parts = self._mailbox.ask(lambda actor: actor.graph_parts(run), timeout)
        return parts.data() if parts else None

    def runs(self, *, timeout: float = ANSWER_SECONDS) -> tuple[RunInfo, ...]:
        """Return all runs, in the order in which they were created."""
        return self._mailbox.ask(lambda actor: actor.runs(), timeout)

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
        return cast(StateSnapshot, self._mailbox.ask(lambda actor: actor.ended(run), timeout))

    def stats(self) -> StoreStats:
        """Return how the store is doing: its version, what was refused, and why."""
        return self._mailbox.ask(lambda actor: actor.stats(), ANSWER_SECONDS)

    # The end.

    def close(self, timeout: float | None = None) -> None:
        """Apply all that was handed over, and stop; closing again does nothing.

        Args:
            timeout: Seconds to wait; `None` waits as long as it takes.

        Raises:
            StoreTimeoutError: Not everything is applied yet; the store goes on closing.
        """
        self._intake.check_thread()
        self._forgotten.detach()
        if not self._intake.forked:
            self._mailbox.join(timeout)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Never:
        raise TypeError(
            "a Store cannot be pickled: it lives in the process that made it. Return what happened there "
            "and hand it over here"
        )

    def __repr__(self) -> str:
        closed = self._intake.closed or self._intake.forked
        return f"<Store in process {self._intake.owner}{', closed' if closed else ''}>"

    @property
    def aio(self) -> AsyncStore:
        """The same methods, awaitable; none of them blocks the event loop."""
        from actorstore.aio import AsyncStore  # importing asyncio costs 30 ms, so who needs it pays

        return AsyncStore(self._intake, self._mailbox, self.close)


def _close_forgotten(mailbox: Mailbox, intake: Intake) -> None:
    """Close a store that its owner forgot: when it is collected, or when the interpreter exits."""
    if intake.forked or not mailbox.is_alive():
        return
    mailbox.stop()
    warnings.warn(
        "a Store was not closed; use `with Store() as store:` or call close()", ResourceWarning, stacklevel=2
    )
