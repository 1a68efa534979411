"""Lines: whatever bytes come in, the good ones count, the others get a reason, and nothing is raised."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actorstore import wire
from actorstore.answers import Rejection
from actorstore.errors import InvalidEventError
from actorstore.event import ABSENT, MAX_ID_BYTES, MAX_INT, Event
from actorstore.payload import NewUnit, RunPlan, TaskCounts
from actorstore.text import clean
from actorstore.wire import CHUNK_BYTES, SHOWN_CHARS, Chunk, chunks, decode, decode_line, shown
from tests.builders import chain, diamond, line, lines, orch_started, unit_failed, unit_queued, whole_run

FIRST, LAST = unit_queued("first"), unit_failed("last", "boom")
FOREIGN = unit_failed("last", "é")


def decode_all(data: bytes, max_line_bytes: int = wire.MAX_LINE_BYTES) -> Chunk:
    """Decode chunk by chunk, as a store does, and number the lines through."""
    whole = Chunk([], [], 0)
    for piece in chunks(data):
        part = decode(piece, max_line_bytes)
        rejections = [
            msgspec.structs.replace(rejection, line=whole.lines + (rejection.line or 0))
            for rejection in part.rejections
        ]
        whole = Chunk(whole.events + part.events, whole.rejections + rejections, whole.lines + part.lines)
    return whole


def between(*middle: bytes) -> tuple[list[Event], dict[int, str]]:
    """Decode these lines between two good ones; return the events among them, and reasons by line."""
    results = []
    for last in (LAST, FOREIGN):  # in a chunk that is ASCII where they are, and in one that is not
        data = b"\n".join([line(FIRST)[:-1], *middle, line(last)])
        chunk = decode(data)
        assert chunk.events[:1] == [FIRST]
        assert chunk.events[-1:] == [last]
        assert chunk.lines == data.count(b"\n")
        results.append(
            (chunk.events[1:-1], {rejection.line or 0: rejection.reason for rejection in chunk.rejections})
        )
    assert results[0] == results[1]
    return results[0]


def with_field(field: str, value: bytes) -> bytes:
    fields = {"type": b'"x"', field: value}
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), text) for name, text in fields.items()) + b"}"


# Good lines.


def test_lines_become_events_in_their_order():
    events = whole_run(diamond(), tasks=2)
    chunk = decode(lines(*events))
    assert [(event.type, event.unit) for event in chunk.events] == [
        (event.type, event.unit) for event in events
    ]
    assert (chunk.rejections, chunk.lines) == ([], len(events))


def test_payloads_that_a_rule_reads_come_open():
    started, added, begun, other = decode(
        b'{"type":"orch.started","payload":{"parallelism":2}}\n'
        b'{"type":"unit.added","payload":{"tasks":1,"depends_on":["b"]}}\n'
        b'{"type":"unit.started","payload":{"total_tasks":3}}\n'
        b'{"type":"x","payload":{"tasks":1}}\n'
    ).events
    assert started.payload == RunPlan(parallelism=2)
    assert added.payload == NewUnit(1, ("b",))
    assert begun.payload == TaskCounts(3, None)
    assert bytes(other.payload) == b'{"tasks":1}'


@pytest.mark.parametrize(
    "data",
    [
        lines(*whole_run(chain(20))),
        b'{"run":"r","type":"x"}\n{"type":"y"}\n{"unit":"a","type":"z"}\n',
        '{"type":"x","unit":"naïve 漢字 😀"}\n{"type":"y","payload":"ü"}\n'.encode(),
        rb'{"type":"x","unit":"\u00e9\ud83d\ude00"}' + b"\n",
        b'{"type":"x","time":null,"run":null,"unit":null,"task":null,"pr":null,"error":null}\n' * 3,
        b'{"type":"x","payload":{"a":"}\\n{"}}\n{"type":"y"}\n',
        b'{"type":"x"}',
    ],
    ids=["run", "orders", "utf-8", "escapes", "nulls", "tricky text", "no LF"],
)
def test_a_chunk_that_is_plainly_good_is_decoded_in_one_go(data: bytes):
    with patch.object(wire, "_decode_each", side_effect=AssertionError("line by line")):
        chunk = decode(data)
    assert len(chunk.events) == chunk.lines == len(data.splitlines())
    assert [decode_line(one) for one in data.splitlines()] == chunk.events


@pytest.mark.parametrize("good", [b"", b'{"type":"x"}', b'{"type":"x"}\n{"type":"y"}'])
def test_the_last_lf_is_optional(good: bytes):
    assert decode(good).events == decode(good + b"\n").events
    assert decode(good).lines == decode(good + b"\n").lines


def test_the_last_line_without_lf_is_judged_like_any_other():
    chunk = decode(line(FIRST) + b'{"type":')
    assert chunk.events == [FIRST]
    assert [rejection.line for rejection in chunk.rejections] == [2]
    assert chunk.lines == 2


@pytest.mark.parametrize("blank", [b"", b" ", b"\r", b"\t", b" \t\r "])
def test_blank_lines_have_no_effect_but_count_as_lines(blank: bytes):
    assert between(blank, blank, b"[]", blank) == ([], {4: "Expected `object`, got `array`"})
    assert decode(blank + b"\n" + blank + b"\n") == Chunk([], [], 2)


def test_no_bytes_are_no_lines():
    assert list(chunks(b"")) == []


def test_crlf_and_spaces_around_an_object_do_no_harm():
    events, rejected = between(b'{"type":"x"}\r', b' \t{"type":"y"} ', b'{ "type" :\t"z" , "task":1 }')
    assert events == [Event("x"), Event("y"), Event("z", task=1)]
    assert rejected == {}
    assert decode(lines(FIRST, LAST).replace(b"\n", b"\r\n")).events == [FIRST, LAST]


def test_unknown_fields_are_ignored_whatever_they_hold():
    events, rejected = between(b'{"colour":{"unit":["b",null]},"type":"x","unit":"a","zzz":1e999}')
    assert (events, rejected) == ([Event("x", unit="a")], {})


# null means absent.


@pytest.mark.parametrize("field", ["time", "run", "unit", "task", "pr", "error"])
def test_null_is_absent(field: str):
    assert between(with_field(field, b"null")) == ([Event("x")], {})


@pytest.mark.parametrize("type", ["orch.started", "unit.added", "unit.started"])
def test_a_null_payload_is_absent(type: str):
    events, rejected = between(b'{"type":"%s","payload":null}' % type.encode())
    assert rejected == {}
    assert events[0].payload is ABSENT


def test_null_in_every_field_at_once_is_absent_and_does_not_touch_the_lines_around_it():
    events, rejected = between(
        b'{"type":"x","time":null,"run":null,"unit":null,"task":null,"pr":null,"error":null}',
        b'{"type":"y","unit":"a","error":"null"}',
    )
    assert events == [Event("x"), Event("y", unit="a", error="null")]
    assert rejected == {}


def test_a_type_that_is_null_is_no_type():
    events, rejected = between(b'{"type":null}', b'{"type":null,"unit":null}')
    assert events == []
    assert rejected.keys() == {2, 3}
    assert all("type" in reason for reason in rejected.values())


def test_null_does_not_hide_what_else_is_wrong_with_a_line():
    _, rejected = between(b'{"type":"x","unit":null,"task":"1"}', b'{"type":"","error":null}')
    assert rejected[2].startswith("task: ")
    assert rejected[3].startswith("type: ")


# Bad lines, each between good ones.


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"not json", "JSON is malformed"),
        (b"[]", "Expected `object`, got `array`"),
        (b'[{"type":"x"}]', "Expected `object`, got `array`"),
        (b'"x"', "Expected `object`, got `str`"),
        (b"7", "Expected `object`, got `int`"),
        (b"null", "Expected `object`, got `null`"),
        (b"true", "Expected `object`, got `bool`"),
        (b"{}", "missing required field `type`"),
        (b'{"unit":"a"}', "missing required field `type`"),
        (b'{"type":"x"', "truncated"),
        (b'{"type":"x"}}', "trailing characters"),
        (b'{"type":"x"} {"type":"y"}', "trailing characters"),
        (b'{"type":"x"},', "trailing characters"),
        (b'{"type":"x"}\x00', "trailing characters"),
        (b'{"type":"x",}', "trailing comma"),
        (b"{'type':'x'}", "JSON is malformed"),
        (b'{"type":"x"}//', "trailing characters"),
        (b'\xef\xbb\xbf{"type":"x"}', "JSON is malformed"),
        (b'\x0c{"type":"x"}', "JSON is malformed"),
        (b"\x0c", "JSON is malformed"),
        (b'{"type":"x","payload":NaN}', "JSON is malformed"),
        (b'{"type":"x","payload":[Infinity]}', "JSON is malformed"),
        (b'{"type":"x","zzz":-Infinity}', "JSON is malformed"),
        (b'{"type":"x","payload":01}', "JSON is malformed"),
        (b'{"type":"x","payload":.5}', "JSON is malformed"),
        (b'{"type":"x","unit":"a\tb"}', "JSON is malformed"),
        (b'{"type":"x","payload":"\x1b"}', "JSON is malformed"),
        (b'{"type":"x","payload":"\\q"}', "JSON is malformed"),
    ],
)
def test_a_line_that_is_not_one_json_object_is_refused(bad: bytes, why: str):
    events, rejected = between(bad)
    assert events == []
    assert rejected.keys() == {2}
    assert why in rejected[2]


@pytest.mark.parametrize(
    "bad",
    [
        b'{"type":"\xff"}',
        b'{"type":"x","unit":"\xff"}',
        b'{"type":"x","error":"\xc3"}',
        b'{"type":"x","zzz":"\xff"}',
        b'{"type":"x","zzz":{"deep":["\xe2\x82"]}}',
        b'{"type":"x","z\xffz":1}',
        b'{"type":"x","payload":"\xff"}',
        b'{"type":"x","payload":{"deep":[{"a":"\xf0\x9f\x98"}]}}',
        b'{"type":"x","payload":{"\xff":1}}',
        b'{"type":"orch.started","payload":{"graph":{"nodes":[{"id":"\xff"}]}}}',
        b'{"type":"x","unit":"\xed\xa0\x80"}',
        b'{"type":"x","payload":"\xed\xb0\x80"}',
        b'{"type":"x","unit":"\xc0\x80"}',
        b'{"type":"x","payload":"\xf5\x80\x80\x80"}',
    ],
)
def test_invalid_utf_8_is_refused_wherever_it_stands(bad: bytes):
    assert between(bad) == ([], {2: "not valid UTF-8"})


@pytest.mark.parametrize(
    ("encoding", "reason"),
    [
        ("utf-8-sig", "JSON is malformed: a byte order mark (BOM) stands before it; write UTF-8 without one"),
        ("utf-16", "the line is UTF-16, as its byte order mark (BOM) says; write UTF-8"),
    ],
)
def test_a_byte_order_mark_is_named(encoding: str, reason: str):
    assert between('{"type":"x"}'.encode(encoding)) == ([], {2: reason})


def test_a_byte_order_mark_inside_a_text_is_a_character():
    events, _ = between('{"type":"x","unit":"\ufeffa"}'.encode())
    assert events == [Event("x", unit="\ufeffa")]


@pytest.mark.parametrize("field", ["type", "run", "unit", "error", "payload", "zzz"])
@pytest.mark.parametrize(
    "half", [rb'"\ud800"', rb'"\udc00"', rb'"a\ud83d\ud83d"', rb'"\ud800\u0041"', rb'"\udE00 "']
)
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(field: str, half: bytes):
    events, rejected = between(with_field(field, half))
    assert events == []
    assert rejected.keys() == {2}


def test_a_whole_surrogate_pair_is_one_character():
    events, _ = between(rb'{"type":"x","unit":"\ud83d\ude00","payload":"\ud83d\ude00"}')
    assert events == [Event("x", unit="😀", payload=msgspec.Raw(rb'"\ud83d\ude00"'))]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (field, value)
            for field in ("type", "run", "unit", "error")
            for value in (b"1", b"true", b'["a"]', b"{}")
        ),
        ("type", b'""'),
        *(("time", value) for value in (b"1", b"true", b"[]", b'""', b'"now"')),
        ("time", b'"2026-01-02T12:00:00"'),
        ("time", b'"2026-01-02"'),
        ("time", b'"12:00:00Z"'),
        ("time", b'"2026-02-30T12:00:00Z"'),
        ("time", b'"2026-01-02T25:00:00Z"'),
        ("time", b'"2026-01-02T12:00:00+99:00"'),
        ("time", b'"2026-01-02T12:00:00Z "'),
        ("time", b'"Fri, 02 Jan 2026 12:00:00 GMT"'),
        *(("task", value) for value in (b'"1"', b"true", b"[]", b"1.5", b"1.0", b"1e2", b"0", b"-1")),
        ("task", str(MAX_INT + 1).encode()),
        ("task", b"9" * 5_000),
        ("task", b"1e400"),
        *(("pr", value) for value in (b'"1"', b"false", b"{}", b"0.5")),
        ("pr", str(MAX_INT + 1).encode()),
        ("pr", str(-MAX_INT - 1).encode()),
        ("pr", b"-" + b"9" * 5_000),
    ],
    ids=repr,
)
def test_a_field_of_the_wrong_type_or_out_of_bounds_is_refused_and_named(field: str, value: bytes):
    events, rejected = between(with_field(field, value))
    assert events == []
    assert rejected.keys() == {2}
    assert rejected[2].startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("field", "value"), [("task", 1), ("task", MAX_INT), ("pr", MAX_INT), ("pr", -MAX_INT), ("pr", 0)]
)
def test_integers_of_53_bits_are_taken(field: str, value: int):
    assert between(with_field(field, str(value).encode())) == ([Event("x", **{field: value})], {})


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-02T12:00:00Z", datetime(2026, 1, 2, 12, tzinfo=UTC)),
        ("2026-01-02T12:00:00.123456Z", datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2026-01-02T04:00:00-08:00", datetime(2026, 1, 2, 12, tzinfo=UTC)),
        ("2026-01-02t12:00:00z", datetime(2026, 1, 2, 12, tzinfo=UTC)),
    ],
)
def test_times_are_those_of_rfc_3339(text: str, time: datetime):
    events, _ = between(with_field("time", b'"%s"' % text.encode()))
    assert [event.time for event in events] == [time]


LETTERS = {
    "ascii": ("a", b"a", 1),
    "two bytes": ("é", "é".encode(), 2),
    "three bytes": ("漢", "漢".encode(), 3),
    "four bytes": ("😀", "😀".encode(), 4),
    "ascii escaped": ("a", rb"\u0061", 1),
    "two bytes escaped": ("é", rb"\u00E9", 2),
    "pair escaped": ("😀", rb"\ud83d\ude00", 4),
}


@pytest.mark.parametrize("field", ["type", "run", "unit"])
@pytest.mark.parametrize("letter", LETTERS)
def test_an_id_has_at_most_1024_bytes_however_it_is_written(field: str, letter: str):
    char, written, size = LETTERS[letter]
    count, pad = divmod(MAX_ID_BYTES, size)
    fits = b'"%s%s"' % (b"x" * pad, written * count)
    events, rejected = between(with_field(field, fits))
    assert [getattr(event, field) for event in events] == ["x" * pad + char * count]
    assert rejected == {}

    too_long = b'"%s%s"' % (b"x" * (pad + 1), written * count)
    events, rejected = between(with_field(field, too_long))
    assert events == []
    assert rejected.keys() == {2}
    assert rejected[2].startswith(field)
    assert str(MAX_ID_BYTES) in rejected[2]


def test_only_ids_are_bounded_not_errors_and_payloads():
    events, rejected = between(with_field("error", b'"%s"' % ("é" * 5_000).encode()))
    assert (events, rejected) == ([Event("x", error="é" * 5_000)], {})


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        (b'{"type":"orch.started","payload":[]}', "payload of orch.started: "),
        (b'{"type":"orch.started","payload":{"parallelism":"2"}}', "payload of orch.started: parallelism: "),
        (
            b'{"type":"orch.started","payload":{"graph":{"nodes":[{"id":"a"},{"id":"b","status":"done"}]}}}',
            "payload of orch.started: graph.nodes[...].status: ",
        ),
        (
            b'{"type":"unit.added","unit":"a","payload":{"depends_on":"b"}}',
            "payload of unit.added: depends_on: ",
        ),
        (b'{"type":"unit.added","unit":"a","payload":7}', "payload of unit.added: "),
        (
            b'{"type":"unit.started","unit":"a","payload":{"total_tasks":-1}}',
            "payload of unit.started: total_tasks: ",
        ),
        (b'{"type":"unit.started","unit":"a","payload":"x"}', "payload of unit.started: "),
    ],
)
def test_a_payload_that_does_not_decode_for_its_event_is_refused_and_the_place_is_named(
    bad: bytes, place: str
):
    events, rejected = between(bad)
    assert events == []
    assert rejected.keys() == {2}
    assert re.sub(r"\[\d+\]", "[...]", rejected[2]).startswith(place)


def test_a_payload_that_no_rule_reads_may_hold_anything():
    huge = b"9" * 5_000
    events, rejected = between(
        b'{"type":"unit.queued","payload":{"total_tasks":-1}}',
        with_field("payload", huge),
        with_field("zzz", huge),
    )
    assert rejected == {}
    assert bytes(events[1].payload) == huge


@pytest.mark.parametrize("field", ["payload", "zzz", "unit"])
@pytest.mark.parametrize("pair", [b"[]", b'{"":}'])
def test_a_line_that_is_nested_to_death_is_refused(field: str, pair: bytes):
    deep = pair[:-1] * 100_000 + b"1" + pair[-1:] * 100_000
    events, rejected = between(with_field(field, deep))
    assert events == []
    assert rejected.keys() == {2}
    assert "nested too deeply" in rejected[2] or rejected[2].startswith("unit: ")


def test_a_line_over_the_limit_is_refused_and_one_that_just_fits_is_taken():
    fits, too_long = with_field("error", b'"12345678"'), with_field("error", b'"123456789"')
    limit = len(fits) + 1
    data = b"\n".join([fits, too_long, b" " * limit, fits, too_long])
    chunk = decode(data, limit)
    assert chunk.events == [Event("x", error="12345678")] * 2
    assert [(rejection.line, rejection.reason) for rejection in chunk.rejections] == [
        (place, f"the line has {limit + 1} bytes; at most {limit} are taken") for place in (2, 5)
    ]
    assert chunk.lines == 5


def test_a_line_over_the_limit_is_refused_in_a_chunk_that_is_good_otherwise():
    fits, too_long = with_field("error", b'"12345678"'), with_field("error", b'"123456789"')
    chunk = decode(fits + b"\n" + too_long + b"\n" + fits + b"\n", len(fits) + 1)
    assert chunk.events == [Event("x", error="12345678")] * 2
    assert [rejection.line for rejection in chunk.rejections] == [2]


def test_a_line_over_the_limit_is_refused_also_where_it_is_bad_anyway():
    chunk = decode(b"x" * 100 + b"\n" + b'{"type":"x"}', 50)
    assert [rejection.reason for rejection in chunk.rejections] == [
        "the line has 101 bytes; at most 50 are taken"
    ]
    assert chunk.events == [Event("x")]


# Lines that lie about being lines.

DENTED = b" " * 9 + b'{"type":"p","payload":{"x":{}\n' + b" " * 9 + b'}}{"type":"y"}\n'

X, Y, Z = (b'{"type":"%s"}' % name for name in (b"x", b"y", b"z"))


@pytest.mark.parametrize(
    ("middle", "events", "refused"),
    [
        ([X + Y], "", [2]),
        ([X + b" " + Y], "", [2]),
        ([b'{"type":', b'"x"}'], "", [2, 3]),
        ([X + Y, b'{"type":', b'"z"}'], "", [2, 3, 4]),
        ([b'{"type":', b'"z"}', X + Y], "", [2, 3, 4]),
        ([X + Y, b""], "", [2]),
        ([b"", X + Y], "", [3]),
        ([X + Y, b"\r"], "", [2]),
        ([X + Y + Z, b"", b""], "", [2]),
        ([X + Y, b'{"type":"p","payload":[{}', b",{}]}"], "", [2, 3, 4]),
        ([b'{"type":"p","payload":[{}', b",{}]}" + X], "", [2, 3]),
        ([b'{"type":"p","payload":{}', b"}" + X], "", [2, 3]),
        ([b'{"type":"p","payload":"}', b'{"}' + X], "", [2, 3]),
        ([b'{"type":"p","zzz":"}', b'{"type":""}' + X], "", [2, 3]),
        ([X, b"}", b"{", Y], "xy", [3, 4]),
        ([b"}", b"{"], "", [2, 3]),
        ([X[:-1], b"}" + Y], "", [2, 3]),
        ([X, b'{"type":"p"', b"}" + Y, Z], "xz", [3, 4]),
        ([X + Y, b'{"type":"p","unit":null', b"}"], "", [2, 3, 4]),
        ([b'{"type":"x","unit":null}' + Y, b""], "", [2]),
        ([b'{"type":"x","unit":null}', b'{"type":"y","run":null}'], "xy", []),
        ([X + b"\r", b"\r", Y + b" ", b" " + Z], "xyz", []),
        ([X + b"\r" + Y], "", [2]),
    ],
)
def test_a_line_is_what_ends_in_lf_and_nothing_else(middle: list[bytes], events: str, refused: list[int]):
    found, rejected = between(*middle)
    assert "".join(event.type for event in found) == events
    assert list(rejected) == refused


def test_a_chunk_of_lies_alone_is_seen_through_as_well():
    for lies in (X + Y + b"\n\n", b"\n" + X + Y, X + Y + b'\n{"type":\n"z"}', b'{"type":\n"z"}' + X, DENTED):
        chunk = decode(lies)
        assert chunk.events == []
        assert chunk.lines == lies.count(b"\n") + (not lies.endswith(b"\n"))


# What a rejection shows.


def test_a_rejection_shows_how_the_line_begins():
    (rejection,) = decode(b'{"type":"x","task":"' + b"9" * 1000 + b'"}').rejections
    assert rejection.text.startswith('{"type":"x","task":"999')
    assert len(rejection.text) == SHOWN_CHARS
    assert rejection.text.endswith("…")


@pytest.mark.parametrize(
    "bad", [b"\x1b[2J\x07", b"a\rb", "\u202e\u2028".encode(), b"\xff\xfe\x00", b'{"type":"\\']
)
def test_a_rejection_is_harmless_to_read(bad: bytes):
    (rejection,) = decode(bad).rejections
    for text in (rejection.text, rejection.reason, shown(bad)):
        assert text.isprintable()
        text.encode()


def test_a_reason_that_quotes_the_line_is_harmless_and_short():
    status = "\\u001b[31m\\n" + "x" * 1000
    bad = (
        b'{"type":"orch.started","payload":{"graph":{"nodes":[{"id":"a","status":"%s"}]}}}' % status.encode()
    )
    _, rejected = between(bad)
    assert rejected[2].isprintable()
    assert len(rejected[2]) <= 2 * SHOWN_CHARS


def test_decode_line_raises_the_reason():
    with pytest.raises(InvalidEventError, match=r"^task: expected `int` >= 1$"):
        decode_line(b'{"type":"x","task":0}')


# Chunks.


@given(st.lists(st.binary(max_size=12), max_size=12), st.booleans(), st.integers(1, 30))
@example([b"x" * 29, b"y" * 28, b""], True, 30)
@example([b"x" * 30, b"y" * 31], True, 30)
def test_chunks_are_whole_lines_and_all_of_them(parts: list[bytes], ended: bool, size: int):
    data = b"\n".join(parts) + b"\n" * ended
    with patch.object(wire, "CHUNK_BYTES", size):
        found = list(chunks(data))
    assert b"".join(found) == data
    assert all(piece.endswith(b"\n") for piece in found[:-1])
    assert all(len(piece) <= size or piece.count(b"\n", 0, -1) == 0 for piece in found)
    assert b"" not in found


def test_a_line_longer_than_a_chunk_is_a_chunk_alone():
    long = with_field("error", b'"%s"' % (b"x" * 3 * CHUNK_BYTES))
    small = line(FIRST) * 5
    assert list(chunks(small + long + b"\n" + small)) == [small, long + b"\n", small]
    assert list(chunks(long)) == [long]


def test_lines_that_fill_a_chunk_to_the_byte_stay_whole():
    pad = CHUNK_BYTES - len(with_field("error", b'""')) - 1
    exact = with_field("error", b'"%s"' % (b"x" * pad)) + b"\n"
    assert len(exact) == CHUNK_BYTES
    assert list(chunks(exact * 3)) == [exact] * 3
    assert len(decode_all(exact * 3).events) == 3


def test_many_chunks_hold_what_one_line_after_the_other_holds():
    rows = []
    for number in range(6_000):
        match number % 1_000:
            case 7:
                rows.append(b"garbage %d" % number)
            case 8:
                rows.append(X + Y)
            case 9:
                rows.append(b"")
            case 500:
                rows.append(line(orch_started(chain(3_000)))[:-1])
            case _:
                rows.append(line(Event("x", unit=f"u{number}", task=number + 1))[:-1])
    data = b"\n".join(rows)
    assert len(list(chunks(data))) > 6
    chunk = decode_all(data)
    assert chunk.lines == 6_000
    assert [rejection.line for rejection in chunk.rejections] == [
        number + 1 for number in range(6_000) if number % 1_000 in (7, 8)
    ]
    assert [event.task for event in chunk.events if event.task] == [
        number + 1 for number in range(6_000) if number % 1_000 not in (7, 8, 9, 500)
    ]
    assert len(chunk.events) == 6_000 - 3 * 6


def test_a_bad_line_in_every_chunk_harms_no_other():
    with patch.object(wire, "CHUNK_BYTES", 64):
        chunk = decode_all((line(FIRST) + b"[]\n" + line(LAST)) * 50)
    assert chunk.events == [FIRST, LAST] * 50
    assert [rejection.line for rejection in chunk.rejections] == list(range(2, 151, 3))


# The same, judged by a reader that is obviously right.


def refuse(constant: str) -> None:
    raise ValueError(constant)


TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
COUNTS = {"unit.started": ("total_tasks", "completed_tasks"), "unit.added": ("tasks",), "orch.started": ()}


def is_integer(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= MAX_INT


def fits(type: str, payload: object) -> bool:
    if type not in COUNTS:
        return True
    if not isinstance(payload, dict):
        return False
    others = payload.get("depends_on") or [] if type == "unit.added" else []
    return (
        all(payload.get(name) is None or is_integer(payload[name], 0) for name in COUNTS[type])
        and isinstance(others, list)
        and all(isinstance(other, str) for other in others)
    )


def judged(data: bytes) -> dict[str, object] | None:
    """What a line holds, or `None` where it is refused; the standard library alone."""
    try:
        found = json.loads(data.decode(), parse_constant=refuse)
        json.dumps(found, ensure_ascii=False).encode()  # raises over half a surrogate pair
        if not isinstance(found, dict):
            return None
        found = {name: value for name, value in found.items() if value is not None}
        for name in ("type", "run", "unit", "error"):
            if name != "error" and len(found.get(name, "").encode()) > MAX_ID_BYTES:
                return None
            if not isinstance(found.get(name, ""), str):
                return None
        if not found.get("type"):
            return None
        if "time" in found:
            if not TIME.fullmatch(found["time"]):
                return None
            found["time"] = datetime.fromisoformat(found["time"].upper())
        if "task" in found and not is_integer(found["task"], 1):
            return None
        if "pr" in found and not is_integer(found["pr"], -MAX_INT):
            return None
        if "payload" in found and not fits(found["type"], found["payload"]):
            return None
    except (ValueError, TypeError, AttributeError):
        return None
    return found


def check(data: bytes, size: int) -> None:
    """Decode in chunks of this size; each line must come out as it does alone, and as it is judged."""
    with patch.object(wire, "CHUNK_BYTES", size):
        chunk = decode_all(data)
    rows = data.split(b"\n")
    if rows[-1] == b"":
        rows.pop()
    assert chunk.lines == len(rows)

    events: list[Event] = []
    rejections: list[Rejection] = []
    for number, row in enumerate(rows, 1):
        if not row.strip(b" \t\r"):
            continue
        expected = judged(row)
        try:
            events.append(decode_line(row))
        except InvalidEventError as error:
            rejections.append(Rejection(clean(error.reason, SHOWN_CHARS), shown(row), number))
            assert expected is None, f"refused: {row!r}: {error.reason}"  # noqa: PT017
        else:
            assert expected is not None, f"taken: {row!r}"
            event = events[-1]
            for name in ("type", "run", "unit", "error"):
                assert getattr(event, name) == expected.get(name, "")
            for name in ("time", "task", "pr"):
                assert getattr(event, name) == expected.get(name)
            if event.type not in COUNTS:
                assert json.loads(bytes(event.payload) or b"null") == expected.get("payload")
    assert chunk.events == events
    assert chunk.rejections == rejections


GOOD_FIELDS = st.fixed_dictionaries(
    {"type": st.sampled_from(["x", "unit.queued", "unit.failed", "é", "t" * MAX_ID_BYTES])},
    optional={
        "time": st.sampled_from(["2026-01-02T12:00:00Z", "2026-01-02T12:00:00+01:00", None]),
        "run": st.sampled_from(["", "r", "ü", None]),
        "unit": st.sampled_from(["a", "漢", "😀" * 256, "}\n{", '"', "\\u", None]),
        "task": st.sampled_from([1, 7, None]),
        "pr": st.sampled_from([0, -3, None]),
        "payload": st.sampled_from([None, {}, [], "}\n{", [{}, {}], {"type": "x"}, 1.5, "ü"]),
        "error": st.sampled_from(["", "boom\n", "ü", "null", None]),
        "zzz": st.sampled_from([None, [{"type": "y"}], "}{", 1e300]),
    },
)
WILD_FIELDS = st.dictionaries(
    st.sampled_from(["type", "time", "run", "unit", "task", "pr", "payload", "error", "zzz"]),
    st.sampled_from(
        [
            *("", "x", "a", "unit.started", "unit.added", "orch.started", "é" * 513, "a" * 1025, "\ud800"),
            *(None, True, 0, 1, -1, 1.0, MAX_INT, MAX_INT + 1, 10**30),
            *("2026-01-02T12:00:00", "2026-01-02T12:00:00Z", "2026-13-02T12:00:00Z"),
            *([], {}, [None], {"total_tasks": 1}, {"total_tasks": -1}, {"tasks": 2, "depends_on": ["b"]}),
            *({"depends_on": "b"}, {"depends_on": [1]}, {"completed_tasks": None}),
        ]
    ),
)
WRITTEN = st.builds(
    lambda fields, ascii, spaced, order: json.dumps(
        dict(order.sample(list(fields.items()), len(fields))),
        ensure_ascii=ascii,
        separators=None if spaced else (",", ":"),
    ).encode("utf-8", "surrogatepass"),
    st.one_of(GOOD_FIELDS, GOOD_FIELDS, WILD_FIELDS),
    st.booleans(),
    st.booleans(),
    st.randoms(use_true_random=False),
)
LIES = st.sampled_from(
    [
        *(b"", b" ", b"\r", b"[]", b"null", b"{", b"}", b"not json", b"\xff", b"\x0c", b'"', b"\\"),
        *(X, X + Y, X + b" ", X + b"\r", b" " + X, X + b"}", b"\xef\xbb\xbf" + X, X + b"\x00", b"," + X),
        *(
            b" " * 9 + b'{"type":"p","payload":{"x":{}',
            b" " * 9 + b"}}" + Y,
            b'{"type":"x"',
            b"}" + Y,
            b'{"type":',
            b'"x"}',
            b'"x"}' + Y,
            b'{"type":"x","payload":[{}',
            b",{}]}",
        ),
        *(b'{"type":"x","payload":"}', b'{"}', b'{"type":"x","zzz":"}', b'{"type":""}' + X),
        *(b'{"type":"x","payload":NaN}', b'{"type":"x","zzz":"\xff"}', b'{"type":"x","payload":"\xff"}'),
        *(rb'{"type":"x","unit":"\ud800"}', rb'{"type":"x","payload":"\udc00"}', rb'{"type":"\u00e9"}'),
        *(
            b'{"type":"x","unit":null}',
            b'{"type":"x","unit":null}' + Y,
            b'{"type":"x","run":null',
            b'{"type":null}',
        ),
    ]
)
STREAMS = st.builds(
    lambda rows, ended: b"\n".join(rows) + b"\n" * ended,
    st.lists(st.one_of(WRITTEN, WRITTEN, LIES), max_size=8),
    st.booleans(),
)
SIZES = st.sampled_from([1, 16, 40, 100, 400, CHUNK_BYTES])
MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 3),
        st.sampled_from(
            [
                b"",
                b"\n",
                b"\n",
                b"}\n{",
                b"{",
                b"}",
                b'"',
                b",",
                b" ",
                b"\r",
                b"\xff",
                b"\\",
                b"[",
                b"]",
                b"null",
            ]
        ),
    ),
    max_size=4,
)


@given(STREAMS, SIZES)
@example(X + Y + b'\n{"type":\n"z"}\n', CHUNK_BYTES)
@example(DENTED, CHUNK_BYTES)
@example(b'{"type":"x","unit":null}' + Y + b"\n\n", CHUNK_BYTES)
@example(b'{"type":"x","zzz":"}\n{"type":""}' + Y, CHUNK_BYTES)
def test_lines_come_out_of_chunks_as_each_does_alone(data: bytes, size: int):
    check(data, size)


@given(st.lists(WRITTEN, min_size=1, max_size=6), MUTATIONS, SIZES)
def test_bytes_that_were_tampered_with_come_out_of_chunks_as_each_line_does_alone(
    rows: list[bytes], mutations: list[tuple[int, int, bytes]], size: int
):
    data = b"\n".join(rows) + b"\n"
    for place, cut, put in mutations:
        place %= len(data) + 1
        data = data[:place] + put + data[place + cut :]
    check(data, size)


@given(st.binary(max_size=200), SIZES)
def test_any_bytes_at_all_come_out_as_reasons(data: bytes, size: int):
    check(data, size)


# What it costs to refuse.


def test_the_first_and_the_last_rejections_alone_are_described_where_no_more_are_asked_for() -> None:
    data = line(FIRST) + b"".join(b"bad %d\n" % number for number in range(100)) + b"\n" + line(LAST)
    chunk = decode(data, told=3)
    assert chunk.events == [FIRST, LAST]
    assert (chunk.lines, chunk.rejected, chunk.untold) == (103, 100, 96)
    every = decode(data).rejections
    assert chunk.rejections == [every[0], *every[-3:]]


@pytest.mark.parametrize("bad", [b"x\n", b"garbage\n", b'{"type":1}\n', b"{}\n", b'  "a"\n', b"\xff\n"])
def test_equal_lines_are_refused_for_one_reason_that_is_found_once(bad: bytes) -> None:
    with patch.object(wire, "explain", side_effect=wire.explain) as explained:
        chunk = decode(bad * 1000 + line(FIRST) + b"\n")
    assert explained.call_count <= 1
    assert [rejection.line for rejection in chunk.rejections] == list(range(1, 1001))
    assert len(set(chunk.rejections)) == 1000
    assert {rejection.reason for rejection in chunk.rejections} == {decode(bad).rejections[0].reason}
    assert chunk.events == [FIRST]


def test_a_line_that_is_no_object_is_refused_without_being_decoded() -> None:
    data = b"".join(b"%d\n" % number for number in range(1000))
    with patch.object(wire, "_decode_line", side_effect=wire._decode_line) as decoded:
        assert decode(data, told=16).rejected == 1000
    assert decoded.call_count <= 17


def test_blank_lines_are_counted_at_once() -> None:
    with patch.object(wire, "_decode_line", side_effect=AssertionError):
        assert decode(b"\n \t\r\n" * 1000) == Chunk([], [], 2000)
