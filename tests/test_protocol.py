"""The protocol: however a session is cut into pieces, the same messages come out, and nothing is raised."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actorstore.answers import Rejection
from actorstore.event import MAX_ID_BYTES, MAX_INT
from actorstore.protocol import (
    LINES_AT_ONCE,
    MAX_CONTROL_BYTES,
    PROTOCOL,
    Ack,
    Answer,
    Ask,
    Bye,
    ClientReader,
    FromClient,
    FromStore,
    Hello,
    Lines,
    Refusal,
    Reject,
    StoreReader,
    TooLong,
    Violation,
    Welcome,
    ack,
    answer,
    ask,
    bye,
    control,
    error,
    have_no_control,
    hello,
    may_hold_control,
    refusal,
    rejects,
    sendable,
    welcome,
)
from actorstore.wire import CHUNK_BYTES, are_alike, chunks, decode
from tests.builders import diamond, line, lines, orch_started, unit_failed, unit_queued, whole_run

HELLO = hello("p")
EVENT = line(unit_queued("a"))
LIMIT = 600
"""Bytes of the longest line, where a test is about lines over the limit."""

SESSION = b"".join(
    [
        HELLO,
        lines(orch_started(diamond()), unit_queued("a")),
        ask(Ask(1, "snapshot")),
        b"\n \t\r\n",
        b"no event\n",
        line(unit_failed("a", "é")),
        ask(Ask(2, "next", "", "cursor", True)),
        ask(Ask(3, "forget")),
        EVENT * 3,
        bye(),
    ]
)


def read(pieces: Iterable[bytes], limit: int = CHUNK_BYTES) -> list[FromClient]:
    """What a store reads, piece by piece."""
    reader = StoreReader(limit)
    return [message for piece in pieces for message in reader.feed(piece)]


def told(messages: Iterable[FromClient], limit: int = CHUNK_BYTES) -> list[object]:
    """What messages say, however their lines are grouped: per group events, rejections, lines."""
    said: list[object] = []
    events: list[object] = []
    rejections: list[object] = []
    count = 0
    for message in [*messages, None]:
        match message:
            case Lines(data, lines, alike):
                assert lines == data.count(b"\n")
                chunk = decode(data, limit, lines=lines, alike=alike)
                assert chunk == decode(data, limit)
                events += chunk.events
                rejections += [
                    (count + (found.line or 0), found.reason, found.text) for found in chunk.rejections
                ]
                count += lines
            case TooLong(found):
                count += 1
                rejections.append((count, found.reason, found.text))
            case _:
                if count:
                    said.append((events, rejections, count))
                events, rejections, count = [], [], 0
                said.append(message)
    return said[:-1]


def counted(messages: Iterable[FromClient]) -> int:
    """How many lines the messages account for."""
    return sum(
        message.lines if isinstance(message, Lines) else isinstance(message, TooLong) for message in messages
    )


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut at these places."""
    return [data[start:end] for start, end in pairwise(sorted({0, len(data), *places}))]


def one_by_one(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 1] for place in range(len(data)))


# Every split.


def test_what_is_read_at_once_comes_in_messages_of_some_lines_each() -> None:
    """Short lines are many: who takes turns between connections takes some of them at a time."""
    said = {b"x\n", b"\n", b'"ask"\n', b'{"ask":\n', b'{"type":"a"}\n', b"x\n" * 500 + b"y" * 70_000 + b"\n"}
    for part in said:
        data = part * 5000
        reader = StoreReader()
        lines = 0
        for message in reader.read(data):
            assert isinstance(message, Lines)
            assert message.data.count(b"\n") == message.lines <= LINES_AT_ONCE
            lines += message.lines
        assert lines == data.count(b"\n")


def test_messages_are_read_as_they_are_taken_and_nothing_is_read_twice() -> None:
    reader = StoreReader()
    coming = reader.read(HELLO + ask(Ask(1, "stats")) + EVENT * 3 + EVENT[:5])
    assert [type(message) for message in coming] == [Hello, Ask, Lines]
    assert [message.lines for message in reader.read(EVENT[5:]) if isinstance(message, Lines)] == [1]


def test_a_session_says_what_was_written():
    said = told(read([SESSION]))
    assert [type(message) for message in said if not isinstance(message, tuple)] == [
        Hello,
        Ask,
        Ask,
        Ask,
        Bye,
    ]
    groups = [message for message in said if isinstance(message, tuple)]
    assert [(len(events), rejections, count) for events, rejections, count in groups] == [
        (2, [], 2),
        (1, [(3, "JSON is malformed: invalid character (byte 4)", "no event")], 4),
        (3, [], 3),
    ]


def test_every_cut_in_two_says_the_same():
    whole = told(read([SESSION]))
    for place in range(len(SESSION) + 1):
        assert told(read([SESSION[:place], SESSION[place:]])) == whole, place


def test_byte_by_byte_says_the_same():
    assert told(read(one_by_one(SESSION))) == told(read([SESSION]))


@given(st.sets(st.integers(0, len(SESSION))))
def test_any_cut_in_many_says_the_same(places: set[int]):
    assert told(read(cut(SESSION, places))) == told(read([SESSION]))


def test_a_long_session_cut_as_sockets_do_says_the_same():
    events = lines(*whole_run({f"u{number}": [] for number in range(900)}))
    session = HELLO + events + ask(Ask(1, "stats")) + b"\n" + events + bye()
    whole = told(read([session]))
    for size in (CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 1 << 18):
        assert told(read(cut(session, range(0, len(session), size)))) == whole, size


@pytest.mark.parametrize(
    "long",
    [
        pytest.param(b"x" * (LIMIT - 2), id="less than the limit"),
        pytest.param(b"x" * (LIMIT - 1), id="at the limit"),
        pytest.param(b"x" * LIMIT, id="its end over the limit"),
        pytest.param(b"x" * 3 * LIMIT, id="far over the limit"),
        pytest.param("é".encode() * LIMIT, id="not ASCII"),
        pytest.param(b'{"type":"x","error":"' + b"\x1b" * LIMIT + b'"}', id="control characters"),
        pytest.param(b'{"type":"x","error":"' + b"y" * LIMIT + b'"}', id="an event"),
    ],
)
def test_a_line_over_the_limit_is_refused_alone_however_it_is_cut(long: bytes):
    session = HELLO + EVENT + long + b"\n" + EVENT + long + b"\n" + ask(Ask(1, "stats")) + EVENT
    whole = told(read([session], LIMIT), LIMIT)
    assert [group[2] for group in whole if isinstance(group, tuple)] == [4, 1]
    assert told(read(one_by_one(session), LIMIT), LIMIT) == whole
    for place in range(len(session)):
        assert told(read([session[:place], session[place:]], LIMIT), LIMIT) == whole, place


def test_a_blank_line_over_the_limit_is_the_same_however_it_is_cut():
    session = HELLO + EVENT + b" " * 2 * LIMIT + b"\n" + EVENT
    assert told(read(one_by_one(session), LIMIT), LIMIT) == told(read([session], LIMIT), LIMIT)


def test_no_more_is_kept_of_a_line_over_the_limit_than_is_shown():
    reader = StoreReader(LIMIT)
    assert counted(reader.feed(EVENT + b"x" * 100_000)) == 1
    assert len(reader._tail) <= LIMIT
    for _ in range(9):
        assert reader.feed(b"x" * 100_000) == []
    assert len(reader._tail) <= LIMIT
    [refused] = reader.feed(b"\n")
    assert isinstance(refused, TooLong)
    assert refused.rejection.reason == f"the line has 1000001 bytes; at most {LIMIT} are taken"


def test_a_control_line_is_one_however_it_is_cut_and_however_short_lines_must_be():
    session = HELLO + ask(Ask(1, "snapshot")) + EVENT + bye()
    assert told(read(one_by_one(session), 16), 16) == told(read([session], 16), 16)


def test_a_line_over_the_limit_may_come_first_and_then_it_is_too_late_for_a_hello():
    messages = read([b"x" * CHUNK_BYTES, b"x", b"\n", HELLO], LIMIT)
    assert [type(message) for message in messages] == [TooLong, Violation]


def test_a_tail_that_has_not_ended_is_no_line():
    for session in (EVENT[:-1], HELLO[:-1], b"x" * 2 * LIMIT):
        assert read([session], LIMIT) == []
        assert read(one_by_one(session), LIMIT) == []


def test_blank_lines_count():
    messages = read([HELLO + b"\n\n \n\t\r\n" + EVENT])
    assert counted(messages) == 5


def test_a_chunk_holds_no_more_than_is_decoded_at_a_time():
    messages = read([HELLO + EVENT * 5000])
    sizes = [len(message.data) for message in messages if isinstance(message, Lines)]
    assert max(sizes) <= CHUNK_BYTES
    assert counted(messages) == 5000


# Who is who.


def test_without_a_hello_every_line_is_one_like_any_other():
    reader = StoreReader()
    assert counted(reader.feed(EVENT + b"\n" + EVENT)) == 3
    assert not reader.says_hello


@pytest.mark.parametrize("first", [EVENT, b"\n", b"nonsense\n", HELLO], ids=repr)
def test_a_hello_that_is_not_the_first_line_is_late(first: bytes):
    for pieces in ([first + HELLO], one_by_one(first + HELLO)):
        last = read(pieces)[-1]
        assert isinstance(last, Violation)
        assert last.code == "late_hello"


@pytest.mark.parametrize("line", [ask(Ask(1, "stats")), bye(), b'{"ask":7}\n'], ids=repr)
def test_who_did_not_say_hello_may_not_speak_so(line: bytes):
    for session in (line, EVENT + line):
        last = read([session])[-1]
        assert isinstance(last, Violation)
        assert last.code == "no_hello"


@pytest.mark.parametrize("protocol", [PROTOCOL + 1, MAX_INT])
def test_another_protocol_is_refused_and_both_are_named(protocol: int):
    [violation] = read([b'{"hello":{"protocol":%d}}\n' % protocol])
    assert isinstance(violation, Violation)
    assert violation.code == "wrong_protocol"
    assert f"protocol {PROTOCOL}, not {protocol}" in violation.message


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"hello":null}', "bad_hello"),
        (b'{"hello":{}}', "bad_hello"),
        (b'{"hello":[1]}', "bad_hello"),
        (b'{"hello":{"protocol":"1"}}', "bad_hello"),
        (b'{"hello":{"protocol":0}}', "bad_hello"),
        (b'{"hello":{"protocol":1.5}}', "bad_hello"),
        (b'{"hello":{"protocol":%d}}' % 2**60, "bad_hello"),
        (b'{"hello":{"protocol":1,"producer":""}}', "bad_hello"),
        (b'{"hello":{"protocol":1,"producer":7}}', "bad_hello"),
        (b'{"hello":{"protocol":1,"producer":"%s"}}' % (b"x" * (MAX_ID_BYTES + 1)), "bad_hello"),
        (b'{"hello":{"protocol":1,"x":"\xff"}}', "bad_hello"),
        (b'{"ask":null}', "bad_ask"),
        (b'{"ask":"stats"}', "bad_ask"),
        (b'{"ask":{"id":1}}', "bad_ask"),
        (b'{"ask":{"what":"stats"}}', "bad_ask"),
        (b'{"ask":{"id":-1,"what":"stats"}}', "bad_ask"),
        (b'{"ask":{"id":%d,"what":"stats"}}' % (MAX_INT + 1), "bad_ask"),
        (b'{"ask":{"id":"1","what":"stats"}}', "bad_ask"),
        (b'{"ask":{"id":1,"what":"stats","run":7}}', "bad_ask"),
        (b'{"ask":{"id":1,"what":"next","connected":1}}', "bad_ask"),
        (b'{"bye":null}', "bad_bye"),
        (b'{"bye":0}', "bad_bye"),
    ],
)
def test_a_control_line_that_is_wrong_is_a_violation(line: bytes, code: str):
    session = line + b"\n" if code == "bad_hello" else HELLO + line + b"\n"
    last = read([session])[-1]
    assert isinstance(last, Violation)
    assert last.code == code


def test_what_a_violation_says_is_harmless_to_read():
    last = read([HELLO + b'{"ask":{"id":"\\u001b[2J","what":"x"}}\n'])[-1]
    assert isinstance(last, Violation)
    assert last.message.isprintable()


@pytest.mark.parametrize(
    "producer",
    ["p", " ", "0", "é" * (MAX_ID_BYTES // 2), "\0", "\x1b[2J", "\u2028", "a\nb", '"', "null"],
    ids=ascii,
)
def test_a_producer_may_be_called_anything(producer: str):
    assert read([hello(producer)]) == [Hello(PROTOCOL, producer)]


def test_a_producer_id_is_measured_in_bytes():
    [violation] = read([hello("é" * (MAX_ID_BYTES // 2 + 1))])
    assert isinstance(violation, Violation)
    assert violation.code == "bad_hello"


@pytest.mark.parametrize("line", [b'{"hello":{"protocol":1}}', b'{"hello":{"producer":null,"protocol":1}}'])
def test_a_producer_need_not_be_called_anything(line: bytes):
    assert read([line + b"\n"]) == [Hello(PROTOCOL)]


def test_fields_that_are_not_known_are_passed_over():
    session = (
        b'{"hello":{"protocol":1,"new":{"a":[1]}}}\n{"ask":{"new":1,"id":7,"what":"x"}}\n{"bye":{"a":1}}\n'
    )
    assert read([session]) == [Hello(PROTOCOL), Ask(7, "x"), Bye()]


@pytest.mark.parametrize("bad", [HELLO, b'{"ask":7}\n', b'{"bye":7}\n'], ids=repr)
def test_after_a_violation_nothing_more_is_read(bad: bytes):
    reader = StoreReader()
    first = reader.feed(HELLO + EVENT + bad + EVENT + bye())
    assert [type(message) for message in first] == [Hello, Lines, Violation]
    for more in (EVENT, b"x" * 100, b"\n", HELLO):
        assert reader.feed(more) == []
    assert len(reader._tail) == 0


# What a control line is.


@pytest.mark.parametrize(
    "line",
    [
        b'{"ask":1}',
        b'{"ask" : 1}',
        b' \t\r{ \t\r"ask" \t\r: 1 } \r',
        b'{"bye":null}',
        b'{"hello":{"ask":1}}',
        b'{"ask":1,"ask":2}',
        b'{"ask":"\\u0061"}',
    ],
)
def test_an_object_with_one_plain_key_is_a_control_line(line: bytes):
    assert control(line + b"\n") is not None
    assert may_hold_control(line + b"\n")
    assert not have_no_control(line + b"\n", 1)


LOOKALIKES = [
    b'{"ask":1,"x":2}',
    b'{"x":2,"ask":1}',
    b'{"ask":1,"bye":2}',
    b'{"":0,"ask":1}',
    b'{"\\u0061sk":1}',
    b'{"Ask":1}',
    b'{"asks":1}',
    b'{"ask ":1}',
    b'{"type":{"ask":1}}',
    b'{"type":"x","error":"\\"ask\\""}',
    b'[{"ask":1}]',
    b'"ask"',
    b'{"ask"}',
    b'{"ask":}',
    b'{"ask":1',
    b'{"ask":1}}',
    b'{"ask":1}{"ask":1}',
    b'{"ask":1} x',
    b"{ask:1}",
    b"{'ask':1}",
    b'\xef\xbb\xbf{"ask":1}',
    b'\x0b{"ask":1}',
    b'\x00{"ask":1}',
    b'\xc2\xa0{"ask":1}',
    b'{"ask":\xff}',
    b"{}",
    b"",
]


@pytest.mark.parametrize("line", LOOKALIKES, ids=repr)
def test_what_only_looks_like_a_control_line_is_one_like_any_other(line: bytes):
    assert control(line + b"\n") is None
    for session in (HELLO + line + b"\n", HELLO + EVENT + line + b"\n" + EVENT, line + b"\n"):
        messages = read([session])
        assert not any(isinstance(message, Violation | Ask | Bye) for message in messages)
        assert counted(messages) == session.count(b"\n") - session.startswith(HELLO)
        assert told(read(one_by_one(session))) == told(messages)


@pytest.mark.parametrize("spare", [0, 1])
def test_a_question_has_64_kib_at_most(spare: int):
    head, tail = b'{"ask":{"id":1,"what":"x","since":"', b'"}}\n'
    line = head + b"y" * (MAX_CONTROL_BYTES - len(head) - len(tail) + spare) + tail
    messages = read([HELLO + EVENT + line])
    assert [type(message) for message in messages] == [Hello, Lines, Lines if spare else Ask]


@pytest.mark.parametrize("spare", [0, 1])
def test_so_has_a_hello(spare: int):
    head, tail = b'{"hello":{"protocol":1,"later":"', b'"}}\n'
    line = head + b"y" * (MAX_CONTROL_BYTES - len(head) - len(tail) + spare) + tail
    for pieces in ([line], cut(line, [MAX_CONTROL_BYTES - 1])):
        assert [type(message) for message in read(pieces)] == [Lines if spare else Hello]


def test_nesting_too_deep_to_decode_is_no_control_line():
    line = b'{"ask":' + b"[" * 30_000 + b"]" * 30_000 + b"}\n"
    messages = read([HELLO + line])
    assert [type(message) for message in messages] == [Hello, Lines]
    assert told(messages)[1][1][0][1] == "nested too deeply"  # type: ignore[index]


TOKENS = [
    b'"ask"',
    b'"bye"',
    b'"hello"',
    b'"type"',
    b'"x"',
    b'"\\u0061sk"',
    b"{",
    b"}",
    b"{}",
    b":",
    b",",
    b" ",
]
TOKENS += [
    b"\t",
    b"\r",
    b"1",
    b'{"',
    b'{"ask":',
    b'"id":1',
    b'{"type":"x"}',
    b"ask",
    b'"',
    b"\\",
    b"\xff",
    b"\x00",
]
garbage_line = st.one_of(
    st.lists(st.sampled_from(TOKENS), max_size=8).map(b"".join),
    st.sampled_from([*LOOKALIKES, b'{"ask":1}', b' {"bye":{}}', b'{"hello":{}} ', EVENT[:-1], b" "]),
    st.binary(max_size=12).map(lambda found: found.replace(b"\n", b"")),
)
garbage = st.lists(garbage_line, max_size=12).map(lambda found: b"".join([line + b"\n" for line in found]))


@given(garbage)
@example(b'{"a":1}\n{"ask":1}\n')
@example(b'{"a":123}\n{"a":123}\n{"bye":1}\n')
@example(b'{"aaaa":1}\n{"aaaa":1}\n')
@example(b'{"}\n{"}\n')
def test_a_quick_look_never_misses_a_control_line(chunk: bytes):
    found = [control(line + b"\n") is not None for line in chunk.split(b"\n")[:-1]]
    assert may_hold_control(chunk) or not any(found)
    if have_no_control(chunk, len(found)):
        assert not any(found)
        assert all(line.startswith(b'{"') for line in chunk.split(b"\n")[:-1])
        assert are_alike(chunk, len(found))


@given(garbage, st.data())
def test_garbage_says_the_same_however_it_is_cut(data: bytes, draw: st.DataObject):
    session = (
        draw.draw(st.sampled_from([b"", HELLO, HELLO + EVENT])) + data + draw.draw(st.binary(max_size=3))
    )
    places = draw.draw(st.sets(st.integers(0, len(session))))
    assert told(read(cut(session, places))) == told(read([session]))


# What a client sends.


def check_sendable(data: bytes) -> None:
    """Every line counts once at the other end, and none of them is taken for anything else."""
    for chunk in chunks(data):
        sent = sendable(chunk)
        assert sent.data.endswith(b"\n")
        reader = StoreReader()
        reader.feed(HELLO)
        messages = reader.feed(sent.data)
        assert all(isinstance(message, Lines) for message in messages)
        assert counted(messages) == sent.lines == chunk.count(b"\n") + (not chunk.endswith(b"\n"))
        mine, theirs = decode(chunk), decode(sent.data)
        assert theirs.events == mine.events
        assert [found.line for found in theirs.rejections] == [found.line for found in mine.rejections]
        assert sent.blank == sent.lines - len(mine.events) - len(mine.rejections)


@given(garbage, st.sampled_from([b"", b'{"ask":1}', EVENT[:-1], b" ", b'{"bye"']))
def test_what_is_sent_counts_line_for_line(data: bytes, tail: bytes):
    check_sendable(data + tail)


@pytest.mark.parametrize("line", [ask(Ask(1, "stats")), bye(), HELLO, b' { "bye":1}'], ids=repr)
def test_a_control_line_among_events_is_sent_as_one_that_is_rejected(line: bytes):
    sent = sendable(EVENT + line)
    assert sent.lines == 2
    [rejection] = decode(sent.data).rejections
    assert rejection.line == 2
    assert rejection.reason == "Object missing required field `type`"


def test_what_is_sent_is_not_copied_where_nothing_is_to_be_done():
    data = EVENT * 3
    assert sendable(data).data is data


@pytest.mark.parametrize("spare", range(-7, 3))
def test_lines_at_the_border_of_a_chunk_are_sent_whole(spare: int):
    long = b'{"type":"x","error":"' + b"y" * (CHUNK_BYTES - 23 + spare) + b'"}'
    check_sendable(long)
    check_sendable(long + b"\n")
    check_sendable(long + b"\n" + ask(Ask(1, "x")))
    control_line = b'{"ask":"' + b"y" * (CHUNK_BYTES - 10 + spare) + b'"}'
    check_sendable(control_line)
    check_sendable(control_line + b"\n")


# And back.


SAID: list[tuple[bytes, FromStore]] = [
    (welcome(Welcome("s", 1, 2, 3)), Welcome("s", 1, 2, 3)),
    (welcome(Welcome("s", 1, 2, 3, 4)), Welcome("s", 1, 2, 3, 4)),
    (ack(0), Ack(0)),
    (ack(MAX_INT), Ack(MAX_INT)),
    (ack(5, MAX_INT), Ack(5, MAX_INT)),
    (rejects([Rejection('a "quoted" é\nreason', "", 7)]), Reject(7, 'a "quoted" é\nreason')),
    (answer(7, {"graph": b"null"}), Answer(7, {"graph": msgspec.Raw(b"null")})),
    (
        answer(0, {"cursor": b'"c"', "snapshot": b'{"id":1}'}),
        Answer(0, {"cursor": msgspec.Raw(b'"c"'), "snapshot": msgspec.Raw(b'{"id":1}')}),
    ),
    (error(Violation("bad_ask", "why")), Refusal("bad_ask", "why")),
    (error(Refusal("closed", "why")), Refusal("closed", "why")),
    (
        refusal(3, Refusal("unknown_run", "no run 'é'", "é")),
        Answer(
            3, {"error": msgspec.Raw('{"code":"unknown_run","message":"no run \'é\'","run":"é"}'.encode())}
        ),
    ),
]


@pytest.mark.parametrize(("line", "message"), SAID, ids=[repr(line) for line, _ in SAID])
def test_what_a_store_writes_is_what_a_client_reads(line: bytes, message: FromStore):
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert ClientReader().feed(line) == [message]


def test_a_client_reads_the_same_however_it_is_cut():
    session, expected = b"".join(line for line, _ in SAID), [message for _, message in SAID]
    reader = ClientReader()
    assert [message for piece in one_by_one(session) for message in reader.feed(piece)] == expected
    for place in range(len(session)):
        reader = ClientReader()
        assert reader.feed(session[:place]) + reader.feed(session[place:]) == expected


@pytest.mark.parametrize(
    "message", [Hello(PROTOCOL, "é"), Ask(1, "x"), Ask(MAX_INT, "", "r", "c", False), Bye()], ids=repr
)
def test_what_a_client_writes_is_what_a_store_reads(message: Hello | Ask | Bye):
    match message:
        case Hello(_, producer):
            assert read([hello(producer)]) == [message]
        case Ask():
            assert read([HELLO + ask(message)])[1:] == [message]
        case Bye():
            assert read([HELLO + bye()])[1:] == [message]


@pytest.mark.parametrize(
    "line",
    [b"{}", b'{"later":1}', b'{"later":{"lines":"x"}}', b'{"ack":null}', b' {"later":[]} \r'],
)
def test_a_client_passes_over_lines_that_it_does_not_know(line: bytes):
    assert ClientReader().feed(ack(1) + line + b"\n" + ack(2)) == [Ack(1), Ack(2)]


def test_a_client_passes_over_fields_that_it_does_not_know():
    assert ClientReader().feed(b'{"later":1,"ack":{"lines":3,"time":4}}\n') == [Ack(3)]
    assert ClientReader().feed(b'{"welcome":{"store":"s","lines":1,"version":2}}\n') == [Welcome("s", 1, 2)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1 400 Bad Request",
        b"[]",
        b"null",
        b"7",
        b'{"ack":1}',
        b'{"ack":{}}',
        b'{"ack":{"lines":-1}}',
        b'{"ack":{"lines":%d}}' % (MAX_INT + 1),
        b'{"answer":{}}',
        b'{"answer":{"id":"x"}}',
        b'{"answer":{"id":null}}',
        b'{"answer":[]}',
        b'{"reject":{}}',
        b'{"welcome":{"store":"s"}}',
        b'{"error":{}}',
        b'{"ack":{"lines":1}} {"ack":{"lines":2}}',
        b'{"error":{"code":"\xff"}}',
        b'{"later":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
    ids=lambda line: repr(line[:40]),
)
def test_a_client_raises_over_what_is_not_this_protocol_and_shows_it(line: bytes):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ClientReader().feed(line + b"\n")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=60), st.sets(st.integers(0, 60)))
def test_a_client_raises_nothing_else_and_the_same_however_it_is_cut(data: bytes, places: set[int]):
    outcomes = []
    for pieces in ([data], cut(data, [place for place in places if place < len(data)])):
        reader = ClientReader()
        try:
            outcomes.append([message for piece in pieces for message in reader.feed(piece)])
        except ValueError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


def test_a_shuffled_conversation_is_read_as_it_was_written():
    seed = 20260102
    rng = random.Random(seed)
    for _ in range(50):
        said = rng.choices(SAID, k=rng.randrange(1, 30))
        session = b"".join(line for line, _ in said)
        pieces = cut(session, rng.choices(range(len(session)), k=rng.randrange(10)))
        reader = ClientReader()
        got = [message for piece in pieces for message in reader.feed(piece)]
        assert got == [message for _, message in said], f"seed {seed}"
