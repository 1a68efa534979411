"""A store in another process for asyncio: the same names, awaitable, and never a blocked event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

from actorstore.answers import Cursor, FlushResult, GraphData, RunInfo, StateSnapshot, StoreStats, Update
from actorstore.api import check_version
from actorstore.errors import RefusedError, StoreClosedError, StoreFailedError
from actorstore.event import Event
from actorstore.link import Link
from actorstore.loop import LoopReply
from actorstore.protocol import Ask, sendable
from actorstore.remote import (
    GRAPH,
    RUNS,
    SNAPSHOT,
    STATS,
    UPDATE,
    Copies,
    Parts,
    last_update,
    late,
    read,
    together,
)
from actorstore.reply import ANSWER_SECONDS
from actorstore.reporting import AsyncReporter
from actorstore.wire import CHUNK_BYTES, chunks


class AsyncRemoteStore(AsyncReporter):
    """A `RemoteStore` for coroutines: each method does what the one of its name there does.

    Got from `RemoteStore.aio`; the store itself opens and closes as ever.
    """

    def __init__(self, link: Link, copies: Copies, close: Callable[[float | None], None]) -> None:
        self._link = link
        self._copies = copies
        self._close = close

    async def handle_event(self, event: Event) -> None:
        """Hand one event over; awaits only while the buffer is full."""
        if self._put(event):
            await self._wait_for_room()

    async def handle_lines(self, data: bytes) -> None:
        """Hand whole NDJSON lines over; awaits while the buffer is full, and lets others run in between."""
        link = self._link
        link.check_open()
        if link.outlives:
            lines = together(data)
            if len(lines) > 1:  # a file may take long to take them
                is_full = await asyncio.to_thread(link.put_together, lines)
            else:
                is_full = bool(lines) and link.put_together(lines)
            if is_full:
                await self._wait_for_room()
            return
        done = 0
        try:
            for chunk in chunks(data):
                if link.put_lines(sendable(chunk)):
                    await self._wait_for_room()
                done += len(chunk)
                await asyncio.sleep(0)
        except StoreClosedError as error:
            error.handed = data.count(b"\n", 0, done)
            raise

    def _put(self, event: Event) -> bool:
        return self._link.put(event)

    async def _wait_for_room(self) -> None:
        receiver = LoopReply()
        if self._link.handover.queue_up(receiver):
            try:
                await receiver.future
            finally:
                self._link.handover.leave_queue(receiver)

    async def set_connected(self, connected: bool) -> None:
        """Say whether a producer is connected."""
        await self._ask(Ask(0, "connected", connected=connected), ANSWER_SECONDS)

    async def flush(self, timeout: float | None = None) -> FlushResult:
        """Wait until all that was handed over here is acked, and say what became of it."""
        self._link.check_open()
        receiver = LoopReply()
        self._link.when_acked(receiver)
        try:
            async with asyncio.timeout(timeout):
                return cast(FlushResult, await receiver.future)
        except TimeoutError:
            raise late(self._link, timeout) from None

    async def snapshot(
        self, run: str | None = None, *, at: int | None = None, timeout: float = ANSWER_SECONDS
    ) -> StateSnapshot:
        """Return the run as it stands between two events; costs what changed since the last time."""
        if at is not None:
            check_version(at)
            parts = await self._ask(Ask(0, "snapshot", run, at=at), timeout)
            return await asyncio.to_thread(read, parts, "snapshot", SNAPSHOT)
        copy = self._copies.get(run)
        parts = await self._ask(Ask(0, "snapshot", run, copy.cursor if copy else None), timeout)
        if _size(parts) > CHUNK_BYTES:
            return await asyncio.to_thread(self._copies.take, run, copy, parts)
        return self._copies.take(run, copy, parts)

    async def graph(self, run: str | None = None, *, timeout: float = ANSWER_SECONDS) -> GraphData | None:
        """Return the dependency graph of the run, or `None` where none has arrived."""
        parts = await self._ask(Ask(0, "graph", run), timeout)
        return await asyncio.to_thread(read, parts, "graph", GRAPH)

    async def runs(self, *, timeout: float = ANSWER_SECONDS) -> tuple[RunInfo, ...]:
        """Return all runs, in the order in which they were created."""
        return read(await self._ask(Ask(0, "runs"), timeout), "runs", RUNS)

    async def stats(self) -> StoreStats:
        """Return how the store is doing."""
        return read(await self._ask(Ask(0, "stats"), ANSWER_SECONDS), "stats", STATS)

    async def wait(self, run: str | None = None, *, timeout: float | None = None) -> StateSnapshot:
        """Wait until the run has ended, and return it."""
        parts = await self._ask(Ask(0, "wait", run), timeout)
        return await asyncio.to_thread(read, parts, "snapshot", SNAPSHOT)

    def subscribe(self, run: str | None = None, *, since: Cursor | None = None) -> AsyncIterator[Update]:
        """Follow a run: first all of it, or what changed since the cursor; then what changes, as it does."""
        self._link.check_open()
        return self._updates(run, since)

    async def _updates(self, run: str | None, since: Cursor | None) -> AsyncIterator[Update]:
        question = Ask(0, "update", run, since)
        timeout: float | None = ANSWER_SECONDS
        while True:
            try:
                update = await self._read_update(await self._ask(question, timeout))
            except (StoreFailedError, RefusedError):
                raise
            except StoreClosedError:
                last = await asyncio.to_thread(last_update, self._link, question)
                if last is None:
                    return
                update = last
            yield update
            question, timeout = Ask(0, "next", run, update.cursor, update.connected), None

    async def _read_update(self, parts: Parts) -> Update:
        if _size(parts) > CHUNK_BYTES:
            return await asyncio.to_thread(read, parts, "update", UPDATE)
        return read(parts, "update", UPDATE)

    async def close(self, timeout: float | None = None) -> None:
        """Send all that was handed over, and wait for the acks."""
        await asyncio.to_thread(self._close, timeout)

    async def __aenter__(self) -> AsyncRemoteStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, question: Ask, timeout: float | None) -> Parts:
        receiver = LoopReply()
        number = self._link.ask(question, receiver)
        try:
            async with asyncio.timeout(timeout):
                return cast(Parts, await receiver.future)
        except TimeoutError:
            raise late(self._link, timeout) from None
        finally:
            if not receiver.future.done() or receiver.future.cancelled():
                self._link.forget(number)


def _size(parts: Parts) -> int:
    return sum(map(len, parts.values()))
