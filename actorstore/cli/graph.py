"""`actorstore graph`: what the units of a run depend on, level by level."""

from __future__ import annotations

import argparse
from collections import defaultdict

from actorstore.answers import GraphData
from actorstore.cli import access, drawing
from actorstore.cli.view import counted
from actorstore.remote import RemoteStore
from actorstore.text import clean


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore graph`."""
    parser.epilog = access.EXIT_CODES + (
        "examples:\n"
        "  actorstore graph\n"
        "  actorstore graph --json nightly | jq .levels\n"
        "  actorstore graph --draw dot | dot -Tsvg > graph.svg"
    )
    access.add_run(parser)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--json", action="store_true", help="print the graph as JSON; null where there is none"
    )
    forms.add_argument(
        "--draw",
        choices=[form for form in drawing.FORMS if form != "json"],
        help="print it for Graphviz or Markdown",
    )
    access.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Run `actorstore graph`.

    Returns:
        0; 1 where there is no such run; 2 where the call was wrong; 69 where nobody listens.
    """

    def ask(store: RemoteStore) -> str:
        graph = store.graph(args.run)
        if args.json:
            return access.json_lines([graph.json() if graph else b"null"])
        snapshot = store.snapshot(args.run)
        if args.draw:
            return drawing.FORMS[args.draw](graph or GraphData((), (), (), ()), snapshot)
        name = clean(snapshot.run) if snapshot.run else "run"
        return described(name, graph) if graph else f"{name}: it has no graph\n"

    return access.answer(args, ask)


def described(name: str, graph: GraphData) -> str:
    """Describe a graph: its size, its units by level with what each waits for, and what is wrong with it."""
    depends_on: defaultdict[str, list[str]] = defaultdict(list)
    for edge in graph.edges:
        depends_on[edge.from_].append(clean(edge.to))
    edges = f"{len(graph.edges):,} {'dependency' if len(graph.edges) == 1 else 'dependencies'}"
    size = f"{counted(len(graph.nodes), 'unit')}, {edges}, {counted(len(graph.levels), 'level')}"
    lines = [f"{name}: {size}"]
    for number, level in enumerate(graph.levels):
        lines += ["", f"level {number}"]
        for unit in level:
            after = f"  after {', '.join(depends_on[unit])}" if unit in depends_on else ""
            lines.append(f"  {clean(unit)}{after}")
    if graph.problems:
        lines += ["", counted(len(graph.problems), "problem")]
        lines += [f"  {clean(str(problem))}" for problem in graph.problems]
    return "\n".join([*lines, ""])
