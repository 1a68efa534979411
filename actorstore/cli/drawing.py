"""Dependency graphs as text: DOT for Graphviz, Mermaid for Markdown, JSON for programs.

Arrows point the way the run goes, from a unit to those that wait for it, so that
what comes first is drawn first. (An edge of the JSON is a dependency, and points
the other way.) Units have the colour of their status.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from actorstore.answers import GraphData, StateSnapshot, UnitStatus
from actorstore.text import clean

COLOURS: Final[Mapping[UnitStatus, tuple[str, str]]] = {
    UnitStatus.PENDING: ("#ffffff", "#8c959f"),
    UnitStatus.READY: ("#ffffff", "#0969da"),
    UnitStatus.IN_PROGRESS: ("#ddf4ff", "#0969da"),
    UnitStatus.COMPLETE: ("#dafbe1", "#1a7f37"),
    UnitStatus.FAILED: ("#ffebe9", "#cf222e"),
    UnitStatus.BLOCKED: ("#fff8c5", "#9a6700"),
}
"""What a unit is filled with, and its border."""


def dot(graph: GraphData, snapshot: StateSnapshot) -> str:
    """Draw the graph as DOT; the names of the nodes are the ids of the units."""
    statuses = {unit.id: unit.status for unit in snapshot.units}
    lines = [f"digraph {_quoted(snapshot.run or 'run')} {{", '  node [shape=box style="rounded,filled"]']
    for node in graph.nodes:
        fill, border = COLOURS[statuses.get(node.id, UnitStatus.PENDING)]
        lines.append(f'  {_quoted(node.id)} [fillcolor="{fill}" color="{border}"]')
    lines += [f"  {_quoted(first)} -> {_quoted(then)}" for first, then in _arrows(graph)]
    return "\n".join([*lines, "}", ""])


def mermaid(graph: GraphData, snapshot: StateSnapshot) -> str:
    """Draw the graph as a Mermaid flowchart."""
    statuses = {unit.id: unit.status for unit in snapshot.units}
    names = {node.id: f"u{number}" for number, node in enumerate(graph.nodes)}
    lines = ["flowchart TD"]
    for node in graph.nodes:
        status = statuses.get(node.id, UnitStatus.PENDING)
        lines.append(f'  {names[node.id]}["{_label(node.id)}"]:::{status}')
    lines += [f"  {names[first]} --> {names[then]}" for first, then in _arrows(graph)]
    used = dict.fromkeys(statuses.values())
    for status in used:
        fill, border = COLOURS[status]
        lines.append(f"  classDef {status} fill:{fill},stroke:{border},color:#1f2328")
    return "\n".join([*lines, ""])


def json(graph: GraphData, snapshot: StateSnapshot) -> str:
    """Write the graph as JSON, on one line."""
    return plain_json(graph.json()) + "\n"


FORMS: Final[Mapping[str, Callable[[GraphData, StateSnapshot], str]]] = {
    "dot": dot,
    "mermaid": mermaid,
    "json": json,
}
"""What a graph can be drawn as."""


def plain_json(data: bytes) -> str:
    r"""Return JSON that is harmless to a terminal, and means the same.

    JSON escapes the ASCII control characters of its own accord; what else a
    terminal might obey stands inside strings, where it is written as `\u009b`.
    """
    text = data.decode()
    if data.isascii() and "\x7f" not in text:
        return text
    for character in set(text):
        if clean(character) != character:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _arrows(graph: GraphData) -> Iterator[tuple[str, str]]:
    known = {node.id for node in graph.nodes}
    for edge in graph.edges:
        if edge.from_ in known and edge.to in known:
            yield edge.to, edge.from_


def _quoted(id: str) -> str:
    text = clean(id).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _label(id: str) -> str:
    """Write an id so that Mermaid takes it as text: no HTML, no Markdown, no entities."""
    return re.sub(r"""[^\w .,:/()+=@-]""", lambda match: f"#{ord(match[0])};", clean(id))
