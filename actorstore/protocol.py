"""The protocol between a store and other processes: bytes in, messages out, and back.

One line-based protocol, in every language; docs/protocol.md is its contract.
Both ends use this module: a listening store reads with `StoreReader`, its
clients with `ClientReader`, and both write with the functions at the end.

Pure: no sockets, threads or clocks. A reader keeps at most one line that has
not ended yet, never raises, and says of a peer that breaks the protocol what it
did, once; after that it reads no more.

Reading order: the messages, `StoreReader`, `ClientReader`, the lines as they
are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from actorstore.answers import Rejection
from actorstore.event import MAX_ID_BYTES, MAX_INT, explain
from actorstore.text import clean
from actorstore.wire import (
    BLANKS,
    CHUNK_BYTES,
    MAX_LINE_BYTES,
    SHOWN_CHARS,
    are_alike,
    chunks,
    line_too_long,
    shown,
)

PROTOCOL: Final = 1
"""The version of the protocol."""

MAX_CONTROL_BYTES: Final = CHUNK_BYTES
"""Longest control line; a longer line is one like any other."""

LINES_AT_ONCE: Final = 1024
"""How many lines go together at most: as many as a chunk has of events that say anything, and then some."""

KEPT_BYTES: Final = 4 * SHOWN_CHARS
"""How much is kept of a line that is too long."""

Number = Annotated[int, Meta(ge=0, le=MAX_INT)]
Version = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]
ProducerId = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]


# What a client says.


class Lines(NamedTuple):
    """Whole lines, none of them a control line; at most `CHUNK_BYTES`, or one longer line alone."""

    data: bytes
    lines: int
    alike: bool = False
    """Whether they all are (`actorstore.wire.are_alike`)."""


class TooLong(NamedTuple):
    """A line over the limit, which is gone; it counts as one, rejected."""

    rejection: Rejection


class Hello(msgspec.Struct, frozen=True):
    """The opening of a client that wants to hear what becomes of its lines."""

    protocol: Annotated[int, Meta(ge=1, le=MAX_INT)]
    producer: ProducerId | None = None


class Bye(msgspec.Struct, frozen=True):
    """The end: all lines are acked, and the producer's id may be forgotten."""


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A question, answered after all that the same connection wrote before."""

    id: Number
    what: str
    run: str | None = None
    since: str | None = None
    connected: bool | None = None
    at: Version | None = None


class Violation(msgspec.Struct, frozen=True):
    """How a client broke the protocol; also what it is told."""

    code: str
    message: str


FromClient: TypeAlias = Lines | TooLong | Hello | Bye | Ask | Violation


# What a store says.


class Welcome(msgspec.Struct, frozen=True):
    """The answer to a hello."""

    store: str
    lines: Number
    version: Number
    rejected: Number = 0
    unknown: Number = 0


class Ack(msgspec.Struct, frozen=True):
    """The promise holds for all lines up to this one."""

    lines: Number
    unknown: Number = 0
    """How many of them are events of a unit that their run did not have."""


class Reject(msgspec.Struct, frozen=True):
    """A line was refused, and changed nothing."""

    line: Number
    reason: str = ""


class Answer(NamedTuple):
    """The answer to a question: what it holds, still in JSON, by name."""

    id: int
    parts: dict[str, msgspec.Raw]


class Refusal(msgspec.Struct, frozen=True):
    """Why a question, or the whole connection, was refused; what it is about, where it is about something."""

    code: str
    message: str = ""
    run: str | None = None
    versions: tuple[int, int, int] | None = None
    """The one asked for, the oldest and the newest there are."""
    journal: str | None = None
    """Path of a journal."""


FromStore: TypeAlias = Welcome | Ack | Reject | Answer | Refusal


# The store's end.

_CONTROL = re.compile(rb'[ \t\r]*\{[ \t\r]*"(?:hello|bye|ask)"[ \t\r]*:')
_NEXT_CONTROL = re.compile(b"\n" + _CONTROL.pattern)
_KEYS: Final = (b'"ask"', b'"bye"', b'"hello"')
_STARTS: Final = (b'{"ask"', b'{"bye"', b'{"hello"')
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_decoders: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "hello": msgspec.json.Decoder(Hello),
    "bye": msgspec.json.Decoder(Bye),
    "ask": msgspec.json.Decoder(Ask),
}


class StoreReader:
    """What a store reads from one connection.

    Args:
        max_line_bytes: Longest line that is taken, in bytes, its LF included.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.says_hello = False
        """Whether the connection began with a hello, so that it wants to hear back."""
        self._max_line_bytes = max_line_bytes
        self._is_open = False  # whether its first line is known
        self._tail = bytearray()  # a line that has not ended yet
        self._dropped = 0  # bytes of it that are gone, because it is too long
        self._is_blank = True  # whether those say nothing
        self._is_over = False

    @property
    def unfinished(self) -> int:
        """How many bytes are kept of a line that has not ended."""
        return len(self._tail)

    def close(self) -> None:
        """Read nothing more, and keep nothing."""
        self._is_over = True
        self._tail.clear()

    def feed(self, data: bytes) -> list[FromClient]:
        """Take what was received, and return the messages that are whole now, in order."""
        return list(self.read(data))

    def read(self, data: bytes) -> Iterator[FromClient]:
        """Take what was received, and return the messages one by one; all of them before more is read.

        Much may be said in few bytes, so a reader that takes turns takes some messages at a time.
        """
        if self._is_over:
            return
        end = data.rfind(b"\n") + 1
        if not end:
            self._keep(data)
            return
        start = 0
        if self._dropped:
            start = data.find(b"\n") + 1
            self._drop(data[:start])
            yield self._too_long()
        whole = bytes(self._tail) + data[start:end] if self._tail else data[start:end]
        self._tail.clear()
        for message in self._messages(whole):
            if isinstance(message, Violation):
                self._is_over = True
                yield message
                return
            yield message
        if not self._is_over:
            self._keep(data[end:])

    def _keep(self, data: bytes) -> None:
        """Keep the start of a line, and no more of one that is too long than is shown."""
        if self._dropped:
            self._drop(data)
            return
        self._tail += data
        if len(self._tail) > max(self._max_line_bytes, MAX_CONTROL_BYTES):
            self._is_blank = not self._tail[:KEPT_BYTES].strip(BLANKS)
            self._drop(bytes(self._tail[KEPT_BYTES:]))
            del self._tail[KEPT_BYTES:]

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        self._is_blank = self._is_blank and not data.strip(BLANKS)

    def _too_long(self) -> Lines | TooLong:
        """Return what a line was that is too long: rejected, or blank, as it would be had it come at once."""
        size, head = self._dropped + len(self._tail), shown(bytes(self._tail))
        self._tail.clear()
        self._dropped = 0
        self._is_open = True
        if self._is_blank:
            return Lines(b"\n", 1)
        return TooLong(Rejection(line_too_long(size, self._max_line_bytes), head, 1))

    def _messages(self, whole: bytes) -> Iterator[FromClient]:
        for chunk in chunks(whole):
            lines = chunk.count(b"\n") if len(chunk) <= CHUNK_BYTES else 1
            for piece in cut(Lines(chunk, lines), LINES_AT_ONCE):
                if self._is_open and have_no_control(*piece[:2]):
                    yield piece._replace(alike=True)
                elif self._is_open and not may_hold_control(piece.data):
                    yield piece
                else:
                    yield from self._line_by_line(piece.data)

    def _line_by_line(self, chunk: bytes) -> Iterator[FromClient]:
        """Return control lines, and the lines between them."""
        done = 0
        for start in _control_places(chunk):
            end = chunk.find(b"\n", start) + 1
            found = control(chunk[start:end])
            if found is None:
                continue
            if start > done:
                self._is_open = True
                yield Lines(chunk[done:start], chunk.count(b"\n", done, start))
            yield self._control(*found)
            self._is_open = True
            done = end
        self._is_open = True
        if done < len(chunk):
            yield Lines(chunk[done:], chunk.count(b"\n", done))

    def _control(self, name: str, value: msgspec.Raw) -> Hello | Bye | Ask | Violation:
        if name == "hello" and self._is_open:
            return Violation("late_hello", "hello comes first, and once a connection")
        if name != "hello" and not self.says_hello:
            first = hello().decode().strip()
            return Violation("no_hello", f"{name} is for connections that begin with {first}")
        try:
            str(value, "utf-8")
            message: Hello | Bye | Ask = _decoders[name].decode(value)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return Violation(f"bad_{name}", clean(f"{name}: {explain(error)}", SHOWN_CHARS))
        if isinstance(message, Hello):
            if message.producer is not None and len(message.producer.encode()) > MAX_ID_BYTES:
                return Violation("bad_hello", f"producer: at most {MAX_ID_BYTES} bytes of UTF-8 are taken")
            if message.protocol != PROTOCOL:
                return Violation(
                    "wrong_protocol",
                    f"this store speaks protocol {PROTOCOL}, not {message.protocol}; use the same version of "
                    "actorstore at both ends",
                )
            self.says_hello = True
        return message


def have_no_control(chunk: bytes, lines: int) -> bool:
    """Whether lines are alike, and none of them is blank or a control line: what a producer mostly sends.

    All of them begin like the first; where that is no control line, none is.
    """
    return (
        chunk.startswith(b'{"')
        and not chunk.startswith(_STARTS)
        and len(chunk) <= MAX_CONTROL_BYTES
        and are_alike(chunk, lines)
    )


def may_hold_control(chunk: bytes) -> bool:
    """Whether some line of a chunk may be a control line."""
    return len(chunk) <= MAX_CONTROL_BYTES and any(key in chunk for key in _KEYS)


def cut(lines: Lines, most: int) -> list[Lines]:
    """Cut lines into pieces of so many lines at most."""
    data, count, alike = lines
    if count <= most:
        return [lines]
    middle = data.find(b"\n", len(data) // 2) + 1
    if middle == len(data):  # a long line, after short ones
        middle = data.rfind(b"\n", 0, len(data) - 1) + 1
    before = data.count(b"\n", 0, middle)
    first, second = Lines(data[:middle], before, alike), Lines(data[middle:], count - before, alike)
    return cut(first, most) + cut(second, most)


def _control_places(chunk: bytes) -> Iterator[int]:
    """Return where lines begin that look like control lines."""
    if _CONTROL.match(chunk):
        yield 0
    for found in _NEXT_CONTROL.finditer(chunk):
        yield found.start() + 1


def control(line: bytes) -> tuple[str, msgspec.Raw] | None:
    """Return name and value of a control line, and nothing of any other line.

    It is an object whose only key is `hello`, `bye` or `ask`, written plainly.
    """
    if len(line) > MAX_CONTROL_BYTES or not _CONTROL.match(line):
        return None
    try:
        members = _members.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return next(iter(members.items())) if len(members) == 1 else None


# The client's end.


class _FromStore(msgspec.Struct):
    welcome: Welcome | None = None
    ack: Ack | None = None
    reject: Reject | None = None
    answer: dict[str, msgspec.Raw] | None = None
    error: Refusal | None = None


_from_store: Final = msgspec.json.Decoder(_FromStore)
_number: Final = msgspec.json.Decoder(Number)


class ClientReader:
    """What a client reads from its connection; lines that it does not know are passed over."""

    def __init__(self) -> None:
        self._tail = bytearray()

    def feed(self, data: bytes) -> list[FromStore]:
        """Take what was received, and return the messages that are whole now, in order.

        Raises:
            ValueError: The other end does not speak this protocol.
        """
        end = data.rfind(b"\n") + 1
        if not end:
            self._tail += data
            return []
        whole = bytes(self._tail) + data[:end] if self._tail else data[:end]
        self._tail = bytearray(data[end:])
        messages: list[FromStore] = []
        for line in whole.split(b"\n")[:-1]:
            try:
                message = _message(_from_store.decode(line))
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                raise ValueError(f"{explain(error)}: {shown(line)}") from None
            if message is not None:
                messages.append(message)
        return messages


def _message(line: _FromStore) -> FromStore | None:
    if line.answer is not None:
        parts = line.answer
        return Answer(_number.decode(parts.pop("id", msgspec.Raw(b"null"))), parts)
    return line.ack or line.reject or line.welcome or line.error


# The lines as they are written.


def hello(producer: str | None = None) -> bytes:
    """Return the line that a client opens with."""
    named = {"producer": producer} if producer else {}
    return _line("hello", {**named, "protocol": PROTOCOL})


def bye() -> bytes:
    """Return the line that ends a producer."""
    return _line("bye", {})


def ask(question: Ask) -> bytes:
    """Return the line that asks a question."""
    return _line("ask", question)


class Sendable(NamedTuple):
    """Lines as a client sends them."""

    data: bytes
    lines: int
    blank: int


def sendable(chunk: bytes) -> Sendable:
    """Return lines so that each of them counts once: a control line becomes one that is rejected.

    Args:
        chunk: Lines as `actorstore.wire.chunks` cuts them, the last LF being optional.
    """
    if not chunk.endswith(b"\n"):
        chunk += b"\n"
    lines = chunk.count(b"\n") if len(chunk) <= CHUNK_BYTES + 1 else 1
    if have_no_control(chunk, lines):
        return Sendable(chunk, lines, 0)
    blank = count_blank(chunk)
    if any(key in chunk for key in _KEYS):
        chunk = b"\n".join(
            [part if control(part) is None else _harmless(part) for part in chunk.split(b"\n")]
        )
    return Sendable(chunk, lines, blank)


def count_blank(lines: bytes) -> int:
    """Count the lines that say nothing; the last one ends in LF too."""
    return sum(not line.strip(BLANKS) for line in lines.split(b"\n")[:-1])


def _harmless(line: bytes) -> bytes:
    """Return a control line as one that counts, and is rejected for what it is: no event."""
    return line.replace(b"{", b'{"":0,', 1)


def welcome(message: Welcome) -> bytes:
    """Return the line that answers a hello; `unknown` is left out where it is 0."""
    fields = msgspec.structs.asdict(message)
    if not message.unknown:
        del fields["unknown"]
    return _line("welcome", fields)


def ack(lines: int, unknown: int = 0) -> bytes:
    """Return the line that acks all lines up to this one, so many of which are events of unknown units."""
    if unknown:
        return b'{"ack":{"lines":%d,"unknown":%d}}\n' % (lines, unknown)
    return b'{"ack":{"lines":%d}}\n' % lines


def rejects(rejections: Iterable[Rejection]) -> bytes:
    """Return the lines that say why lines were refused; reasons that are the same one are encoded once."""
    told: list[bytes] = []
    last, reason = None, b""
    for rejection in rejections:
        if rejection.reason is not last:
            last = rejection.reason
            reason = msgspec.json.encode(last)
        told.append(b'{"reject":{"line":%d,"reason":%s}}\n' % (rejection.line or 0, reason))
    return b"".join(told)


def answer(id: int, parts: Mapping[str, bytes]) -> bytes:
    """Return the line that answers a question, its parts in JSON already."""
    told = b"".join([b',"%s":%s' % (name.encode(), value) for name, value in parts.items()])
    return b'{"answer":{"id":%d%s}}\n' % (id, told)


def sliced_answer(id: int, parts: Mapping[str, Iterable[bytes]]) -> Iterator[bytes]:
    """Yield the line that answers a question, its parts in slices of JSON; empty slices are kept."""
    yield b'{"answer":{"id":%d' % id
    for name, slices in parts.items():
        yield b',"%s":' % name.encode()
        yield from slices
    yield b"}}\n"


def refusal(id: int, error: Refusal) -> bytes:
    """Return the line that refuses a question."""
    return answer(id, {"error": _encode_refusal(error)})


def error(violation: Refusal | Violation) -> bytes:
    """Return the last line of a connection that is closed, and why."""
    return b'{"error":%s}\n' % _encode_refusal(violation)


def _encode_refusal(error: Refusal | Violation) -> bytes:
    fields = {name: value for name, value in msgspec.structs.asdict(error).items() if value is not None}
    return msgspec.json.encode(fields)


def _line(name: str, value: object) -> bytes:
    return msgspec.json.encode({name: value}) + b"\n"
