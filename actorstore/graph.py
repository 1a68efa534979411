"""The dependency graph: checked and given levels, whatever was sent.

Pure functions over ids; nothing here fails on a bad graph and nothing recurses,
so a chain of a million units is as good as any other graph.

A large graph takes seconds, in which others want the interpreter too; so all of
this is written as steps, between which whoever runs them may rest.

Reading order: `build`, then `extend`, then how levels are found.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple, TypeAlias, TypeVar

from actorstore.answers import GraphData, GraphEdge, GraphNode, GraphProblem

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
"""Work that is done piece by piece, each of them a short one; what it returns is the result."""

PIECE: Final = 1024
"""How many nodes, edges or ids are looked at in one piece: some tenths of a millisecond."""


class Arrows(NamedTuple):
    """Edges between places of nodes, the one at each index; `froms` depend on `tos`."""

    froms: array[int]
    tos: array[int]


EMPTY: Final = GraphData((), (), (), ())
"""A graph without nodes."""


def build(
    nodes: Iterable[GraphNode], edges: Iterable[GraphEdge], levels: Iterable[Iterable[str]] = ()
) -> GraphData:
    """Check a graph and give every node its level.

    Args:
        nodes: In the order of the units; of two with one id the first counts.
        edges: `from_` depends on `to`; kept as they are, and judged in `problems`.
        levels: Ids by level. Taken where it holds every node exactly once and
            above all that it depends on, otherwise computed: one more than the
            highest level depended on, and one level for all units of a circle.
    """
    return finish(build_in_steps(list(nodes), list(edges), tuple(map(tuple, levels))))


def build_in_steps(
    nodes: list[GraphNode], edges: list[GraphEdge], given: tuple[tuple[str, ...], ...]
) -> Steps[GraphData]:
    """Do what `build` does, and yield after each piece of work; takes the lists over."""
    problems: list[GraphProblem] = []
    places = yield from _places(nodes, problems)
    arrows = yield from _sound_edges(places, edges, problems)
    ranks = yield from _given_ranks(places, given)
    if ranks is None or not (yield from _all_lead_down(arrows, ranks)):
        computed, circles = yield from _ranks(len(nodes), arrows)
        problems += [
            GraphProblem("cycle", tuple([nodes[place].id for place in circle])) for circle in circles
        ]
        if ranks is None or not (yield from _all_lead_down(arrows, ranks, computed)):
            if given:
                problems.append(GraphProblem("levels", ()))
            ranks, given = computed, (yield from _by_level(nodes, computed))
    yield from _set_levels(nodes, ranks)
    while places:  # bit by bit: to free so much at once holds up all threads
        for _ in range(min(PIECE, len(places))):
            places.popitem()
        yield
    all_nodes = tuple(nodes)
    nodes.clear()
    yield
    all_edges = tuple(edges)
    edges.clear()
    yield
    return GraphData(all_nodes, all_edges, given, tuple(problems))


def extend(graph: GraphData, added: Iterable[tuple[str, int, Sequence[str]]]) -> GraphData:
    """Add units that were found while the run was under way.

    Args:
        graph: The graph so far; its nodes keep their levels, unless they waited for what is added.
        added: Id, number of tasks, and ids depended on, of each new unit.
    """
    return finish(extend_in_steps(graph, added))


def extend_in_steps(graph: GraphData, added: Iterable[tuple[str, int, Sequence[str]]]) -> Steps[GraphData]:
    """Do what `extend` does, and yield after each piece of work."""
    rank: dict[str, int] = {}
    for piece in _pieces(graph.nodes):
        rank.update({node.id: node.level for node in piece})
        yield
    nodes = list(graph.nodes)
    edges = list(graph.edges)
    height = 1 + max((node.level for node in nodes), default=-1)
    for id, tasks, depends_on in added:
        rank[id] = 1 + max((rank[other] for other in depends_on if other in rank), default=-1)
        height = max(height, 1 + rank[id])
        nodes.append(GraphNode(id, rank[id], tasks))
        edges += [GraphEdge(id, other) for other in depends_on]
    levels: list[Sequence[str]] = [*graph.levels, *([] for _ in range(height - len(graph.levels)))]
    more: dict[int, list[str]] = {}
    for node in nodes[len(graph.nodes) :]:
        more.setdefault(node.level, []).append(node.id)
    for level, ids in more.items():
        levels[level] = (*levels[level], *ids)
    grown = yield from build_in_steps(list(nodes), list(edges), tuple(map(tuple, levels)))
    if any(problem.kind == "levels" for problem in grown.problems):
        grown = yield from build_in_steps(nodes, edges, ())  # a unit came that others had waited for
    before = tuple(problem for problem in graph.problems if problem.kind in ("duplicate_id", "levels"))
    return GraphData(grown.nodes, grown.edges, grown.levels, before + grown.problems)


def finish(steps: Steps[T]) -> T:
    """Do all of it at once."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result


def _pieces(things: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), PIECE):
        yield things[start : start + PIECE]


def _places(nodes: list[GraphNode], problems: list[GraphProblem]) -> Steps[dict[str, int]]:
    """Return where each node stands, and remove those whose id came before."""
    places: dict[str, int] = {}
    for piece in _pieces(nodes):
        places.update(zip([node.id for node in piece], count(len(places)), strict=False))
        yield
    if len(places) == len(nodes):
        return places
    places = {}
    first: list[GraphNode] = []
    for piece in _pieces(nodes):
        for node in piece:
            if places.setdefault(node.id, len(first)) == len(first):
                first.append(node)
            else:
                problems.append(GraphProblem("duplicate_id", (node.id,)))
        yield
    nodes[:] = first
    return places


def _sound_edges(
    places: Mapping[str, int], edges: Sequence[GraphEdge], problems: list[GraphProblem]
) -> Steps[Arrows]:
    """Return the edges between places, leaving out those that it lists as problems."""
    froms, tos = array("q"), array("q")
    find = places.get
    for piece in _pieces(edges):
        for edge in piece:
            start, end = find(edge.from_), find(edge.to)
            if edge.from_ == edge.to:
                problems.append(GraphProblem("self_edge", (edge.from_, edge.to)))
            elif start is None or end is None:
                problems.append(GraphProblem("dangling_edge", (edge.from_, edge.to)))
            else:
                froms.append(start)
                tos.append(end)
        yield
    return Arrows(froms, tos)


def _given_ranks(places: Mapping[str, int], given: tuple[tuple[str, ...], ...]) -> Steps[array[int] | None]:
    """Return the level of each node as it was given; `None` where not every node is there exactly once."""
    if not given or sum(map(len, given)) != len(places):
        return None
    ranks = array("q", [-1]) * len(places)
    done = 0
    for level, ids in enumerate(given):
        for piece in _pieces(ids):
            for id in piece:
                place = places.get(id)
                if place is None or ranks[place] >= 0:
                    return None
                ranks[place] = level
            done += len(piece)
            if done >= PIECE:
                done = 0
                yield
    return ranks


def _all_lead_down(arrows: Arrows, ranks: array[int], computed: array[int] | None = None) -> Steps[bool]:
    """Whether every edge leads to a lower level, and a circle, where circles are known, stands on one.

    Where all lead down no circle is possible, and none has to be looked for:
    that is what a careful producer sends.
    """
    for starts, ends in zip(_pieces(arrows.froms), _pieces(arrows.tos), strict=True):
        for start, end in zip(starts, ends, strict=True):
            level, below = ranks[start], ranks[end]
            is_circle = computed is not None and computed[start] == computed[end]
            if not (level == below if is_circle else level > below):
                return False
        yield
    return True


def _set_levels(nodes: list[GraphNode], ranks: array[int]) -> Steps[None]:
    for start in range(0, len(nodes), PIECE):
        nodes[start : start + PIECE] = [
            node
            if node.level == level
            else GraphNode(node.id, level, node.tasks, node.status, node.completed_tasks)
            for node, level in zip(nodes[start : start + PIECE], ranks[start : start + PIECE], strict=True)
        ]
        yield


def _by_level(nodes: list[GraphNode], ranks: array[int]) -> Steps[tuple[tuple[str, ...], ...]]:
    levels: list[list[str]] = [[] for _ in range(1 + max(ranks, default=-1))]
    for some, theirs in zip(_pieces(nodes), _pieces(ranks), strict=True):
        for node, level in zip(some, theirs, strict=True):
            levels[level].append(node.id)
        yield
    return tuple(map(tuple, levels))


def _ranks(size: int, arrows: Arrows) -> Steps[tuple[array[int], list[list[int]]]]:
    """Return the level of each place, and the circles.

    Kahn's algorithm, from the units that depend on nothing. It stops where
    circles begin; there each strongly connected component counts as one unit.
    What waits for a unit is chained through two arrays: a list a unit would have
    Python's garbage collector look at millions of them.
    """
    ranks = array("q", [0]) * size
    waits_for = array("q", [0]) * size
    newest = array("q", [-1]) * size  # the last edge that leads to a place
    before = array("q")  # the edge that leads to the same place before this one
    froms = arrows.froms
    for starts, ends in zip(_pieces(froms), _pieces(arrows.tos), strict=True):
        for start, end in zip(starts, ends, strict=True):
            waits_for[start] += 1
            before.append(newest[end])
            newest[end] = len(before) - 1
        yield
    done = array("q", [place for place in range(size) if not waits_for[place]])
    work = 0
    for place in done:
        above = ranks[place] + 1
        edge = newest[place]
        while edge >= 0:
            waiter = froms[edge]
            if ranks[waiter] < above:
                ranks[waiter] = above
            waits_for[waiter] -= 1
            if not waits_for[waiter]:
                done.append(waiter)
            edge = before[edge]
            work += 1
        work += 1
        if work >= PIECE:
            work = 0
            yield
    if len(done) == size:
        return ranks, []
    settled = bytearray(size)
    for place in done:
        settled[place] = True
    return ranks, (yield from _circles(arrows, settled, ranks))


def _circles(arrows: Arrows, settled: bytearray, ranks: array[int]) -> Steps[list[list[int]]]:
    """Return the circles among what is not settled, and give all of that its levels."""
    depends_on: dict[int, list[int]] = {place: [] for place, is_so in enumerate(settled) if not is_so}
    for starts, ends in zip(_pieces(arrows.froms), _pieces(arrows.tos), strict=True):
        for start, end in zip(starts, ends, strict=True):
            if not settled[start]:
                depends_on[start].append(end)
        yield
    circles = []
    for component in _components(list(depends_on), depends_on, settled):
        component.sort()
        members = set(component)
        level = max(
            (ranks[other] + 1 for place in component for other in depends_on[place] if other not in members),
            default=0,
        )
        for place in component:
            ranks[place] = level
        if len(component) > 1:
            circles.append(component)
        yield
    return circles


def _components(
    places: Sequence[int], depends_on: Mapping[int, Sequence[int]], settled: bytearray
) -> Iterator[list[int]]:
    """Yield the strongly connected components, each after those that it depends on.

    Tarjan's algorithm (SIAM Journal on Computing 1(2), 1972), with a stack of
    its own in place of recursion.
    """
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    path: list[int] = []
    on_path: set[int] = set()
    for root in places:
        if root in number:
            continue
        work = [(root, iter(depends_on[root]))]
        number[root] = low[root] = len(number)
        path.append(root)
        on_path.add(root)
        while work:
            place, others = work[-1]
            for other in others:
                if settled[other]:
                    continue
                if other not in number:
                    number[other] = low[other] = len(number)
                    path.append(other)
                    on_path.add(other)
                    work.append((other, iter(depends_on[other])))
                    break
                if other in on_path:
                    low[place] = min(low[place], number[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[place])
                if low[place] == number[place]:
                    component: list[int] = []
                    while not component or component[-1] != place:
                        component.append(path.pop())
                    on_path.difference_update(component)
                    yield component
