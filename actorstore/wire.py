"""NDJSON in: bytes become checked events, and what is wrong becomes a reason.

One call decodes a whole chunk, 64 KiB at a time: small chunks are decoded up to
twice as fast as large ones, because the events of one are gone from the
processor's cache before the next one comes. A chunk that is not plainly good is
taken line by line, so that a bad line harms no other.

Reading order: `chunks`, `decode` (the good case), `_decode_each`.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple, TypeAlias

import msgspec

from actorstore.answers import Rejection
from actorstore.errors import InvalidEventError
from actorstore.event import (
    ABSENT,
    MAX_ID_BYTES,
    Event,
    Id,
    Integer,
    TaskNumber,
    Time,
    TypeName,
    check_text,
    explain,
)
from actorstore.payload import read_payload
from actorstore.text import clean

CHUNK_BYTES: Final = 1 << 16
"""How much is decoded at a time; see benchmarks/bench_throughput.py."""

MAX_LINE_BYTES: Final = 64 << 20
"""Longest line that is taken, unless the store was told otherwise."""

BLANKS: Final = b" \t\r\n"
"""What says nothing around a line."""

SHOWN_CHARS: Final = 120
"""How much of a rejected line is shown."""


class Chunk(NamedTuple):
    """What some lines hold."""

    events: list[Event]
    """The accepted ones, in order, their payloads open."""
    rejections: list[Rejection]
    """The others; `line` counts from 1 at the first line of the chunk."""
    lines: int
    """How many lines there were, blank ones included."""
    accepted: bytes = b""
    """The lines of the events, as they came."""
    untold: int = 0
    """How many more were refused than are in `rejections`, where not all were asked for."""

    @property
    def rejected(self) -> int:
        """How many lines were refused."""
        return len(self.rejections) + self.untold


class _NullableEvent(msgspec.Struct, gc=False):
    """An event as some producers write it, with `null` for what they leave out."""

    type: TypeName
    time: Time | None = None
    run: Id | None = None
    unit: Id | None = None
    task: TaskNumber | None = None
    pr: Integer | None = None
    payload: msgspec.Raw = ABSENT
    error: str | None = None


_decoder: Final = msgspec.json.Decoder(Event)
_nullable: Final = msgspec.json.Decoder(_NullableEvent)
_set: Final = msgspec.structs.force_setattr  # on events that nobody else has seen yet
_REFUSING: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, InvalidEventError)
_Refused: TypeAlias = tuple[int, bytes, Exception | None]  # number and line, and why, where that is known
_LONG: Final = MAX_ID_BYTES // 4  # characters; a shorter id fits whatever it is made of


def chunks(data: bytes) -> Iterator[bytes]:
    """Cut lines into chunks of whole lines, the last LF being optional; a longer line is a chunk alone.

    Raises:
        TypeError: It is not bytes.
    """
    if not isinstance(data, bytes):
        raise TypeError(f"handle_lines takes bytes, not {type(data).__name__}")
    start, end = 0, len(data)
    while start < end:
        stop = data.rfind(b"\n", start, start + CHUNK_BYTES) + 1
        if not stop:
            stop = data.find(b"\n", start + CHUNK_BYTES) + 1 or end
        yield data[start:stop]
        start = stop


def decode_line(line: bytes) -> Event:
    """Decode one line, and open the payload where a rule needs it.

    Raises:
        InvalidEventError: It is not one event; the reason names the field.
    """
    try:
        return _decode_line(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidEventError(_other_encoding(line) or explain(error)) from None


def _decode_line(line: bytes) -> Event:
    if not line.isascii():
        line.decode()
    try:
        event = _decoder.decode(line)
    except msgspec.ValidationError:
        if b"null" not in line:
            raise
        event = _without_nulls(_nullable.decode(line))
    check_text(event)
    _set(event, "payload", read_payload(event))
    return event


def _other_encoding(line: bytes) -> str | None:
    """Say so where a line that is no event begins with the mark of another encoding than plain UTF-8."""
    if line.startswith(codecs.BOM_UTF8):
        return "JSON is malformed: a byte order mark (BOM) stands before it; write UTF-8 without one"
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "the line is UTF-16, as its byte order mark (BOM) says; write UTF-8"
    return None


def are_alike(chunk: bytes, lines: int) -> bool:
    """Whether all lines of a chunk, with its last LF, begin like the first one, and end one `{...}` each."""
    return lines == 1 or chunk.count(b"}\n" + chunk[:9]) == lines - 1


def decode(
    chunk: bytes,
    max_line_bytes: int = MAX_LINE_BYTES,
    *,
    lines: int = 0,
    alike: bool = False,
    told: int | None = None,
) -> Chunk:
    """Decode a chunk in one go where it is plainly good, and line by line where it is not.

    Never raises over what the lines hold.

    Args:
        chunk: Whole lines, the last LF being optional.
        max_line_bytes: Longest line that is taken.
        lines: How many lines there are, where the caller has counted them.
        alike: Whether the caller has found that they `are_alike`.
        told: How many rejections are described, besides the first one: the last ones; `None` for
            all of them. Saying why a line is refused costs more than finding that it is.
    """
    if not chunk.endswith(b"\n"):
        chunk += b"\n"
    if not lines:
        lines = 1 if chunk.find(b"\n") == len(chunk) - 1 else chunk.count(b"\n")
    if len(chunk) > max_line_bytes:
        return _decode_each(chunk, lines, max_line_bytes, told)
    try:
        try:
            events = _decoder.decode_lines(chunk)
        except msgspec.ValidationError:
            if b"null" not in chunk:
                raise
            events = [_without_nulls(event) for event in _nullable.decode_lines(chunk)]
        one_a_line = len(events) == lines and _has_one_value_a_line(chunk, lines, alike)
        if one_a_line and _holds_plain_text(chunk, events):
            for event in [event for event in events if event.payload is not ABSENT]:
                _set(event, "payload", read_payload(event))
            return Chunk(events, [], lines, chunk)
    except _REFUSING:
        pass
    return _decode_each(chunk, lines, max_line_bytes, told)


def _decode_each(chunk: bytes, lines: int, max_line_bytes: int, told: int | None) -> Chunk:
    """Decode line by line; a line that is no object, or equal to a refused one before it, costs least."""
    if not chunk.strip(BLANKS):
        return Chunk([], [], lines)
    events: list[Event] = []
    accepted: list[bytes] = []
    first: list[_Refused] = []
    refused: deque[_Refused] = deque(maxlen=told)
    count, last, why = 0, b"\n", None
    for number, line in enumerate(chunk.split(b"\n")[:-1], 1):
        if line != last:
            begins = line[:1] if line[:1] == b"{" else line.strip(BLANKS)[:1]
            if not begins:
                continue
            why = None
            if begins == b"{" and len(line) < max_line_bytes:
                try:
                    events.append(_decode_line(line))
                    accepted += line, b"\n"
                    continue
                except _REFUSING as error:
                    why = error.with_traceback(None)  # or it would hold on to all of this
            last = line
        count += 1
        (refused if first else first).append((number, line, why))
    rejections = _described([*first, *refused], max_line_bytes)
    return Chunk(events, rejections, lines, b"".join(accepted), count - len(rejections))


def _described(refused: Iterable[_Refused], max_line_bytes: int) -> list[Rejection]:
    """Say why lines are refused; equal ones that follow each other share the words."""
    rejections: list[Rejection] = []
    last, reason, text = b"\n", "", ""
    for number, line, why in refused:
        if line != last:
            last = line
            reason, text = clean(_reason(line, why, max_line_bytes), SHOWN_CHARS), shown(line)
        rejections.append(Rejection(reason, text, number))
    return rejections


def _reason(line: bytes, why: Exception | None, max_line_bytes: int) -> str:
    if why is None and len(line) >= max_line_bytes:
        return line_too_long(len(line) + 1, max_line_bytes)
    try:
        if why is None:
            _decode_line(line)  # which is no object
    except _REFUSING as error:
        why = error
    assert why is not None
    return why.reason if isinstance(why, InvalidEventError) else _other_encoding(line) or explain(why)


def line_too_long(size: int, limit: int) -> str:
    """Say that a line, with its LF, has more bytes than are taken."""
    return f"the line has {size} bytes; at most {limit} are taken"


def shown(line: bytes) -> str:
    """Return how a line begins, harmless to read."""
    return clean(line[: 4 * SHOWN_CHARS].decode("utf-8", "backslashreplace"), SHOWN_CHARS)


def _has_one_value_a_line(chunk: bytes, lines: int, alike: bool) -> bool:
    """Whether values, as many as there are lines, stand one on each.

    `decode_lines` of msgspec does not see lines: two objects on one are two
    events, one object over two is one. Inside one JSON value `}`, LF, `{` never
    follow each other; where that stands in every gap between values, and no LF
    stands elsewhere, each line holds one value. Lines of one producer begin
    alike, and a longer needle is found faster, so that is tried first.
    """
    if not (chunk.startswith(b"{") and chunk.endswith(b"}\n")):
        return False
    return alike or are_alike(chunk, lines) or chunk.count(b"}\n{") == lines - 1


def _holds_plain_text(chunk: bytes, events: list[Event]) -> bool:
    """Whether the chunk is valid UTF-8, also inside raw payloads, and no id may be too long."""
    if chunk.isascii() and (b"\\" not in chunk or b"\\u" not in chunk):
        return True  # then the decoder, which counts characters, has counted bytes
    chunk.decode()
    return not any(
        len(event.unit) > _LONG or len(event.run) > _LONG or len(event.type) > _LONG for event in events
    )


_event = partial(msgspec.StructMeta.__call__, Event)  # what the decoder checked is not checked again


def _without_nulls(event: _NullableEvent) -> Event:
    made: Event = _event(
        event.type,
        event.time,
        event.run or "",
        event.unit or "",
        event.task,
        event.pr,
        event.payload,
        event.error or "",
    )
    return made
