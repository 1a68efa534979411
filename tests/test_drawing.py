"""Graphs as text: arrows in the order of the run, colours by status, and no id that breaks out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec
import pytest

from actorstore import Event, GraphData, StateSnapshot
from actorstore.cli import drawing
from tests.builders import (
    chain,
    diamond,
    fold,
    orch_planned,
    orch_started,
    unit_completed,
    unit_failed,
    units,
)

HOSTILE = '\x1b[31m"]; end <b>&`#\\'
"""An id that tries to be an escape sequence, a quote, a tag, an entity and a line's end."""


def drawn(*events: Event) -> tuple[GraphData, StateSnapshot]:
    """The graph and the state of the run after these events."""
    state = fold(*events)
    return state.graph().data(), state.snapshot()


def test_dot_leads_from_a_unit_to_those_that_wait_for_it() -> None:
    text = drawing.dot(*drawn(orch_started(diamond())))
    assert text.startswith('digraph "run" {\n')
    assert text.endswith("}\n")
    assert [line for line in text.splitlines() if "->" in line] == [
        '  "a" -> "b"',
        '  "a" -> "c"',
        '  "b" -> "d"',
        '  "c" -> "d"',
    ]


def test_dot_bears_the_name_of_the_run_and_the_colour_of_each_status() -> None:
    events = orch_started(chain(3), run="r"), unit_completed("u0", run="r"), unit_failed("u1", run="r")
    text = drawing.dot(*drawn(*events))
    assert text.startswith('digraph "r" {\n')
    for id, status in {"u0": "complete", "u1": "failed", "u2": "pending"}.items():
        fill, border = drawing.COLOURS[drawing.UnitStatus(status)]
        assert f'"{id}" [fillcolor="{fill}" color="{border}"]' in text


def test_mermaid_numbers_the_units_and_shows_their_ids() -> None:
    text = drawing.mermaid(*drawn(orch_started(chain(2)), unit_completed("u0")))
    assert text.splitlines()[:4] == [
        "flowchart TD",
        '  u0["u0"]:::complete',
        '  u1["u1"]:::pending',
        "  u0 --> u1",
    ]
    assert "classDef complete fill:#dafbe1" in text
    assert "classDef failed" not in text


def test_json_is_the_graph_itself_on_one_line() -> None:
    graph, snapshot = drawn(orch_started(diamond()))
    text = drawing.json(graph, snapshot)
    assert text == graph.json().decode() + "\n"


def test_an_edge_to_a_unit_that_is_not_there_is_not_drawn() -> None:
    graph, snapshot = drawn(orch_planned({"id": "a"}, edges=[("a", "ghost"), ("ghost", "a"), ("a", "a")]))
    assert "ghost" not in drawing.dot(graph, snapshot)
    assert drawing.mermaid(graph, snapshot).count("-->") == 1


def test_a_hostile_id_stays_inside_its_quotes() -> None:
    graph, snapshot = drawn(orch_started(units(HOSTILE)))
    dot = drawing.dot(graph, snapshot).splitlines()[2]
    quoted = re.match(r'^  "((?:[^"\\]|\\.)*)" \[fillcolor="#ffffff" color="#8c959f"\]$', dot)
    assert quoted
    assert quoted[1] == r"\\x1b[31m\"]; end <b>&`#\\"
    label = drawing.mermaid(graph, snapshot).splitlines()[1]
    assert re.fullmatch(r'  u0\["[\w .,:/()+=@;#-]+"\]:::pending', label)
    assert "<" not in label


@pytest.mark.parametrize("form", drawing.FORMS)
def test_no_form_lets_a_terminal_escape_through(form: str) -> None:
    id = "a\x1b[2J\x9bm\u202eb\x7f"
    text = drawing.FORMS[form](*drawn(orch_started({id: ["x"]}), unit_failed(id, "\x9b31m")))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


@pytest.mark.parametrize(
    "value", [{"a": "plain"}, {"é": "ünïcode 漢"}, {"\x9b": ["\u202e", "\x7f", "\u2028"]}]
)
def test_harmless_json_means_the_same(value: Mapping[str, object]) -> None:
    text = drawing.plain_json(msgspec.json.encode(value))
    assert json.loads(text) == value
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e\u2028]", text)


def test_json_without_anything_harmful_is_left_as_it_is() -> None:
    data = '{"a":"漢 é"}'.encode()
    assert drawing.plain_json(data).encode() == data
