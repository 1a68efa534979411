"""Every error that actorstore raises on purpose.

    ActorStoreError
    ├── InvalidEventError      the event is wrong (also a ValueError)
    ├── UnknownRunError        no such run       (also a LookupError)
    ├── UnknownUnitError       no such unit      (also a LookupError)
    ├── StoreTimeoutError      not in time       (also a TimeoutError)
    ├── ActorThreadError       the actor would wait for itself
    ├── ForkedStoreError       used in a forked child
    ├── AddressError           no socket can be there      (also an OSError)
    ├── SocketInUseError       another store listens there (also an OSError)
    ├── JournalError           the journal cannot be opened (also an OSError)
    │   ├── JournalInUseError    another process has it open
    │   ├── JournalDamagedError  it does not hold what was written
    │   └── JournalFullError     there is no room to change it
    ├── SpoolError             what a producer hands over cannot be kept (also an OSError)
    │   └── SpoolInUseError      another producer has it open
    ├── VersionGoneError       that version is cut off, or has not come (also a LookupError)
    ├── NoJournalError         nobody keeps the past
    ├── QuestionRefusedError   a store elsewhere does not answer this
    ├── StoreUnreachableError  nobody listens there        (also a ConnectionError)
    └── StoreClosedError       closed; nothing more is taken
        ├── StoreFailedError   the actor died; nothing more is taken
        │   └── JournalFailedError  the disk did; nothing more is acked
        └── RefusedError       the other process takes nothing more from this one
            ├── ProducerSupersededError  somebody else goes on under this id
            ├── ProducerConflictError    somebody else has used this id
            └── JournalRegressionError   the store has forgotten what it acked

The facts are in attributes, the sentence is made from them. All of them survive
pickling: `Exception.__reduce__` calls the class with `args`, so each passes on
exactly the arguments that it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

CURES: Final = {
    "unknown_question": "it is of another version than this client: run both with the same one",
    "duplicate_id": "wait for the answer, or give this question another number",
    "too_many_questions": "ask less at once",
    "internal": "this is a bug in actorstore, and the log of the store has the traceback",
    "wrong_protocol": "it is of another version than this client: run both with the same one",
    "not_this_protocol": "name the path where a store listens",
    "forbidden": "name a path in a directory of your own",
}
"""What a store says in one word of the protocol, where it refuses something -> what to do."""


SILENT: Final = "nobody answers"
"""Why a store is not reached that listens, and may be stopped."""

CROWDED: Final = "too many others wait to be let in"
"""Why a store is not reached that listens, and is overloaded."""


class ActorStoreError(Exception):
    """The root: catch this to catch whatever actorstore raises on purpose."""


class InvalidEventError(ActorStoreError, ValueError):
    """Raised when an event breaks the contract; the caller's fault, and no state has changed.

    Attributes:
        reason: What is wrong, naming the field.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownRunError(ActorStoreError, LookupError):
    """Raised when a question names a run that no `orch.*` event has created.

    Attributes:
        run: The id that was asked for.
    """

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.run = run

    def __str__(self) -> str:
        return f"unknown run {self.run!r}: no orch.* event has created it; runs() lists those there are"


class UnknownUnitError(ActorStoreError, LookupError):
    """Raised when a snapshot is asked for a unit that the run does not have.

    Attributes:
        unit: The id that was asked for.
        run: The run that does not have it.
    """

    def __init__(self, unit: str, run: str) -> None:
        super().__init__(unit, run)
        self.unit = unit
        self.run = run

    def __str__(self) -> str:
        return f"run {self.run!r} has no unit {self.unit!r}; its ids are those of snapshot.units"


class StoreTimeoutError(ActorStoreError, TimeoutError):
    """Raised when an answer did not come in time; nothing was lost, and asking again is safe.

    Attributes:
        waited: Seconds that the caller was ready to wait.
        pending: Events handed over and not yet applied when the caller gave up.
        trouble: Why the journal cannot be written just now, where that is so.
    """

    def __init__(self, waited: float, pending: int, trouble: str | None = None) -> None:
        super().__init__(waited, pending, trouble)
        self.waited = waited
        self.pending = pending
        self.trouble = trouble

    def __str__(self) -> str:
        why = f" The journal cannot be written: {self.trouble}." if self.trouble else ""
        return (
            f"no answer within {self.waited:g} s; {self.pending} events are handed over and not yet applied."
            f"{why} Nothing is lost: ask again, or allow more time"
        )


class ActorThreadError(ActorStoreError, RuntimeError):
    """Raised when code that runs in the actor's own thread calls its store: it would wait for itself."""

    def __str__(self) -> str:
        return (
            "called from inside the store's own actor, which would wait for itself; call from another thread"
        )


class ForkedStoreError(ActorStoreError, RuntimeError):
    """Raised when a forked child uses its parent's store: the actor's thread did not come along.

    Nothing was handed over; the parent's store is untouched.

    Attributes:
        owner: Process id of the store's owner.
    """

    def __init__(self, owner: int) -> None:
        super().__init__(owner)
        self.owner = owner

    def __str__(self) -> str:
        return (
            f"this store lives in process {self.owner} and takes nothing from its forked children, because "
            "it has no listen= address: make it with Store(listen=PATH), and it works in children too"
        )


class StoreClosedError(ActorStoreError, RuntimeError):
    """Raised by every call after `close()`; what was handed over before it has been applied.

    Attributes:
        handed: Lines of this call that were handed over before, where it was `handle_lines`.
    """

    handed = 0

    def __str__(self) -> str:
        if self.handed:
            what = f"only the first {self.handed} lines of this call are handed over"
            return f"the store was closed meanwhile, and {what}; hand the rest to a new one"
        return "the store is closed, and this call changed nothing; close it later, or make a new one"


class StoreFailedError(StoreClosedError):
    """Raised by every call after the actor died of an error that must not happen; the log says which."""

    def __str__(self) -> str:
        return (
            "the store's actor has died and takes nothing more; the log of 'pykka' holds the reason. "
            "Make a new Store"
        )


class JournalFailedError(StoreFailedError):
    """Raised by every call after the journal failed for good; what was acked before is on disk.

    What was not acked may be there or not. The next start finds out, by replay.

    Attributes:
        path: The journal.
        reason: What the system said.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the journal {self.path} failed: {self.reason}. Nothing was acked since; look after the disk, "
            "and start the store again: it recovers from what is there"
        )


class JournalError(ActorStoreError, OSError):
    """Raised when a journal cannot be opened; the file is as it was.

    Attributes:
        path: The journal.
        reason: What is wrong, and the cure.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"the journal {self.path} cannot be opened: {self.reason}"


class JournalInUseError(JournalError):
    """Raised when another process has the journal open; it is left alone.

    Attributes:
        path: The journal.
        owner: Process id of the one that has it open; 0 where it is not known.
    """

    def __init__(self, path: str, owner: int = 0) -> None:
        who = f"process {owner}" if owner else "another process"
        super().__init__(path, f"{who} has it open; ask its store, stop it, or name another file")
        self.args = path, owner
        self.owner = owner


class JournalDamagedError(JournalError):
    """Raised when a journal does not hold what was written into it; nothing from there on was applied.

    Attributes:
        path: The journal.
        place: Where the damage begins, naming the batch.
        cure: What to do.
    """

    def __init__(self, path: str, place: str, cure: str = "") -> None:
        self.place = place
        self.cure = cure or (
            f"restore it from a backup, or save what is whole with `actorstore journal export {path}` and "
            "replay that into a new journal"
        )
        super().__init__(path, f"damaged: {place}. Nothing from there on is applied; {self.cure}")
        self.args = path, place, cure


class JournalFullError(JournalError):
    """Raised when a journal cannot be compacted for want of room; its events and its state are all there.

    Attributes:
        path: The journal.
        reason: What is full.
    """

    def __str__(self) -> str:
        return (
            f"the journal {self.path} cannot be compacted: {self.reason}; make room, and do it again. "
            "Nothing is lost"
        )


class SpoolError(ActorStoreError, OSError):
    """Raised when a spool cannot be opened, or an event not written to it; the event was not handed over.

    Attributes:
        path: The spool.
        reason: What is wrong.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"the spool {self.path} cannot be used: {self.reason}"


class SpoolInUseError(SpoolError):
    """Raised when another producer has the spool open; it is left alone.

    Attributes:
        path: The spool.
        owner: Process id of the one that has it open; 0 where it is not known.
    """

    def __init__(self, path: str, owner: int = 0) -> None:
        who = f"process {owner}" if owner else "another process"
        super().__init__(path, f"{who} has it open; stop that one, or name another file")
        self.args = path, owner
        self.owner = owner


class VersionGoneError(ActorStoreError, LookupError):
    """Raised when a past version is asked for that the journal does not hold.

    Attributes:
        at: The version that was asked for.
        oldest: The oldest version that it holds.
        newest: The newest one.
    """

    def __init__(self, at: int, oldest: int, newest: int) -> None:
        super().__init__(at, oldest, newest)
        self.at = at
        self.oldest = oldest
        self.newest = newest

    def __str__(self) -> str:
        why = "has not come yet" if self.at > self.newest else "was cut off when the journal was compacted"
        return f"version {self.at} {why}; ask for one of {self.oldest} to {self.newest}"


class NoJournalError(ActorStoreError, LookupError):
    """Raised when the past is asked of a store that keeps none."""

    def __str__(self) -> str:
        return (
            "this store has no journal, so it knows the present only; make it with Store(journal=FILE), or "
            "start it with: actorstore serve --journal FILE"
        )


class AddressError(ActorStoreError, OSError):
    """Raised when no store can listen, or be found, at a path; nothing there was touched.

    Attributes:
        address: The path.
        reason: What is wrong with it.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.address} is no place for the socket of a store: {self.reason}"


class SocketInUseError(ActorStoreError, OSError):
    """Raised when a store would listen where another one does, which is left alone.

    Attributes:
        address: The path of the socket.
        owner: Process id of the one that listens; 0 where it is not known.
    """

    def __init__(self, address: str, owner: int = 0) -> None:
        super().__init__(address, owner)
        self.address = address
        self.owner = owner

    def __str__(self) -> str:
        who = f"process {self.owner}" if self.owner else "another process"
        return f"{who} listens at {self.address} already; stop it, or name another path"


class StoreUnreachableError(ActorStoreError, ConnectionError):
    """Raised when nobody answers at an address; what was handed over is kept, and sent when somebody does.

    Attributes:
        address: The path of the socket.
        reason: What happened.
        unacked: Lines that were handed over and are not acked.
    """

    def __init__(self, address: str, reason: str, unacked: int = 0) -> None:
        super().__init__(address, reason, unacked)
        self.address = address
        self.reason = reason
        self.unacked = unacked

    @property
    def is_there(self) -> bool:
        """Whether a process listens there, so that to start another one does not help."""
        return self.reason in (SILENT, CROWDED)

    def __str__(self) -> str:
        text = f"no store answers at {self.address}: {self.reason}; "
        if self.is_there:
            text += "a process listens there: look whether it is stopped or overloaded, and try again"
        else:
            text += f"start one with: actorstore serve --socket {self.address}"
        lines = "1 line is" if self.unacked == 1 else f"{self.unacked} lines are"
        return f"{text} ({lines} not acked)" if self.unacked else text


class QuestionRefusedError(ActorStoreError):
    """Raised when a store of another process refuses one question; everything else goes on.

    Each code has a cure of its own, which the message says; see docs/protocol.md for the codes.

    Attributes:
        code: What is wrong, in one word of the protocol.
        reason: What is wrong, in a sentence.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    cure = "the log of the store may say more"

    def __str__(self) -> str:
        return f"the store refused this question: {self.reason}; {CURES.get(self.code, self.cure)}"


class RefusedError(StoreClosedError):
    """Raised when the store takes nothing more from this connection, and says why.

    Attributes:
        code: What is wrong, in one word of the protocol.
        reason: What is wrong, in a sentence.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    cure = "mend that, and connect() again"

    def __str__(self) -> str:
        return f"the store takes nothing more from here: {self.reason}; {CURES.get(self.code, self.cure)}"


class ProducerSupersededError(RefusedError):
    """Raised when another connection goes on under the same producer id; what it acks is its own affair."""

    cure = "connect() again for a producer of its own"


class ProducerConflictError(RefusedError):
    """Raised when the store knows more lines of a producer than it ever sent: somebody else has its id."""

    cure = "connect() again for a producer of its own"


class JournalRegressionError(RefusedError):
    """Raised when a store knows fewer lines of a producer than it has acked: its journal has lost some."""

    cure = "check the journal against a backup before anybody feeds this store again"


@contextmanager
def noted(error: BaseException) -> Iterator[None]:
    """Let an error go on that cannot be reported, with a note that says why."""
    try:
        yield
    except ActorStoreError as reason:
        error.add_note(f"actorstore could not be told of this: {reason}")
