"""What other processes may ask: each question, as it is put to the actor, and its answer in JSON.

The table in docs/protocol.md says what each of them means; a test keeps it so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import msgspec

from actorstore import slices
from actorstore.actor import NOWHERE, Standing, StoreActor
from actorstore.answers import Cursor, RunInfo, StateSnapshot, Update, shared_by
from actorstore.drafts import LARGE_UNITS, Draft, GraphParts, SnapshotDraft, are_large, sliced_snapshot
from actorstore.errors import (
    JournalDamagedError,
    JournalFailedError,
    NoJournalError,
    StoreClosedError,
    StoreFailedError,
    UnknownRunError,
    VersionGoneError,
)
from actorstore.pacing import rested
from actorstore.protocol import Ask, Refusal, answer, sliced_answer
from actorstore.waiting import Later

if TYPE_CHECKING:
    from actorstore.asking import Asking
    from actorstore.server import Server


PIECE_BYTES: Final = 1 << 16
"""About how many bytes of a large answer are written at a time."""

SHARED_BYTES: Final = 1 << 14
"""From how many bytes on a slice is a piece: those who ask for the same then share it."""


class Kind(NamedTuple):
    """How a question is answered."""

    ask: Callable[[StoreActor, Ask], object]
    """Asks the actor, in its thread; may return a `Later`."""
    encode: Callable[[object], dict[str, bytes]]
    """Turns the answer into JSON, by name."""
    waits: bool = False
    """Whether it may take for ever until there is an answer."""


def _cursor(ask: Ask) -> Cursor | None:
    return Cursor(ask.since) if ask.since else None


def _connect(actor: StoreActor, ask: Ask) -> bool:
    actor.set_connected(bool(ask.connected))
    return bool(ask.connected)


def _is_unheard_of(actor: StoreActor, ask: Ask) -> bool:
    """Whether this store is a new one, which has yet to hear of a run that was known before."""
    return bool(ask.since) and ask.run is not None and not actor.knows(ask.run)


def _wait(actor: StoreActor, ask: Ask) -> object:
    return Later(ask.run, "turn") if _is_unheard_of(actor, ask) else actor.ended(ask.run)


def _next(actor: StoreActor, ask: Ask) -> object:
    if _is_unheard_of(actor, ask):
        return Later(ask.run, "news")
    return actor.next_draft(Standing(ask.run, _cursor(ask) or NOWHERE, bool(ask.connected)))


def _copy(answer: object) -> dict[str, bytes]:
    if isinstance(answer, Update):
        return {"update": answer.json()}
    if isinstance(answer, StateSnapshot):  # of the past, which has no cursor
        return {"snapshot": answer.json()}
    draft, cursor = cast(tuple[SnapshotDraft, Cursor], answer)
    return {"cursor": msgspec.json.encode(cursor), "snapshot": draft.finish().json()}


def _graph(answer: object) -> dict[str, bytes]:
    parts = cast(GraphParts | None, answer)
    return {"graph": parts.data().json() if parts else b"null"}


def _update(answer: object) -> dict[str, bytes]:
    return {"update": cast(Draft, answer).finish().json()}


def _ended(answer: object) -> dict[str, bytes]:
    return {"snapshot": cast(SnapshotDraft, answer).finish().json()}


KINDS: Final[Mapping[str, Kind]] = {
    "snapshot": Kind(lambda actor, ask: actor.copy(ask.run, _cursor(ask)), _copy),
    "graph": Kind(lambda actor, ask: actor.graph_parts(ask.run), _graph),
    "runs": Kind(lambda actor, _: actor.runs(), lambda runs: {"runs": msgspec.json.encode(runs)}),
    "stats": Kind(lambda actor, _: actor.stats(), lambda stats: {"stats": msgspec.json.encode(stats)}),
    "update": Kind(lambda actor, ask: actor.draft(ask.run, _cursor(ask)), _update),
    "next": Kind(_next, _update, waits=True),
    "wait": Kind(_wait, _ended, waits=True),
    "connected": Kind(_connect, lambda connected: {"connected": msgspec.json.encode(connected)}),
}
"""What is asked -> how it is answered."""


def takes_long(answer: object) -> bool:
    """Whether an answer is to be encoded in slices, where nobody waits behind it."""
    match answer:
        case GraphParts() | Draft() | SnapshotDraft():
            return answer.large
        case Update() | StateSnapshot():
            return are_large(answer.units, len(answer.units))
        case (SnapshotDraft() as draft, _):
            return draft.large
        case tuple():  # all runs
            return len(answer) > LARGE_UNITS
        case _:
            return False


def _slices(answer: object) -> dict[str, Iterable[bytes]]:
    """Return the JSON of an answer that takes long, by name."""
    match answer:
        case GraphParts():
            return {"graph": answer.slices()}
        case Draft():
            return {"update": answer.slices()}
        case Update():
            return {"update": slices.update(answer, [answer.units], answer.graph)}
        case SnapshotDraft():
            return {"snapshot": answer.slices()}
        case StateSnapshot():
            return {"snapshot": sliced_snapshot(answer, (answer.units,), shared_by(answer))}
        case tuple() if isinstance(answer[0], RunInfo):
            return {"runs": chain([b"["], slices.elements([answer]), [b"]"])}
        case _:
            draft, cursor = cast(tuple[SnapshotDraft, Cursor], answer)
            return {"cursor": [msgspec.json.encode(cursor)], "snapshot": draft.slices()}


def refused(error: BaseException) -> Refusal:
    """Say why a question has no answer."""
    match error:
        case UnknownRunError():
            return Refusal("unknown_run", str(error), error.run)
        case VersionGoneError():
            return Refusal("version_gone", str(error), versions=error.args)
        case NoJournalError():
            return Refusal("no_journal", str(error))
        case JournalDamagedError():
            return Refusal("journal_damaged", error.place, journal=error.path)
        case JournalFailedError():
            return Refusal("journal_failed", error.reason, journal=error.path)
        case StoreFailedError():
            return Refusal("failed", str(error))
        case StoreClosedError():
            return Refusal("closed", str(error))
        case _:
            return Refusal("internal", f"{type(error).__name__}: {error}")


TURN_COMES: Final = object()
"""What is answered where there is an answer and no place for it: the question is asked again in its turn."""


class Asked:
    """A question on its way: the receiver of its answer.

    Args:
        asking: The questions of the connection.
        server: Its server.
        question: What was asked.
    """

    __slots__ = ("_asking", "_kind", "_server", "has_place", "is_open", "question")

    def __init__(self, asking: Asking, server: Server, question: Ask) -> None:
        self._asking = asking
        self._server = server
        self._kind = KINDS[question.what]
        self.question = question
        self.is_open = True  # whether somebody waits for the answer
        self.has_place = False

    def ask(self, actor: object) -> object:
        """Ask the actor; called in its thread."""
        if not self.is_open:
            return None
        if not self._asking.take_place(self):
            return TURN_COMES
        answer = self._kind.ask(actor, self.question)  # type: ignore[arg-type]
        if isinstance(answer, Later):
            self._asking.give_back(self)
        return answer

    def encode(self, value: object) -> bytes:
        """Return the line that answers the question."""
        return answer(self.question.id, self._kind.encode(value))

    def encode_slowly(self, value: object) -> list[bytes]:
        """Return the line in pieces; rests now and then, so that others have the interpreter meanwhile.

        Stops where the answer is wanted no more.
        """
        pieces: list[bytes] = []
        small: list[bytes] = []
        size = 0
        for slice in rested(sliced_answer(self.question.id, _slices(value))):
            if not self.is_open:
                return []
            if len(slice) >= SHARED_BYTES:
                if small:
                    pieces.append(b"".join(small))
                    small, size = [], 0
                pieces.append(slice)
                continue
            small.append(slice)
            size += len(slice)
            if size >= PIECE_BYTES:
                pieces.append(b"".join(small))
                small, size = [], 0
        return [*pieces, b"".join(small)]

    def set(self, value: object) -> bool:
        """Hand the answer over to the loop; called by the actor."""
        self._server.post(lambda: self._asking.answered(self, value))
        return False

    def fail(self, error: BaseException) -> None:
        """Hand an error over to the loop; called by the actor."""
        self._server.post(lambda: self._asking.refuse(self, error))
