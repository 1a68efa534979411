"""The event: a fact about a run, past tense, and the only thing that changes state.

The fields of an `Event` are valid from the moment it exists. Built by hand they
are checked where it is built, so the error points at the line that made the
mistake; decoded from a line they are checked by the decoder (`actorstore.wire`).
Nobody checks again. What a payload says is read when the event is handed over.

Reading order: the fields of `Event`, then its constructors in the order of the
rules in `actorstore.state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from actorstore.errors import InvalidEventError

if TYPE_CHECKING:
    from actorstore.answers import GraphData

MAX_ID_BYTES: Final = 1024
"""Longest `type`, `run`, `unit` or node id, in bytes of UTF-8."""

MAX_INT: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly (RFC 8259, section 6)."""

ABSENT: Final = msgspec.Raw()
"""The payload of an event that has none; compare with `is`."""

TypeName = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
Id = Annotated[str, Meta(max_length=MAX_ID_BYTES)]
TaskNumber = Annotated[int, Meta(ge=1, le=MAX_INT)]
Count = Annotated[int, Meta(ge=0, le=MAX_INT)]
Integer = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]
Time = Annotated[datetime, Meta(tz=True)]


class _EventType(msgspec.StructMeta):
    """Checks what a caller builds, and leaves decoding alone.

    msgspec runs `__post_init__` on every decode, which costs a fifth of it; a
    call of the class it does not make. So the check sits on the call.
    """

    def __call__(cls, type: str, **fields: Any) -> Event:  # noqa: N805
        given = {name: value for name, value in fields.items() if value is not None}
        given["type"] = type
        try:
            if "payload" in given:
                given["payload"] = _compact(given["payload"])
            event = msgspec.convert(given, Event)
            check_text(event)
        except msgspec.ValidationError as error:
            raise InvalidEventError(explain(error)) from None
        unknown = given.keys() - Event.__struct_fields__
        if unknown:
            raise InvalidEventError(f"an event has no field {sorted(unknown)[0]!r}")
        return event


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, metaclass=_EventType):
    """A fact about a run.

    `Event(type, time=..., run=..., ...)` takes any type; the constructors below
    write one rule each, and stamp `time` with the clock of this process.

    Raises:
        InvalidEventError: A field has the wrong type or is out of its bounds.
    """

    type: TypeName
    """What happened, for example `unit.started`; a type without a rule is counted and changes nothing."""
    time: Time | None = None
    """The producer's clock, with its UTC offset; data only, never used for ordering."""
    run: Id = ""
    """Id of the run; the default run is `""`."""
    unit: Id = ""
    """Id of the unit."""
    task: TaskNumber | None = None
    """Number of the task inside its unit, counted from 1."""
    pr: Integer | None = None
    """Number of a pull request; carried, not interpreted."""
    payload: msgspec.Raw = ABSENT
    """Any JSON, kept raw until a rule needs it; `ABSENT` where there is none."""
    error: str = ""
    """Text of a failure."""

    if TYPE_CHECKING:

        def __init__(
            self,
            type: str,
            *,
            time: datetime | str | None = None,
            run: str | None = None,
            unit: str | None = None,
            task: int | None = None,
            pr: int | None = None,
            payload: object = None,
            error: str | None = None,
        ) -> None: ...

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name in self.__struct_fields__[1:]}
        fields = [
            f"{name}={_shown(value)}" for name, value in given.items() if value not in (None, "", ABSENT)
        ]
        return f"Event({', '.join([repr(self.type), *fields])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (msgspec.json.encode(self),)

    @classmethod
    def orch_started(
        cls,
        graph: GraphData | Mapping[str, Iterable[str]] | None = None,
        *,
        parallelism: int | None = None,
        run: str = "",
        time: datetime | None = None,
    ) -> Event:
        """The run began, or began anew.

        Args:
            graph: What each unit depends on, as `graphlib.TopologicalSorter`
                takes it; or `GraphData`, which also says how many tasks a unit has.
            parallelism: How many units may run at once.
            run: Id of the run.
            time: When it happened; now, where not given.
        """
        payload: dict[str, object] = {}
        if graph is not None:
            payload["graph"] = drawn = _graph_payload(graph)
            payload["unit_count"] = len(drawn["nodes"])
        if parallelism is not None:
            payload["parallelism"] = parallelism
        return cls("orch.started", time=time or _now(), run=run, payload=payload or None)

    @classmethod
    def unit_added(
        cls,
        unit: str,
        *,
        tasks: int | None = None,
        depends_on: Iterable[str] = (),
        run: str = "",
        time: datetime | None = None,
    ) -> Event:
        """Work was found while the run was under way: a pending unit joins the graph."""
        payload = {"tasks": tasks, "depends_on": _ids(depends_on)}
        return cls("unit.added", time=time or _now(), run=run, unit=unit, payload=payload)

    @classmethod
    def unit_queued(cls, unit: str, *, run: str = "", time: datetime | None = None) -> Event:
        """The unit is ready and waits for a worker."""
        return cls("unit.queued", time=time or _now(), run=run, unit=unit)

    @classmethod
    def unit_started(
        cls,
        unit: str,
        *,
        total_tasks: int | None = None,
        completed_tasks: int | None = None,
        run: str = "",
        time: datetime | None = None,
    ) -> Event:
        """An attempt at the unit began; a retry is simply this event again."""
        counts = {"total_tasks": total_tasks, "completed_tasks": completed_tasks}
        payload = {name: count for name, count in counts.items() if count is not None}
        return cls("unit.started", time=time or _now(), run=run, unit=unit, payload=payload or None)

    @classmethod
    def task_started(
        cls, unit: str, task: int | None = None, *, run: str = "", time: datetime | None = None
    ) -> Event:
        """The unit is at this task, or at the next one where no number is given."""
        return cls("task.started", time=time or _now(), run=run, unit=unit, task=task)

    @classmethod
    def unit_completed(cls, unit: str, *, run: str = "", time: datetime | None = None) -> Event:
        """The unit is done."""
        return cls("unit.completed", time=time or _now(), run=run, unit=unit)

    @classmethod
    def unit_failed(
        cls, unit: str, error: str | BaseException, *, run: str = "", time: datetime | None = None
    ) -> Event:
        """The attempt at the unit failed; `error` says why, as a text or as what was raised."""
        return cls("unit.failed", time=time or _now(), run=run, unit=unit, error=_failure(error))

    @classmethod
    def unit_blocked(cls, unit: str, *, run: str = "", time: datetime | None = None) -> Event:
        """The unit cannot run, because something that it depends on did not complete."""
        return cls("unit.blocked", time=time or _now(), run=run, unit=unit)

    @classmethod
    def orch_completed(cls, *, run: str = "", time: datetime | None = None) -> Event:
        """The run is done."""
        return cls("orch.completed", time=time or _now(), run=run)

    @classmethod
    def orch_failed(cls, error: str | BaseException, *, run: str = "", time: datetime | None = None) -> Event:
        """The run failed; `error` says why, as a text or as what was raised."""
        return cls("orch.failed", time=time or _now(), run=run, error=_failure(error))

    @classmethod
    def orch_reset(cls, *, run: str = "", time: datetime | None = None) -> Event:
        """The run goes back to waiting, with no units and no graph."""
        return cls("orch.reset", time=time or _now(), run=run)


def check_text(event: Event) -> None:
    """Check what the decoder cannot: bytes where it counts code points, and lone surrogates.

    Raises:
        InvalidEventError: An id is too long, or a text is not valid Unicode.
    """
    for name in ("type", "run", "unit", "error"):
        text: str = getattr(event, name)
        if not text.isascii():
            size = len(_utf8(text, name))
            if size > MAX_ID_BYTES and name != "error":
                raise InvalidEventError(f"{name} has {size} bytes of UTF-8; at most {MAX_ID_BYTES} are taken")


def explain(error: Exception) -> str:
    """Say what a decoder's error means, with the field first: "unit: expected `str`, got `int`"."""
    if isinstance(error, UnicodeDecodeError):
        return "not valid UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text, place, path = str(error).rpartition(" - at `$")
    if not place:
        return path
    path = path.rstrip("`").lstrip(".")
    return f"{path}: {text[0].lower()}{text[1:]}" if path else text


def _shown(value: object) -> str:
    match value:
        case msgspec.Raw():
            return repr(bytes(value))
        case msgspec.Struct():  # a payload that was opened, of any size
            return f"<{type(value).__name__}>"
        case datetime():
            return repr(str(value))
        case _:
            return repr(value)


def _restore(data: bytes) -> Event:
    return msgspec.json.decode(data, type=Event)


def _now() -> datetime:
    return datetime.now(UTC)


def _failure(error: str | BaseException) -> str:
    """Say what was raised as the last line of its traceback would, in valid Unicode."""
    if isinstance(error, BaseException):
        name = type(error).__name__
        try:
            text = str(error)
        except Exception:
            text = "<no text: its __str__ fails>"
        return (f"{name}: {text}" if text else name).encode(errors="backslashreplace").decode()
    return error


def _utf8(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidEventError(f"{name} holds half of a surrogate pair, which is no Unicode text") from None


def _compact(payload: object) -> msgspec.Raw:
    """Turn a payload into JSON on one line, valid to the last byte."""
    try:
        if isinstance(payload, msgspec.Raw):
            data = bytes(payload)
            if not data:
                return ABSENT
            data.decode()
            return msgspec.Raw(msgspec.json.format(data, indent=-1))
        return msgspec.Raw(msgspec.json.encode(payload))
    except (msgspec.MsgspecError, UnicodeError, TypeError, RecursionError, OverflowError) as error:
        raise InvalidEventError(f"payload: cannot be written as JSON: {explain(error)}") from None


def _graph_payload(graph: GraphData | Mapping[str, Iterable[str]]) -> dict[str, Any]:
    if not isinstance(graph, Mapping):
        if not hasattr(graph, "nodes"):
            raise InvalidEventError(
                f"graph: expected a mapping of unit to the units it depends on, or GraphData, got {graph!r}"
            )
        return {
            "nodes": [
                {name: value for name in node.__struct_fields__ if (value := getattr(node, name)) is not None}
                for node in graph.nodes
            ],
            "edges": [{"from": edge.from_, "to": edge.to} for edge in graph.edges],
            "levels": graph.levels,
        }
    depends_on = {unit: _ids(others) for unit, others in graph.items()}
    units = dict.fromkeys(depends_on)
    for others in depends_on.values():
        units.update(dict.fromkeys(others))
    return {
        "nodes": [{"id": unit} for unit in units],
        "edges": [{"from": unit, "to": other} for unit, others in depends_on.items() for other in others],
    }


def _ids(units: Iterable[str]) -> list[str]:
    if isinstance(units, str) or not isinstance(units, Iterable):
        raise InvalidEventError(f"depends_on: expected a list of unit ids, got {units!r}")
    return list(units)
