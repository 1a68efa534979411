"""Graphs: checked and given levels whatever was sent; a bad one fails no run and loops nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actorstore.answers import GraphData, GraphEdge, GraphNode, UnitStatus
from actorstore.graph import EMPTY, build, extend
from tests.builders import apply, chain, circle, diamond, fold, orch_planned, orch_started, unit_added, units


def nodes(*ids: str) -> list[GraphNode]:
    return [GraphNode(id, 0, 0) for id in ids]


def edges(*pairs: tuple[str, str]) -> list[GraphEdge]:
    return [GraphEdge(from_, to) for from_, to in pairs]


def drawn(graph: Mapping[str, Iterable[str]], levels: Iterable[Iterable[str]] = ()) -> GraphData:
    pairs = [(unit, other) for unit, others in graph.items() for other in others]
    return build(nodes(*graph), edges(*pairs), levels)


def problems(graph: GraphData) -> list[tuple[str, tuple[str, ...]]]:
    return [(problem.kind, problem.ids) for problem in graph.problems]


def level_of(graph: GraphData) -> dict[str, int]:
    return {node.id: node.level for node in graph.nodes}


# Levels.


def test_a_unit_is_one_level_above_the_highest_that_it_depends_on():
    graph = drawn(diamond())
    assert graph.levels == (("a",), ("b", "c"), ("d",))
    assert level_of(graph) == {"a": 0, "b": 1, "c": 1, "d": 2}
    assert graph.problems == ()


def test_a_long_way_and_a_short_way_meet_above_the_long_one():
    graph = drawn({"top": ["c", "a"], "c": ["b"], "b": ["a"], "a": []})
    assert graph.levels == (("a",), ("b",), ("c",), ("top",))


def test_within_a_level_units_stand_in_the_order_of_the_nodes():
    assert drawn(units("z", "a", "m")).levels == (("z", "a", "m"),)


def test_edges_that_are_given_twice_count_once_for_the_levels():
    graph = build(nodes("a", "b"), edges(("b", "a"), ("b", "a")))
    assert graph.levels == (("a",), ("b",))
    assert graph.edges == (GraphEdge("b", "a"), GraphEdge("b", "a"))
    assert graph.problems == ()


def test_no_nodes_make_no_levels():
    assert build([], []) == EMPTY


def test_levels_that_hold_every_node_once_are_taken():
    graph = drawn(diamond(), levels=[["a"], [], ["c", "b"], ["d"]])
    assert graph.levels == (("a",), (), ("c", "b"), ("d",))
    assert level_of(graph) == {"a": 0, "b": 2, "c": 2, "d": 3}
    assert graph.problems == ()


@pytest.mark.parametrize(
    "levels",
    [
        [["a"], ["b", "c"]],
        [["a"], ["b", "c"], ["d", "x"]],
        [["a"], ["b", "c"], ["d"], ["d"]],
        [["a", "a"], ["b", "c"], ["d"]],
        [["a"], ["b", "b"], ["d"]],
        [["x"]],
        [[]],
    ],
    ids=[
        "one missing",
        "one too many",
        "on two levels",
        "twice on one",
        "twice and missing",
        "other",
        "empty",
    ],
)
def test_levels_that_do_not_hold_every_node_once_are_computed_and_listed(levels: list[list[str]]):
    graph = drawn(diamond(), levels)
    assert graph.levels == (("a",), ("b", "c"), ("d",))
    assert level_of(graph) == {"a": 0, "b": 1, "c": 1, "d": 2}
    assert problems(graph) == [("levels", ())]


def test_missing_and_empty_levels_are_computed_without_a_word():
    assert drawn(diamond(), []).problems == drawn(diamond()).problems == ()


def test_the_level_that_a_node_names_itself_gives_way_to_the_levels():
    graph = build([GraphNode("a", 7, 3, UnitStatus.COMPLETE, 2)], [])
    assert graph.nodes == (GraphNode("a", 0, 3, UnitStatus.COMPLETE, 2),)


def test_given_levels_do_not_hide_a_circle_whose_units_stand_on_one_level():
    graph = drawn({"u0": ["u1"], "u1": ["u0"]}, levels=[["u0"], ["u1"]])
    assert graph.levels == (("u0", "u1"),)
    assert [problem.kind for problem in graph.problems] == ["cycle", "levels"]


def test_given_levels_that_lead_up_are_computed():
    graph = drawn({"a": ["b"], "b": []}, levels=[["a"], ["b"]])
    assert graph.levels == (("b",), ("a",))
    assert [problem.kind for problem in graph.problems] == ["levels"]


def test_a_unit_that_others_waited_for_comes_below_them():
    graph = extend(drawn({}), [("x", 0, ["y"]), ("y", 0, [])])
    assert graph.levels == (("y",), ("x",))
    assert graph.problems == ()


def test_given_levels_do_not_hide_a_circle_on_one_level():
    graph = drawn(circle(2), levels=[["u0", "u1"]])
    assert graph.levels == (("u0", "u1"),)
    assert problems(graph) == [("cycle", ("u0", "u1"))]


# Problems.


def test_a_circle_is_one_level_and_is_listed_in_the_order_of_the_nodes():
    graph = drawn({"after": ["c"], "c": ["b"], "b": ["a"], "a": ["c", "before"], "before": []})
    assert problems(graph) == [("cycle", ("c", "b", "a"))]
    assert level_of(graph) == {"before": 0, "a": 1, "b": 1, "c": 1, "after": 2}


def test_circles_that_lean_on_each_other_are_two_problems():
    graph = drawn({"a": ["b"], "b": ["a"], "c": ["d", "a"], "d": ["c"], "e": ["d"]})
    assert problems(graph) == [("cycle", ("a", "b")), ("cycle", ("c", "d"))]
    assert level_of(graph) == {"a": 0, "b": 0, "c": 1, "d": 1, "e": 2}


def test_a_unit_that_waits_for_itself_is_listed_and_stands_where_it_would_without():
    graph = drawn({"a": ["a"], "b": ["b", "a"]})
    assert problems(graph) == [("self_edge", ("a", "a")), ("self_edge", ("b", "b"))]
    assert level_of(graph) == {"a": 0, "b": 1}
    assert GraphEdge("a", "a") in graph.edges


def test_an_edge_that_leads_nowhere_or_comes_from_nowhere_is_listed():
    graph = build(nodes("a"), edges(("a", "x"), ("y", "a"), ("x", "y"), ("z", "z")))
    assert problems(graph) == [
        ("dangling_edge", ("a", "x")),
        ("dangling_edge", ("y", "a")),
        ("dangling_edge", ("x", "y")),
        ("self_edge", ("z", "z")),
    ]
    assert graph.levels == (("a",),)
    assert len(graph.edges) == 4


def test_edges_without_any_node_are_listed():
    graph = build([], edges(("a", "b")))
    assert problems(graph) == [("dangling_edge", ("a", "b"))]
    assert graph.levels == ()


def test_of_two_nodes_with_one_id_the_first_counts():
    first, second = GraphNode("a", 0, 1, UnitStatus.READY), GraphNode("a", 0, 9, UnitStatus.FAILED)
    graph = build([first, *nodes("b"), second, second], edges(("b", "a")))
    assert graph.nodes == (first, GraphNode("b", 1, 0))
    assert problems(graph) == [("duplicate_id", ("a",)), ("duplicate_id", ("a",))]
    assert graph.levels == (("a",), ("b",))


def test_a_duplicate_does_not_spoil_levels_that_are_given():
    graph = build(nodes("a", "b", "a"), edges(("b", "a")), [["a"], ["b"]])
    assert graph.levels == (("a",), ("b",))
    assert problems(graph) == [("duplicate_id", ("a",))]


def test_all_problems_at_once_are_all_listed():
    graph = build(nodes("a", "b", "a"), edges(("a", "b"), ("b", "a"), ("a", "a"), ("b", "x")), [["a"]])
    assert problems(graph) == [
        ("duplicate_id", ("a",)),
        ("self_edge", ("a", "a")),
        ("dangling_edge", ("b", "x")),
        ("cycle", ("a", "b")),
        ("levels", ()),
    ]


def test_a_bad_graph_fails_no_run():
    state = fold(
        orch_planned({"id": "a"}, {"id": "a"}, {"id": "b"}, edges=[("a", "b"), ("b", "a"), ("b", "x")])
    )
    snapshot = state.snapshot()
    assert snapshot.status == "running"
    assert [unit.id for unit in snapshot.units] == ["a", "b"]
    assert [problem.kind for problem in state.graph().data().problems] == [
        "duplicate_id",
        "dangling_edge",
        "cycle",
    ]


# Sizes that would break recursion, or quadratic work.

LARGE = 100_000


def test_a_chain_of_a_hundred_thousand_is_as_good_as_any_graph():
    graph = drawn(chain(LARGE))
    assert len(graph.levels) == LARGE
    assert graph.nodes[-1].level == LARGE - 1
    assert graph.problems == ()


def test_a_chain_that_comes_last_first_is_as_good():
    graph = drawn(dict(reversed(chain(LARGE).items())))
    assert graph.nodes[0].level == LARGE - 1
    assert graph.problems == ()


def test_a_circle_of_a_hundred_thousand_is_one_problem():
    graph = drawn(circle(LARGE))
    assert [(problem.kind, len(problem.ids)) for problem in graph.problems] == [("cycle", LARGE)]
    assert len(graph.levels) == 1


def test_a_hundred_thousand_units_on_one_are_two_levels():
    graph = drawn({"hub": [], **{f"u{number}": ["hub"] for number in range(LARGE)}})
    assert [len(level) for level in graph.levels] == [1, LARGE]


# Units that are added.


def test_an_added_unit_stands_above_what_it_depends_on():
    graph = extend(drawn(diamond()), [("e", 5, ["d", "a"]), ("f", 0, []), ("g", 0, ["e"])])
    assert graph.nodes[4:] == (GraphNode("e", 3, 5), GraphNode("f", 0, 0), GraphNode("g", 4, 0))
    assert graph.levels == (("a", "f"), ("b", "c"), ("d",), ("e",), ("g",))
    assert graph.edges[4:] == (GraphEdge("e", "d"), GraphEdge("e", "a"), GraphEdge("g", "e"))
    assert graph.problems == ()


def test_adding_nothing_changes_nothing():
    graph = drawn(diamond())
    assert extend(graph, []) == graph
    assert extend(EMPTY, []) == EMPTY


def test_a_first_unit_may_be_added_to_no_graph_at_all():
    assert extend(EMPTY, [("a", 1, [])]) == GraphData((GraphNode("a", 0, 1),), (), (("a",),), ())


def test_an_added_unit_may_bring_problems_with_it():
    graph = extend(drawn(units("a")), [("b", 0, ["b", "x", "a"])])
    assert problems(graph) == [("self_edge", ("b", "b")), ("dangling_edge", ("b", "x"))]
    assert level_of(graph) == {"a": 0, "b": 1}


def test_an_added_unit_may_heal_a_dangling_edge():
    graph = build(nodes("a"), edges(("a", "b")))
    assert problems(graph) == [("dangling_edge", ("a", "b"))]
    assert problems(extend(graph, [("b", 0, [])])) == []


def test_an_added_unit_may_close_a_circle():
    graph = build(nodes("a"), edges(("a", "b")))
    assert problems(extend(graph, [("b", 0, ["a"])])) == [("cycle", ("a", "b"))]


def test_problems_of_before_are_listed_once_after_an_addition():
    graph = build(nodes("a", "a", "c", "d"), edges(("a", "a"), ("c", "d"), ("d", "c")), [["x"]])
    after = extend(graph, [("b", 0, ["a"])])
    assert sorted(problems(after)) == sorted(problems(graph))


def test_many_additions_do_not_depend_on_when_the_graph_is_asked_for():
    added = [unit_added("e", ["d"]), unit_added("f", ["e", "x"]), unit_added("x")]
    asked = fold(orch_started(diamond()))
    for event in added:
        apply(asked, event).graph().data()
    assert asked.graph().data() == fold(orch_started(diamond()), *added).graph().data()


# Properties, against models that are obviously right.

IDS = st.sampled_from("abcdefgh")
ANY_NODES = st.lists(IDS, max_size=10)
ANY_EDGES = st.lists(st.tuples(IDS, IDS), max_size=16)
ANY_LEVELS = st.lists(st.lists(IDS, max_size=3), max_size=3)


def reached(start: str, sound: set[tuple[str, str]]) -> set[str]:
    """All units that this one depends on, over any number of edges."""
    found: set[str] = set()
    edge = [start]
    while edge:
        edge = [to for from_, to in sound if from_ in edge and to not in found]
        found.update(edge)
    return found


@given(ANY_NODES, ANY_EDGES)
@example(list("aabc"), [("a", "b"), ("b", "a"), ("c", "c"), ("c", "x")])
def test_problems_are_those_that_brute_force_finds(ids: list[str], pairs: list[tuple[str, str]]):
    graph = build(nodes(*ids), edges(*pairs))
    unique = list(dict.fromkeys(ids))
    sound = {(from_, to) for from_, to in pairs if from_ != to and {from_, to} <= set(unique)}
    within = {id: reached(id, sound) for id in unique}
    circles = {tuple(o for o in unique if o in within[id] and id in within[o]) for id in unique} - {()}

    assert graph.nodes == tuple(GraphNode(id, level_of(graph)[id], 0) for id in unique)
    assert graph.edges == tuple(edges(*pairs))
    found = problems(graph)
    assert {ids for kind, ids in found if kind == "cycle"} == circles
    assert [ids for kind, ids in found if kind == "self_edge"] == [
        pair for pair in pairs if pair[0] == pair[1]
    ]
    assert [ids for kind, ids in found if kind == "dangling_edge"] == [
        pair for pair in pairs if pair[0] != pair[1] and not {*pair} <= set(unique)
    ]
    assert len([kind for kind, _ in found if kind == "duplicate_id"]) == len(ids) - len(unique)


@given(ANY_NODES, ANY_EDGES)
def test_every_edge_leads_down_but_those_within_a_circle(ids: list[str], pairs: list[tuple[str, str]]):
    graph = build(nodes(*ids), edges(*pairs))
    level = level_of(graph)
    together = {id: circle for kind, circle in problems(graph) if kind == "cycle" for id in circle}
    sound = [(from_, to) for from_, to in pairs if from_ != to and from_ in level and to in level]
    for from_, to in sound:
        if to in together.get(from_, ()):
            assert level[from_] == level[to]
        else:
            assert level[from_] > level[to]
    for id in level:  # and none stands higher than it must
        others = [to for from_, to in sound if from_ in together.get(id, (id,))]
        below = [level[other] for other in others if other not in together.get(id, ())]
        assert level[id] == 1 + max(below, default=-1)
    assert graph.levels == tuple(
        tuple(id for id in level if level[id] == height)
        for height in range(1 + max(level.values(), default=-1))
    )


@given(ANY_EDGES)
def test_without_circles_the_levels_are_those_of_graphlib(pairs: list[tuple[str, str]]):
    forward = [(max(pair), min(pair)) for pair in pairs if pair[0] != pair[1]]
    sorter = TopologicalSorter({id: [to for from_, to in forward if from_ == id] for id in "abcdefgh"})
    sorter.prepare()
    levels = []
    while ready := sorter.get_ready():
        levels.append(tuple(sorted(ready)))
        sorter.done(*ready)
    graph = build(nodes(*"abcdefgh"), edges(*forward))
    assert graph.levels == tuple(levels)
    assert graph.problems == ()


@given(ANY_NODES, ANY_EDGES, ANY_LEVELS)
def test_levels_always_hold_every_node_once_and_building_again_changes_nothing(
    ids: list[str], pairs: list[tuple[str, str]], levels: list[list[str]]
):
    graph = build(nodes(*ids), edges(*pairs), levels)
    assert sorted(id for level in graph.levels for id in level) == sorted(set(ids))
    assert all(
        graph.nodes[place].id in graph.levels[graph.nodes[place].level] for place in range(len(graph.nodes))
    )
    again = build(graph.nodes, graph.edges, graph.levels)
    assert (again.nodes, again.edges, again.levels) == (graph.nodes, graph.edges, graph.levels)
    assert build(nodes(*ids), edges(*pairs), levels) == graph


@given(
    st.lists(st.tuples(IDS, st.lists(IDS, max_size=3)), max_size=8, unique_by=lambda unit: unit[0]), st.data()
)
def test_adding_unit_by_unit_finds_the_problems_of_the_whole(
    found: list[tuple[str, list[str]]], data: st.DataObject
):
    split = data.draw(st.integers(0, len(found)))
    start, added = found[:split], found[split:]
    graph = extend(drawn(dict(start)), [(id, 0, others) for id, others in added])
    whole = drawn(dict(found))
    assert set(graph.problems) == set(whole.problems)
    assert [node.id for node in graph.nodes] == [node.id for node in whole.nodes]
    assert graph.edges == whole.edges
    assert sorted(id for level in graph.levels for id in level) == sorted(id for id, _ in found)
    step_by_step = drawn(dict(start))
    for id, others in added:
        step_by_step = extend(step_by_step, [(id, 0, others)])
    assert step_by_step == graph
