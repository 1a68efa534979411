"""The store for asyncio: the same names, awaitable, and never a blocked event loop.

The actor answers an event loop as it answers a thread; only the receiver
differs. Importing this imports asyncio, so `Store.aio` imports it late.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from actorstore.actor import NOWHERE, Standing, StoreActor
from actorstore.answers import Cursor, FlushResult, GraphData, RunInfo, StateSnapshot, StoreStats, Update
from actorstore.drafts import Draft, SnapshotDraft
from actorstore.errors import ForkedStoreError, StoreClosedError, StoreFailedError
from actorstore.event import Event
from actorstore.intake import Intake
from actorstore.loop import LoopReply
from actorstore.mailbox import POLL_SECONDS, Mailbox
from actorstore.reply import ANSWER_SECONDS
from actorstore.reporting import AsyncReporter
from actorstore.wire import CHUNK_BYTES, chunks

if TYPE_CHECKING:
    from actorstore.past import Past
    from actorstore.remote_aio import AsyncRemoteStore

P = ParamSpec("P")
T = TypeVar("T")


def _also_elsewhere(
    method: Callable[Concatenate[AsyncStore, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[AsyncStore, P], Coroutine[Any, Any, T]]:
    """Have a method of a store that listens go on in forked children, over its socket."""

    @wraps(method)
    async def call(self: AsyncStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(self, *args, **kwargs)
        except ForkedStoreError:
            found: T = await getattr(self._elsewhere(), method.__name__)(*args, **kwargs)
            return found

    return call


class AsyncStore(AsyncReporter):
    """A `Store` for coroutines: each method does what the one of its name in `Store` does.

    Got from `Store.aio`; the store itself opens and closes as ever.
    """

    def __init__(
        self,
        intake: Intake,
        mailbox: Mailbox,
        close: Callable[[float | None], None],
        elsewhere: Callable[[], AsyncRemoteStore],
        look_back: Callable[[], Past],
        add_to: Callable[[StoreStats], StoreStats],
    ) -> None:
        self._intake = intake
        self._mailbox = mailbox
        self._close = close
        self._elsewhere = elsewhere  # the way to the store, from a forked child
        self._look_back = look_back
        self._add_to = add_to  # what the server knows, where there is one

    @_also_elsewhere
    async def handle_event(self, event: Event) -> None:
        """Hand one event over; awaits only while intake is full."""
        await self._hand_over(self._intake.put, event, len(getattr(event, "payload", b"")))

    @_also_elsewhere
    async def handle_lines(self, data: bytes) -> None:
        """Hand whole NDJSON lines over; awaits while intake is full, and lets others run in between."""
        self._intake.check_open()
        done = 0
        try:
            for chunk in chunks(data):
                await self._hand_over(self._intake.put_chunk, chunk, len(chunk))
                done += len(chunk)
                await asyncio.sleep(0)
        except StoreClosedError as error:
            error.handed = data.count(b"\n", 0, done)
            raise

    @_also_elsewhere
    async def set_connected(self, connected: bool) -> None:
        """Say whether a producer is connected."""
        await self._ask(lambda actor: actor.set_connected(connected), ANSWER_SECONDS)

    @_also_elsewhere
    async def flush(self, timeout: float | None = None) -> FlushResult:
        """Wait until all that was handed over is applied, and say what became of it."""
        return await self._ask(lambda actor: actor.flush(), timeout, in_turn=True)

    @_also_elsewhere
    async def snapshot(
        self, run: str | None = None, *, at: int | None = None, timeout: float = ANSWER_SECONDS
    ) -> StateSnapshot:
        """Return the run as it stands between two events, or as it stood at a version."""
        if at is not None:
            past = self._look_back()
            await self._ask(lambda actor: actor.version, timeout)  # after all that this caller handed over
            return await asyncio.to_thread(past.snapshot, run, at, timeout)
        kept = self._mailbox.kept(run)
        if kept is not None:
            return kept
        draft = await self._ask(lambda actor: actor.draft_snapshot(run), timeout)
        return await _finished(draft.finish, draft.large)

    @_also_elsewhere
    async def graph(self, run: str | None = None, *, timeout: float = ANSWER_SECONDS) -> GraphData | None:
        """Return the dependency graph of the run, or `None` where none has arrived."""
        parts = await self._ask(lambda actor: actor.graph_parts(run), timeout)
        return await asyncio.to_thread(parts.data) if parts else None

    @_also_elsewhere
    async def runs(self, *, timeout: float = ANSWER_SECONDS) -> tuple[RunInfo, ...]:
        """Return all runs, in the order in which they were created."""
        return await self._ask(lambda actor: actor.runs(), timeout)

    def subscribe(self, run: str | None = None, *, since: Cursor | None = None) -> AsyncIterator[Update]:
        """Follow a run: first all of it, or what changed since the cursor; then what changes, as it does."""
        try:
            self._intake.check_open()
        except ForkedStoreError:
            return self._elsewhere().subscribe(run, since=since)
        return self._updates(run, since)

    async def _updates(self, run: str | None, since: Cursor | None) -> AsyncIterator[Update]:
        seen = Standing(run, since or NOWHERE, connected=False)
        question: Callable[[StoreActor], object] = partial(StoreActor.draft, run=run, since=since)
        while True:
            try:
                draft = cast(Draft, await self._ask(question, None))
            except StoreFailedError:
                raise
            except StoreClosedError:
                last = await asyncio.to_thread(self._mailbox.last_draft, seen)
                if last is None:
                    return
                draft = last
            update = await _finished(draft.finish, draft.large)
            yield update
            seen = Standing(run, update.cursor, update.connected)
            question = partial(StoreActor.next_draft, seen=seen)

    @_also_elsewhere
    async def wait(self, run: str | None = None, *, timeout: float | None = None) -> StateSnapshot:
        """Wait until the run has ended, and return it."""
        draft = cast(SnapshotDraft, await self._ask(lambda actor: actor.ended(run), timeout))
        return await _finished(draft.finish, draft.large)

    @_also_elsewhere
    async def stats(self) -> StoreStats:
        """Return how the store is doing."""
        return self._add_to(await self._ask(lambda actor: actor.stats(), ANSWER_SECONDS))

    async def close(self, timeout: float | None = None) -> None:
        """Apply all that was handed over, and stop the store."""
        await asyncio.to_thread(self._close, timeout)

    async def __aenter__(self) -> AsyncStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _put(self, event: Event) -> bool:
        try:
            return self._intake.put(event)
        except ForkedStoreError:
            return self._elsewhere()._put(event)

    async def _hand_over(self, put: Callable[[T], bool], thing: T, size: int) -> None:
        """Hand over, in a thread where decoding would hold the loop up, and wait for room."""
        full = await asyncio.to_thread(put, thing) if size > CHUNK_BYTES else put(thing)
        receiver = LoopReply()
        if full and self._intake.queue_up(receiver):
            try:
                await receiver.future
            finally:
                self._intake.leave_queue(receiver)

    async def _ask(
        self, question: Callable[[StoreActor], T], timeout: float | None, *, in_turn: bool = False
    ) -> T:
        self._intake.check_open()
        receiver = LoopReply()
        self._mailbox.send(question, receiver, in_turn=in_turn)
        try:
            async with asyncio.timeout(timeout):
                while not receiver.future.done():
                    await asyncio.wait([receiver.future], timeout=POLL_SECONDS)
                    if self._mailbox.has_ended():
                        await asyncio.sleep(0)  # its last answer may be on its way
                        if not receiver.future.done():
                            raise self._mailbox.closed_error()
                return cast(T, receiver.future.result())
        except TimeoutError:
            raise self._mailbox.timeout_error(timeout) from None
        finally:
            if not receiver.future.done():
                self._mailbox.forget(receiver)


async def _finished(finish: Callable[[], T], large: bool) -> T:
    """Finish a draft, without holding the loop up over a large one."""
    return await asyncio.to_thread(finish) if large else finish()
