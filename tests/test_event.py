"""Events as a caller builds them: checked where they are built, and the same after any journey."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from actorstore.answers import GraphData, GraphEdge, GraphNode, UnitStatus
from actorstore.errors import InvalidEventError
from actorstore.event import ABSENT, MAX_ID_BYTES, MAX_INT, Event
from actorstore.payload import open_payload
from actorstore.state import RULES
from actorstore.wire import decode_line
from tests.builders import (
    NOON,
    chain,
    diamond,
    fold,
    line,
    orch_started,
    unit_added,
    unit_failed,
    unit_started,
)


def payload(event: Event) -> object:
    return msgspec.json.decode(event.payload)


# Constructors.

CONSTRUCTED = {
    "orch.started": Event.orch_started(diamond(), parallelism=2, run="r", time=NOON),
    "unit.added": Event.unit_added("a", tasks=2, depends_on=["b"], run="r", time=NOON),
    "unit.queued": Event.unit_queued("a", run="r", time=NOON),
    "unit.started": Event.unit_started("a", total_tasks=3, completed_tasks=1, run="r", time=NOON),
    "task.started": Event.task_started("a", 2, run="r", time=NOON),
    "unit.completed": Event.unit_completed("a", run="r", time=NOON),
    "unit.failed": Event.unit_failed("a", "boom", run="r", time=NOON),
    "unit.blocked": Event.unit_blocked("a", run="r", time=NOON),
    "orch.completed": Event.orch_completed(run="r", time=NOON),
    "orch.failed": Event.orch_failed("boom", run="r", time=NOON),
    "orch.reset": Event.orch_reset(run="r", time=NOON),
}


def test_every_rule_has_a_constructor_and_no_constructor_is_without_a_rule():
    assert CONSTRUCTED.keys() == RULES.keys()
    assert all(hasattr(Event, type.replace(".", "_")) for type in RULES)


@pytest.mark.parametrize("type", CONSTRUCTED)
def test_a_constructor_writes_type_run_and_time(type: str):
    event = CONSTRUCTED[type]
    assert (event.type, event.run, event.time) == (type, "r", NOON)


def test_constructors_write_what_their_rule_reads():
    assert CONSTRUCTED["unit.failed"] == Event("unit.failed", time=NOON, run="r", unit="a", error="boom")
    assert CONSTRUCTED["orch.failed"] == Event("orch.failed", time=NOON, run="r", error="boom")
    assert CONSTRUCTED["task.started"].task == 2
    assert payload(CONSTRUCTED["unit.started"]) == {"total_tasks": 3, "completed_tasks": 1}
    assert payload(CONSTRUCTED["unit.added"]) == {"tasks": 2, "depends_on": ["b"]}


@pytest.mark.parametrize(
    "construct",
    [
        Event.orch_started,
        lambda: Event.unit_added("a"),
        lambda: Event.unit_queued("a"),
        lambda: Event.unit_started("a"),
        lambda: Event.task_started("a"),
        lambda: Event.unit_completed("a"),
        lambda: Event.unit_failed("a", "boom"),
        lambda: Event.unit_blocked("a"),
        Event.orch_completed,
        lambda: Event.orch_failed("boom"),
        Event.orch_reset,
    ],
)
def test_constructors_stamp_the_time_of_now(construct: Callable[[], Event]):
    before = datetime.now(UTC)
    time = construct().time
    assert time is not None
    assert before <= time <= datetime.now(UTC)
    assert time.utcoffset() == timedelta(0)


def test_an_event_built_by_its_type_is_not_stamped():
    assert Event("unit.queued", unit="a").time is None


class WordlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this fails")


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (ValueError("boom"), "ValueError: boom"),
        (KeyError("k"), "KeyError: 'k'"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (OSError(2, "No such file"), "FileNotFoundError: [Errno 2] No such file"),
        (ValueError("half \ud800"), r"ValueError: half \ud800"),
    ],
)
def test_a_failure_may_be_what_was_raised(raised: BaseException, error: str):
    assert Event.unit_failed("a", raised).error == error
    assert Event.orch_failed(raised).error == error


def test_a_failure_that_cannot_even_be_named_is_still_a_failure():
    assert Event.unit_failed("a", WordlessError()).error.startswith("WordlessError: ")


def test_a_start_that_says_nothing_has_no_payload():
    assert Event.orch_started().payload is ABSENT
    assert Event.unit_started("a").payload is ABSENT


def test_none_is_absent_in_every_field():
    bare = Event("x", time=None, run=None, unit=None, task=None, pr=None, payload=None, error=None)
    assert bare == Event("x")
    assert (bare.run, bare.unit, bare.error, bare.payload) == ("", "", "", ABSENT)


# Graphs.


def test_a_mapping_becomes_nodes_in_its_order_then_what_only_others_name():
    event = Event.orch_started({"app": ["lib", "db"], "lib": ["core"]})
    graph = fold(event).snapshot()
    assert [unit.id for unit in graph.units] == ["app", "lib", "db", "core"]
    assert payload(event) == {
        "graph": {
            "nodes": [{"id": "app"}, {"id": "lib"}, {"id": "db"}, {"id": "core"}],
            "edges": [
                {"from": "app", "to": "lib"},
                {"from": "app", "to": "db"},
                {"from": "lib", "to": "core"},
            ],
        },
        "unit_count": 4,
    }


def test_a_mapping_may_hold_any_iterable_once():
    event = Event.orch_started({"a": iter(["b"]), "b": ()})
    assert fold(event).graph().data().edges == (GraphEdge("a", "b"),)


def test_one_string_is_not_taken_for_a_list_of_units():
    with pytest.raises(InvalidEventError, match=r"depends_on.*'bc'"):
        Event.orch_started({"a": "bc"})
    with pytest.raises(InvalidEventError, match=r"depends_on.*'bc'"):
        Event.unit_added("a", depends_on="bc")


def test_graph_data_goes_in_as_it_came_out():
    nodes = (GraphNode("a", 0, 4, UnitStatus.COMPLETE, 4), GraphNode("b", 1, 2))
    graph = GraphData(nodes, (GraphEdge("b", "a"),), (("a",), ("b",)), ())
    state = fold(orch_started(graph))
    assert state.graph().data() == graph
    again = fold(orch_started(state.graph().data()))
    assert again.snapshot() == state.snapshot()
    a, b = state.snapshot().units
    assert (a.status, a.current_task, a.total_tasks) == ("complete", 4, 4)
    assert (b.status, b.current_task, b.total_tasks) == ("pending", 0, 2)


def test_an_empty_graph_is_a_graph():
    assert fold(Event.orch_started({})).graph().data() == GraphData((), (), (), ())
    assert fold(Event.orch_started()).graph() is None


# Payloads.


def test_payloads_are_plain_dicts_and_lists():
    assert payload(Event("x", payload={"a": [1, None, "ü"]})) == {"a": [1, None, "ü"]}
    assert payload(Event("x", payload=[])) == []
    assert payload(Event("x", payload=0)) == 0
    assert payload(Event("x", payload=(True, 1.5))) == [True, 1.5]


def test_a_payload_is_copied_when_the_event_is_made():
    data = {"a": [1]}
    event = Event("x", payload=data)
    data["a"].append(2)
    assert payload(event) == {"a": [1]}


@pytest.mark.parametrize(
    "raw", [b'{"x":\n 1,\r\n\t"y": [ ]\n}\n', b'{ "x" : 1 , "y" : [] }', b'{"x":1,"y":[]}']
)
def test_a_raw_payload_is_compacted_to_one_line(raw: bytes):
    event = Event("x", payload=msgspec.Raw(raw))
    assert bytes(event.payload) == b'{"x":1,"y":[]}'
    assert line(event).count(b"\n") == 1


def test_an_empty_raw_payload_is_absent():
    assert Event("x", payload=msgspec.Raw(b"")).payload is ABSENT


@pytest.mark.parametrize(
    "bad",
    [
        msgspec.Raw(b"{"),
        msgspec.Raw(b"{} {}"),
        msgspec.Raw(b" "),
        msgspec.Raw(b"NaN"),
        msgspec.Raw(b'"\n"'),
        msgspec.Raw(b'"\xff"'),
        msgspec.Raw(b'"\xed\xa0\x80"'),
        msgspec.Raw(b'"\\ud800"'),
        msgspec.Raw(b"\xef\xbb\xbf1"),
        msgspec.Raw(b"[" * 100_000 + b"]" * 100_000),
        "\ud800",
        {"\udfff": 1},
        {"a": object()},
        {(1, 2): 3},
        object(),
    ],
    ids=lambda bad: repr(bytes(bad)[:12]) if isinstance(bad, msgspec.Raw) else repr(bad)[:12],
)
def test_a_payload_that_is_no_json_is_refused_where_it_is_built(bad: object):
    with pytest.raises(InvalidEventError, match=r"^payload: cannot be written as JSON: ."):
        Event("x", payload=bad)


def test_a_payload_that_holds_itself_is_refused():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidEventError, match=r"payload.*nested too deeply"):
        Event("x", payload=endless)


# What is refused, and why.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", ""),
        ("type", 1),
        ("type", None),
        ("type", b"x"),
        ("type", "x" * (MAX_ID_BYTES + 1)),
        ("type", "é" * (MAX_ID_BYTES // 2 + 1)),
        ("type", "\ud800"),
        ("time", datetime(2026, 1, 1)),
        ("time", "2026-01-01T00:00:00"),
        ("time", "yesterday"),
        ("time", 1_700_000_000),
        ("run", 1),
        ("run", b"x"),
        ("run", "x" * (MAX_ID_BYTES + 1)),
        ("run", "\udc00"),
        ("unit", ["a"]),
        ("unit", "😀" * (MAX_ID_BYTES // 4) + "x"),
        ("unit", "a\ud83d"),
        ("task", 0),
        ("task", -1),
        ("task", "1"),
        ("task", True),
        ("task", 1.0),
        ("task", MAX_INT + 1),
        ("pr", "1"),
        ("pr", MAX_INT + 1),
        ("pr", -MAX_INT - 1),
        ("error", 1),
        ("error", ValueError("x")),
        ("error", "\ud800"),
    ],
)
def test_a_bad_field_is_refused_where_it_is_built_and_named_first(field: str, value: object):
    with pytest.raises(InvalidEventError) as caught:
        Event(**{"type": "x", field: value})
    assert caught.value.reason.split()[0].rstrip(":") == field
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "x" * MAX_ID_BYTES),
        ("unit", "😀" * (MAX_ID_BYTES // 4)),
        ("run", "é" * (MAX_ID_BYTES // 2)),
        ("task", 1),
        ("task", MAX_INT),
        ("pr", MAX_INT),
        ("pr", -MAX_INT),
        ("pr", 0),
        ("error", "ü" * 100_000),
        ("unit", "a\nb\x00\u2028"),
    ],
)
def test_what_just_fits_is_taken(field: str, value: object):
    event = Event(**{"type": "x", field: value})
    assert getattr(event, field) == value
    assert decode_line(line(event)) == event


def test_a_time_may_be_an_rfc_3339_string_and_keeps_its_offset():
    event = Event("x", time="2026-01-02T12:00:00+01:00")
    assert event.time == datetime(2026, 1, 2, 11, tzinfo=UTC)
    assert event.time.utcoffset() == timedelta(hours=1)
    assert Event("x", time=datetime(2026, 1, 2, 12, tzinfo=timezone(timedelta(hours=1)))) == event


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(InvalidEventError, match="'colour'"):
        Event("x", colour="red")


def test_ids_are_not_normalised():
    composed, decomposed = "é", "e\u0301"
    assert Event("x", unit=composed) != Event("x", unit=decomposed)
    assert decode_line(line(Event("x", unit=decomposed))).unit == decomposed


def test_an_event_cannot_be_changed():
    with pytest.raises(AttributeError):
        Event("x").unit = "b"


# Journeys.

TRAVELLERS = [
    *CONSTRUCTED.values(),
    Event("x"),
    Event("x", payload={"deep": [[{"a": None}]]}, pr=-7, task=3),
    Event("x", payload=msgspec.Raw(b"null")),
    Event("x", error="two\nlines \x1b[31m", unit="\U0001f600"),
    Event("x", time="2026-01-02T12:00:00.123456-08:00"),
    orch_started(chain(300)),
]


@pytest.mark.parametrize("event", TRAVELLERS, ids=lambda event: event.type)
@pytest.mark.parametrize("journey", [0, 2, pickle.HIGHEST_PROTOCOL, "copy", "deepcopy", "wire"])
def test_an_event_comes_back_from_any_journey_equal(event: Event, journey: int | str):
    match journey:
        case "copy":
            back = copy.copy(event)
        case "deepcopy":
            back = copy.deepcopy(event)
        case "wire":
            back = msgspec.json.decode(line(event), type=Event)
        case protocol:
            back = pickle.loads(pickle.dumps(event, protocol))
    assert type(back) is Event
    assert back == event
    assert line(back) == line(event)
    assert (back.payload is ABSENT) == (event.payload is ABSENT)


@pytest.mark.parametrize("event", TRAVELLERS, ids=lambda event: event.type)
def test_a_decoded_line_is_the_event_with_its_payload_open(event: Event):
    assert decode_line(line(event)) == open_payload(event)


def test_defaults_are_left_out_of_the_line():
    assert line(Event("x")) == b'{"type":"x"}\n'
    assert line(unit_failed("a", "boom")) == (
        b'{"type":"unit.failed","time":"2026-01-02T12:00:00Z","unit":"a","error":"boom"}\n'
    )


def test_a_line_is_valid_for_any_json_reader():
    decoded = json.loads(line(Event("x", unit="ü\n", payload={"a": 1}, pr=1)))
    assert decoded == {"type": "x", "unit": "ü\n", "payload": {"a": 1}, "pr": 1}


# Looks.


def test_a_repr_names_only_what_is_there():
    assert repr(Event("x")) == "Event('x')"
    assert repr(Event("x", unit="a", task=2, pr=0)) == "Event('x', unit='a', task=2, pr=0)"
    assert repr(unit_failed("a", "boom")) == (
        "Event('unit.failed', time='2026-01-02 12:00:00+00:00', unit='a', error='boom')"
    )


@pytest.mark.parametrize("event", TRAVELLERS, ids=lambda event: event.type)
def test_a_repr_is_one_line(event: Event):
    assert len(repr(event).splitlines()) == 1


@pytest.mark.parametrize(
    "event", [orch_started(diamond()), unit_added("a", ["b"]), unit_started("a", total_tasks=2)]
)
def test_an_event_whose_payload_is_open_has_a_repr_of_one_line_too(event: Event):
    assert repr(open_payload(event)).startswith(f"Event('{event.type}'")
    assert len(repr(open_payload(event)).splitlines()) == 1


@pytest.mark.parametrize("graph", [[("a", "b")], {"a": None}, {"a": 5}, {"a": "bc"}, "a", 7])
def test_a_graph_that_is_none_is_refused_with_what_it_ought_to_be(graph: object):
    with pytest.raises(InvalidEventError, match=r"^(graph|depends_on): expected"):
        Event.orch_started(graph)


def test_the_reason_of_a_value_that_looks_like_a_place_names_the_true_place():
    event = Event("orch.started", payload={"graph": {"nodes": [{"id": "a", "status": "x - at `$.y`"}]}})
    with pytest.raises(InvalidEventError, match=r"graph\.nodes\[0\]\.status: invalid enum value"):
        open_payload(event)
