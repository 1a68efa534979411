"""Payloads: opened where a rule reads them, refused before their event counts, and otherwise carried."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstore import payload as payload_module
from actorstore.answers import GraphData, GraphEdge, GraphNode, UnitStatus
from actorstore.errors import InvalidEventError
from actorstore.event import ABSENT, MAX_ID_BYTES, MAX_INT, Event
from actorstore.graph import finish
from actorstore.payload import (
    LARGE_GRAPH,
    PAYLOADS,
    LargeGraph,
    NewUnit,
    RunPlan,
    SentGraph,
    SentNode,
    SlicedGraph,
    TaskCounts,
    open_payload,
)
from actorstore.state import RULES

JsonValue = object


def opened(type: str, payload: JsonValue) -> object:
    return open_payload(Event(type, unit="a", payload=payload)).payload


def plan(payload: JsonValue) -> RunPlan:
    found = opened("orch.started", payload)
    assert isinstance(found, RunPlan)
    return found


def graph(payload: JsonValue) -> GraphData:
    sent = plan({"graph": payload}).graph
    assert sent is not None
    return finish(sent.check())


def reason(type: str, payload: JsonValue) -> str:
    with pytest.raises(InvalidEventError) as caught:
        opened(type, payload)
    return caught.value.reason


# Which are opened.


def test_only_payloads_that_a_rule_reads_are_opened():
    assert PAYLOADS.keys() < RULES.keys()
    for type in {*RULES, "something.else"} - PAYLOADS.keys():
        event = Event(type, unit="a", payload={"graph": 5, "tasks": "many"})
        assert open_payload(event) is event


@pytest.mark.parametrize("type", PAYLOADS)
@pytest.mark.parametrize("payload", [None, msgspec.Raw(b"null"), msgspec.Raw(b" null\n"), msgspec.Raw(b"")])
def test_no_payload_and_null_are_absent(type: str, payload: JsonValue):
    assert opened(type, payload) is ABSENT


@pytest.mark.parametrize("type", PAYLOADS)
def test_opening_leaves_the_event_itself_alone(type: str):
    event = Event(type, unit="a", run="r", payload={})
    ready = open_payload(event)
    assert bytes(event.payload) == b"{}"
    assert (ready.type, ready.unit, ready.run, ready.time) == (type, "a", "r", None)


@pytest.mark.parametrize("type", PAYLOADS)
@pytest.mark.parametrize("payload", [[], "x", 1, True, [{}]])
def test_a_payload_that_is_no_object_is_refused(type: str, payload: JsonValue):
    assert reason(type, payload).startswith(f"payload of {type}: Expected `object`")


@pytest.mark.parametrize("type", PAYLOADS)
def test_unknown_fields_are_ignored(type: str):
    assert opened(type, {"colour": {"deep": [1]}}) == opened(type, {})


# orch.started


def test_a_plan_takes_parallelism_and_graph():
    assert plan({"unit_count": 9, "parallelism": 4, "graph": {"nodes": [{"id": "a"}]}}) == RunPlan(
        9, 4, SentGraph([SentNode("a")])
    )


@pytest.mark.parametrize("payload", [{}, {"parallelism": None, "graph": None, "unit_count": None}])
def test_a_plan_may_say_nothing(payload: JsonValue):
    assert plan(payload) == RunPlan()


@pytest.mark.parametrize("sent", [{}, {"nodes": None, "edges": None, "levels": None}, {"nodes": []}])
def test_a_graph_may_be_empty(sent: JsonValue):
    assert graph(sent) == GraphData((), (), (), ())


def test_a_node_has_what_the_wire_says():
    node = {"id": "a", "tasks": 5, "status": "blocked", "completed_tasks": 2}
    assert graph({"nodes": [node]}).nodes == (GraphNode("a", 0, 5, UnitStatus.BLOCKED, 2),)


def test_the_level_of_a_node_gives_way_to_the_levels_of_its_graph():
    sent = {"nodes": [{"id": "a", "level": 7}, {"id": "b"}]}
    assert [node.level for node in graph(sent).nodes] == [0, 0]
    assert [node.level for node in graph({**sent, "levels": [["b"], ["a"]]}).nodes] == [1, 0]


def test_null_in_a_node_is_absent():
    node = {"id": "a", "level": None, "tasks": None, "status": None, "completed_tasks": None}
    assert graph({"nodes": [node]}).nodes == (GraphNode("a", 0, 0),)


def test_the_from_of_an_edge_depends_on_its_to():
    found = graph({"nodes": [{"id": "late"}, {"id": "early"}], "edges": [{"from": "late", "to": "early"}]})
    assert found.edges == (GraphEdge("late", "early"),)
    assert found.levels == (("early",), ("late",))


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"parallelism": "4"}, "parallelism"),
        ({"parallelism": -1}, "parallelism"),
        ({"parallelism": 1.5}, "parallelism"),
        ({"parallelism": MAX_INT + 1}, "parallelism"),
        ({"parallelism": 10**40}, "parallelism"),
        ({"unit_count": "2"}, "unit_count"),
        ({"graph": []}, "graph"),
        ({"graph": {"nodes": {}}}, "graph.nodes"),
        ({"graph": {"nodes": ["a"]}}, "graph.nodes[0]"),
        ({"graph": {"nodes": [{}]}}, "graph.nodes[0]"),
        ({"graph": {"nodes": [{"id": 1}]}}, "graph.nodes[0].id"),
        ({"graph": {"nodes": [{"id": None}]}}, "graph.nodes[0].id"),
        ({"graph": {"nodes": [{"id": "x" * (MAX_ID_BYTES + 1)}]}}, "graph.nodes[0].id"),
        ({"graph": {"nodes": [{"id": "a", "level": -1}]}}, "graph.nodes[0].level"),
        ({"graph": {"nodes": [{"id": "a", "tasks": "3"}]}}, "graph.nodes[0].tasks"),
        ({"graph": {"nodes": [{"id": "a", "tasks": MAX_INT + 1}]}}, "graph.nodes[0].tasks"),
        ({"graph": {"nodes": [{"id": "a", "status": "done"}]}}, "graph.nodes[0].status"),
        ({"graph": {"nodes": [{"id": "a", "status": 1}]}}, "graph.nodes[0].status"),
        ({"graph": {"nodes": [{"id": "a", "completed_tasks": -1}]}}, "graph.nodes[0].completed_tasks"),
        ({"graph": {"edges": [["a", "b"]]}}, "graph.edges[0]"),
        ({"graph": {"edges": [{"from": "a"}]}}, "graph.edges[0]"),
        ({"graph": {"edges": [{"from": "a", "to": None}]}}, "graph.edges[0].to"),
        ({"graph": {"levels": ["a"]}}, "graph.levels[0]"),
        ({"graph": {"levels": [[1]]}}, "graph.levels[0][0]"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_and_the_place_is_named(payload: JsonValue, path: str):
    assert reason("orch.started", payload).startswith(f"payload of orch.started: {path}: ")


@pytest.mark.parametrize(("char", "size"), [("é", 2), ("漢", 3), ("😀", 4)])
def test_the_id_of_a_node_is_measured_in_bytes(char: str, size: int):
    fits = char * (MAX_ID_BYTES // size)
    assert plan({"graph": {"nodes": [{"id": fits}]}}).graph is not None
    assert f"{MAX_ID_BYTES} bytes" in reason("orch.started", {"graph": {"nodes": [{"id": fits + char}]}})


@pytest.mark.parametrize("status", [*UnitStatus])
def test_a_node_may_start_in_any_status(status: UnitStatus):
    assert graph({"nodes": [{"id": "a", "status": str(status)}]}).nodes[0].status is status


# unit.added


def test_a_new_unit_has_tasks_and_what_it_depends_on():
    assert opened("unit.added", {"tasks": 3, "depends_on": ["b", "c"]}) == NewUnit(3, ("b", "c"))


@pytest.mark.parametrize("payload", [{}, {"tasks": None, "depends_on": None}, {"tasks": 0, "depends_on": []}])
def test_a_new_unit_may_say_nothing(payload: JsonValue):
    assert opened("unit.added", payload) == NewUnit(0, ())


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"tasks": -1}, "tasks"),
        ({"tasks": "1"}, "tasks"),
        ({"tasks": MAX_INT + 1}, "tasks"),
        ({"depends_on": "b"}, "depends_on"),
        ({"depends_on": {"b": 1}}, "depends_on"),
        ({"depends_on": [1]}, "depends_on[0]"),
        ({"depends_on": [None]}, "depends_on[0]"),
        ({"depends_on": ["x" * (MAX_ID_BYTES + 1)]}, "depends_on[0]"),
    ],
)
def test_a_new_unit_that_does_not_fit_is_refused_and_the_place_is_named(payload: JsonValue, path: str):
    assert reason("unit.added", payload).startswith(f"payload of unit.added: {path}: ")


def test_the_ids_that_a_new_unit_depends_on_are_measured_in_bytes():
    fits = "é" * (MAX_ID_BYTES // 2)
    assert opened("unit.added", {"depends_on": [fits]}) == NewUnit(0, (fits,))
    assert f"{MAX_ID_BYTES} bytes" in reason("unit.added", {"depends_on": [fits + "é"]})


@given(
    st.lists(st.sampled_from("abcde"), max_size=9),
    st.lists(st.tuples(st.sampled_from("abcdex"), st.sampled_from("abcdex")), max_size=9),
    st.lists(st.lists(st.sampled_from("abcde"), max_size=5), max_size=4),
)
def test_a_graph_kept_in_slices_is_the_graph_that_was_sent(
    nodes: list[str], edges: list[tuple[str, str]], levels: list[list[str]]
):
    sent = SentGraph(
        [SentNode(id, None, len(nodes), UnitStatus.READY if id == "a" else None) for id in nodes],
        [GraphEdge(*edge) for edge in edges],
        levels,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payload_module, "SLICE_THINGS", 2)
        kept = SlicedGraph(sent.slices())
        assert all(len(msgspec.json.decode(data)) <= 2 for _, data in kept.slices())
    assert finish(kept.check()) == finish(sent.check())


def test_the_edges_of_a_large_graph_are_kept_as_bytes():
    large = plan({"graph": {"nodes": [{"id": "a"}], "edges": [{"from": "a", "to": "a"}] * LARGE_GRAPH}}).graph
    assert isinstance(large, LargeGraph)
    assert (large.nodes, large.edges, large.levels) == ([SentNode("a")], None, None)
    assert large.kept is not None
    assert max(len(data) for _, data in large.kept.slices()) < 1 << 16
    assert len(finish(large.kept.check()).edges) == LARGE_GRAPH


# unit.started


def test_a_start_has_counts():
    assert opened("unit.started", {"total_tasks": 3, "completed_tasks": 0}) == TaskCounts(3, 0)
    assert opened("unit.started", {"total_tasks": MAX_INT}) == TaskCounts(MAX_INT, None)
    assert opened("unit.started", {"total_tasks": None}) == TaskCounts(None, None)


@pytest.mark.parametrize("field", ["total_tasks", "completed_tasks"])
@pytest.mark.parametrize("value", [-1, "1", 1.5, True, [], MAX_INT + 1, 10**40])
def test_a_count_that_is_none_is_refused_by_name(field: str, value: JsonValue):
    assert reason("unit.started", {field: value}).startswith(f"payload of unit.started: {field}: ")


# What no decoder may let through.


@pytest.mark.parametrize("type", PAYLOADS)
@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"x":', "truncated"),
        (b"{} {}", "trailing"),
    ],
    ids=["deep", "cut", "two"],
)
def test_raw_bytes_that_are_no_json_are_refused_and_nothing_else_is_raised(type: str, raw: bytes, why: str):
    event = msgspec.structs.replace(
        Event(type), payload=msgspec.Raw(raw)
    )  # past the check of the constructor
    with pytest.raises(InvalidEventError, match=f"payload of {type}.*{why}"):
        open_payload(event)


@pytest.mark.parametrize(
    ("type", "raw"),
    [
        ("orch.started", b'{"graph":{"nodes":[{"id":"\xff"}]}}'),
        ("orch.started", b'{"graph":{"levels":[["\xed\xa0\x80"]]}}'),
        ("unit.added", b'{"depends_on":["\xc3"]}'),
    ],
)
def test_text_that_is_no_utf_8_is_refused(type: str, raw: bytes):
    event = msgspec.structs.replace(
        Event(type), payload=msgspec.Raw(raw)
    )  # past the check of the constructor
    with pytest.raises(InvalidEventError, match=f"payload of {type}: not valid UTF-8"):
        open_payload(event)
