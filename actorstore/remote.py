"""A store in another process, with the same methods.

Producers hand over and go on, as they do with a `Store`; what they hand over is
kept until the store has acked it (`actorstore.link`). Readers keep the last copy
of what they read, and fetch what has changed since (`actorstore.replica`).

Imports neither pykka nor asyncio, so that a command is quick to start.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

import msgspec

from actorstore.address import Address, find
from actorstore.answers import Cursor, FlushResult, GraphData, RunInfo, StateSnapshot, StoreStats, Update
from actorstore.api import check_version
from actorstore.endings import PATIENCE_SECONDS
from actorstore.errors import (
    ActorStoreError,
    RefusedError,
    StoreClosedError,
    StoreFailedError,
    StoreTimeoutError,
)
from actorstore.event import ABSENT, Event
from actorstore.handover import MAX_ITEMS
from actorstore.link import KEPT_BYTES, Link
from actorstore.protocol import Ask, Sendable, sendable
from actorstore.replica import snapshot_of
from actorstore.reply import ANSWER_SECONDS, Reply
from actorstore.reporting import Reporter
from actorstore.shelter import sheltered
from actorstore.spool import Spool
from actorstore.wire import chunks

if TYPE_CHECKING:
    from actorstore.remote_aio import AsyncRemoteStore

T = TypeVar("T")

Parts = Mapping[str, msgspec.Raw]
"""An answer as it came: its parts, by name."""


def connect(
    address: Address | None = None, *, kept_bytes: int = KEPT_BYTES, spool: Address | None = None
) -> RemoteStore:
    """Connect to a store that listens.

    Args:
        address: Path of its socket; where not given, that in `ACTORSTORE_SOCKET`,
            else `$XDG_RUNTIME_DIR/actorstore/store.sock`, else `~/.actorstore/store.sock`.
        kept_bytes: How many bytes may be handed over and not yet acked before
            producers wait.
        spool: Path of a file that keeps them, too; see `RemoteStore`.

    Raises:
        SpoolInUseError: Another producer has the spool open.
        SpoolError: It is no spool, or another user's, or cannot be made.
        StoreUnreachableError: Nobody answers there.
        RefusedError: The store does not take this producer.
    """
    store = RemoteStore.__new__(RemoteStore)
    store._begin(address, kept_bytes, spool)
    store._link.open()
    return store


class RemoteStore(Reporter):
    """A store in another process; its methods are those of `Store`.

    Safe to use from any thread. Connects when it is first used, and again, with
    growing pauses, whenever the connection is lost; what was handed over is kept
    meanwhile, and each line counts once. When the buffer is full, producers wait.

    Pickles to its address and options. In a child process, forked or not, it is
    a producer of its own. What it holds when its process ends in an orderly way
    is sent first; a process that is killed may lose what was handed over since
    the last `flush()`.

    Args:
        address: Path of the socket, as for `connect`.
        kept_bytes: How many bytes may be handed over and not yet acked before
            producers wait.
        spool: Path of a file that keeps them, too: a process that is killed then
            loses nothing that was handed over, and the next `RemoteStore` with
            the same file goes on from there, under the same producer id. It is
            removed once this is closed and all is acked. A loss of power may take
            its end. Not pickled, and left behind in a forked child: a file has
            one producer. One that is deleted meanwhile is made again, with what is
            not acked; one that is moved away takes nothing until it is back.

    Raises:
        SpoolInUseError: Another producer has the spool open.
        SpoolError: It is no spool, or another user's, or cannot be made.

    Every method raises `StoreClosedError` once this is closed, and
    `ProducerSupersededError`, `ProducerConflictError` or
    `JournalRegressionError` once the store has refused this producer for good.
    """

    def __init__(
        self,
        address: Address | None = None,
        *,
        kept_bytes: int = KEPT_BYTES,
        spool: Address | None = None,
    ) -> None:
        self._begin(address, kept_bytes, spool)
        self._link.send_left()

    def _begin(self, address: Address | None, kept_bytes: int, spool: Address | None) -> None:
        if spool is None:
            self._hold(Link(find(address), kept_bytes))
            return

        def work() -> None:
            self._hold(Link(find(address), kept_bytes, Spool(spool)))

        def undo() -> None:
            if hasattr(self, "_link"):
                self._link.let_go()

        sheltered(work, undo)  # or an interruption may leave the spool locked

    def _hold(self, link: Link) -> None:
        self._link = link
        self._quick = None if link.outlives else Event  # what is handed over without further ado
        self._copies = Copies()
        self._forgotten = weakref.finalize(self, self._link.let_go)
        self._forgotten.atexit = False  # the link sees to that

    @property
    def address(self) -> str:
        """Path of the socket."""
        return self._link.path

    # Producers.

    def handle_event(self, event: Event) -> None:
        """Hand one event over; waits only while the buffer is full.

        It is sent at once, with whatever else there is. One whose payload does
        not fit is counted as rejected by the store, and listed in its `stats()`.

        Raises:
            TypeError: It is not an `Event`.
            SpoolError: The spool cannot keep it; it is not handed over.
        """
        handover = self._link.handover
        if type(event) is self._quick and event.payload is ABSENT and not event.error:
            items = handover.items
            items.append(event)
            if (handover.asleep or len(items) >= MAX_ITEMS) and handover.turn(event):
                handover.wait_for_room()
        elif self._link.put(event):
            handover.wait_for_room()

    def handle_lines(self, data: bytes) -> None:
        """Hand whole NDJSON lines over, the last LF being optional; waits only while the buffer is full.

        With a spool, all of them are handed over or none.

        Raises:
            TypeError: It is not bytes.
            SpoolError: The spool cannot keep them; none of them is handed over.
            StoreClosedError: This is closed; `handed` says how many lines are handed over.
        """
        link = self._link
        link.check_open()
        if link.outlives:
            lines = together(data)
            if lines and link.put_together(lines):
                link.handover.wait_for_room()
            return
        done = 0
        try:
            for chunk in chunks(data):
                if link.put_lines(sendable(chunk)):
                    link.handover.wait_for_room()
                done += len(chunk)
        except StoreClosedError as error:
            error.handed = data.count(b"\n", 0, done)
            raise

    def set_connected(self, connected: bool) -> None:
        """Say whether a producer is connected; one that has sent events from another process is."""
        self._ask(Ask(0, "connected", connected=connected), ANSWER_SECONDS)

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Wait until all that was handed over here is acked, and say what became of it.

        Args:
            timeout: Seconds to wait; `None` waits as long as it takes.

        Raises:
            StoreTimeoutError: The store has not acked it in time; nothing is lost.
            StoreUnreachableError: Nor does anybody answer there.
        """
        self._link.check_open()
        reply = Reply()
        self._link.when_acked(reply)
        self._await(reply, timeout)
        return cast(FlushResult, reply.result())

    # Everybody else.

    def snapshot(
        self, run: str | None = None, *, at: int | None = None, timeout: float = ANSWER_SECONDS
    ) -> StateSnapshot:
        """Return the run as it stands between two events; costs what changed since the last time.

        Args:
            run: Id of the run; `None` for the one that started last.
            at: A version of the past, folded from the store's journal; its `connected` is false.
            timeout: Seconds to wait for the answer.

        Raises:
            UnknownRunError: No `orch.*` event has created the run.
            StoreTimeoutError: The store was too busy; asking again is safe.
            StoreUnreachableError: Nobody answers there.
            VersionGoneError: The journal does not hold that version.
            NoJournalError: A version was asked for, and the store has no journal.
            ValueError: `at` has more than 53 bits.
        """
        if at is not None:
            check_version(at)
            return read(self._ask(Ask(0, "snapshot", run, at=at), timeout), "snapshot", SNAPSHOT)
        copy = self._copies.get(run)
        parts = self._ask(Ask(0, "snapshot", run, copy.cursor if copy else None), timeout)
        return self._copies.take(run, copy, parts)

    def graph(self, run: str | None = None, *, timeout: float = ANSWER_SECONDS) -> GraphData | None:
        """Return the dependency graph of the run, or `None` where none has arrived.

        Args and errors are those of `snapshot`.
        """
        return read(self._ask(Ask(0, "graph", run), timeout), "graph", GRAPH)

    def runs(self, *, timeout: float = ANSWER_SECONDS) -> tuple[RunInfo, ...]:
        """Return all runs, in the order in which they were created."""
        return read(self._ask(Ask(0, "runs"), timeout), "runs", RUNS)

    def stats(self) -> StoreStats:
        """Return how the store is doing: its version, what was refused, and why."""
        return read(self._ask(Ask(0, "stats"), ANSWER_SECONDS), "stats", STATS)

    def wait(self, run: str | None = None, *, timeout: float | None = None) -> StateSnapshot:
        """Wait until the run has ended, and return it; see `Store.wait`.

        Goes on when the connection is lost and made again. A store that is made
        anew meanwhile, and has yet to hear of the run, is waited for as well.
        """
        return read(self._ask(Ask(0, "wait", run), timeout), "snapshot", SNAPSHOT)

    def subscribe(self, run: str | None = None, *, since: Cursor | None = None) -> Iterator[Update]:
        """Follow a run: first all of it, or what changed since the cursor; then what changes, as it does.

        Goes on when the connection is lost and made again: what changed
        meanwhile comes as one update, and where the store is a new one, as the
        whole run. Ends when this is closed, after the last change. Args and
        errors are those of `Store.subscribe`.
        """
        first = self._ask(Ask(0, "update", run, since), ANSWER_SECONDS)
        return self._updates(run, read(first, "update", UPDATE))

    def _updates(self, run: str | None, update: Update) -> Iterator[Update]:
        yield update
        yield from self._follow(run, update.cursor, update.connected)

    def _follow(self, run: str | None, cursor: Cursor, connected: bool) -> Iterator[Update]:
        """Follow a run from where a subscriber stands."""
        while True:
            question = Ask(0, "next", run, cursor, connected)
            try:
                update = read(self._ask(question, None), "update", UPDATE)
            except (StoreFailedError, RefusedError):
                raise
            except StoreClosedError:
                last = last_update(self._link, question)
                if last is None:
                    return
                update = last
            yield update
            cursor, connected = update.cursor, update.connected

    # The end.

    def close(self, timeout: float | None = None) -> None:
        """Send all that was handed over, and wait for the acks; closing again does nothing.

        Args:
            timeout: Seconds to wait; `None` waits as long as the store can be
                reached, and some seconds more.

        Raises:
            StoreTimeoutError: Not everything is acked; it is still being sent.
            StoreUnreachableError: Not everything is acked, and nobody answers.
        """
        self._link.end()
        self._forgotten.detach()
        if not self._link.join(timeout) and self._link.unacked():
            raise late(self._link, timeout)

    def __enter__(self) -> RemoteStore:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self.close()
        except RefusedError:
            if not isinstance(error, RefusedError):  # or it has been said
                raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._link.path, self._link.kept_bytes)

    def __repr__(self) -> str:
        return f"<RemoteStore at {self._link.path}>"

    @property
    def aio(self) -> AsyncRemoteStore:
        """The same methods, awaitable; none of them blocks the event loop."""
        from actorstore.remote_aio import (
            AsyncRemoteStore,  # importing asyncio costs 30 ms, so who needs it pays
        )

        return AsyncRemoteStore(self._link, self._copies, self.close)

    def _ask(self, question: Ask, timeout: float | None) -> Parts:
        reply = Reply()
        number = self._link.ask(question, reply)
        try:
            self._await(reply, timeout)
        except BaseException:
            self._link.forget(number)
            raise
        return cast(Parts, reply.result())

    def _await(self, reply: Reply, timeout: float | None) -> None:
        if not reply.wait(-1 if timeout is None else max(0.0, timeout)):
            raise late(self._link, timeout)


def together(data: bytes) -> list[Sendable]:
    """Return whole lines as what is handed over at once.

    Raises:
        TypeError: It is not bytes.
    """
    return [sendable(chunk) for chunk in chunks(data)]


def late(link: Link, timeout: float | None) -> Exception:
    """Return the error for who has waited in vain."""
    return link.trouble() or StoreTimeoutError(timeout or 0, link.unacked())


def last_update(link: Link, question: Ask) -> Update | None:
    """Return what a subscriber of a store that is closed here has not seen yet, if anything.

    Asked over a connection of its own, once all that was handed over is acked.
    What is answered at once is answered in the order asked: where the second
    question is and the first is not, nothing has changed.
    """
    link.join(PATIENCE_SECONDS)
    other = Link(link.path)
    try:
        other.open()
        news, end = Reply(), Reply()
        other.ask(question, news)
        other.ask(Ask(0, "stats"), end)
        if end.wait(ANSWER_SECONDS) and news.wait(0):
            return read(cast(Parts, news.result()), "update", UPDATE)
    except ActorStoreError:
        pass  # nobody is there any more
    finally:
        other.abandon()
    return None


CURSOR: Final = msgspec.json.Decoder(Cursor)
GRAPH: Final[msgspec.json.Decoder[GraphData | None]] = msgspec.json.Decoder(GraphData | None)
RUNS: Final = msgspec.json.Decoder(tuple[RunInfo, ...])
SNAPSHOT: Final = msgspec.json.Decoder(StateSnapshot)
STATS: Final = msgspec.json.Decoder(StoreStats)
UPDATE: Final = msgspec.json.Decoder(Update)


def read(parts: Parts, name: str, decoder: msgspec.json.Decoder[T]) -> T:
    """Return one part of an answer."""
    return decoder.decode(parts[name])


class Copy(NamedTuple):
    """A run as it was last seen."""

    snapshot: StateSnapshot
    cursor: Cursor


class Copies:
    """The last copy of each run that was looked at."""

    def __init__(self) -> None:
        self._copies: dict[str | None, Copy] = {}

    def get(self, run: str | None) -> Copy | None:
        """Return the last copy of a run."""
        return self._copies.get(run)

    def take(self, run: str | None, before: Copy | None, parts: Parts) -> StateSnapshot:
        """Make the next copy: of what changed since the one before, or of the whole run."""
        if "update" in parts:
            update = read(parts, "update", UPDATE)
            copy = Copy(snapshot_of(update, before.snapshot if before else None), update.cursor)
        else:
            copy = Copy(read(parts, "snapshot", SNAPSHOT), read(parts, "cursor", CURSOR))
        self._copies[run] = copy
        return copy.snapshot


def _restore(path: str, kept_bytes: int) -> RemoteStore:
    return RemoteStore(path, kept_bytes=kept_bytes)
