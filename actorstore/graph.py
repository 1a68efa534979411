"""The dependency graph: checked and given levels, whatever was sent.

Pure functions over ids; nothing here fails on a bad graph and nothing recurses,
so a chain of a million units is as good as any other graph.

Reading order: `build`, then `extend`, then how levels are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from actorstore.answers import GraphData, GraphEdge, GraphNode, GraphProblem

EMPTY = GraphData((), (), (), ())
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
    nodes, edges = tuple(nodes), tuple(edges)
    given = tuple(map(tuple, levels))
    known = {node.id: node for node in nodes}
    rank = {id: level for level, ids in enumerate(given) for id in ids}
    fits = rank.keys() == known.keys() and sum(map(len, given)) == len(known)
    if len(known) == len(nodes) and fits and _all_lead_down(edges, rank):
        return GraphData(_at_levels(nodes, rank), edges, given, ())
    problems: list[GraphProblem] = []
    if len(known) < len(nodes):
        known = {}
        problems += [
            GraphProblem("duplicate_id", (node.id,))
            for node in nodes
            if known.setdefault(node.id, node) is not node
        ]
    depends_on = _sound_edges(known, edges, problems)
    computed, circles = _ranks(known, depends_on)
    problems += [GraphProblem("cycle", tuple(circle)) for circle in circles]
    if not (given and fits and _leads_down(depends_on, rank, computed)):
        if given:
            problems.append(GraphProblem("levels", ()))
        rank, given = computed, _by_level(computed)
    return GraphData(_at_levels(known.values(), rank), edges, given, tuple(problems))


def extend(graph: GraphData, added: Iterable[tuple[str, int, Sequence[str]]]) -> GraphData:
    """Add units that were found while the run was under way.

    Args:
        graph: The graph so far; its nodes keep their levels, unless they waited for what is added.
        added: Id, number of tasks, and ids depended on, of each new unit.
    """
    rank = {node.id: node.level for node in graph.nodes}
    nodes = list(graph.nodes)
    edges = list(graph.edges)
    for id, tasks, depends_on in added:
        rank[id] = 1 + max((rank[other] for other in depends_on if other in rank), default=-1)
        nodes.append(GraphNode(id, rank[id], tasks))
        edges += [GraphEdge(id, other) for other in depends_on]
    height = 1 + max(rank.values(), default=-1)
    levels = [*map(list, graph.levels), *([] for _ in range(height - len(graph.levels)))]
    for node in nodes[len(graph.nodes) :]:
        levels[node.level].append(node.id)
    grown = build(nodes, edges, levels)
    if any(problem.kind == "levels" for problem in grown.problems):
        grown = build(nodes, edges)  # a unit came that others had waited for
    before = tuple(problem for problem in graph.problems if problem.kind in ("duplicate_id", "levels"))
    return GraphData(grown.nodes, grown.edges, grown.levels, before + grown.problems)


def _all_lead_down(edges: Iterable[GraphEdge], rank: Mapping[str, int]) -> bool:
    """Whether every edge leads to a lower level: then no unit is missing, and no circle is possible.

    Six times faster than to look for circles, and what a careful producer sends.
    """
    try:
        for edge in edges:
            if rank[edge.from_] <= rank[edge.to]:
                return False
    except KeyError:
        return False
    return True


def _leads_down(
    depends_on: Mapping[str, Sequence[str]], rank: Mapping[str, int], computed: Mapping[str, int]
) -> bool:
    """Whether every sound edge leads to a lower level, and a circle stands on one."""
    return all(
        rank[id] == rank[other] if computed[id] == computed[other] else rank[id] > rank[other]
        for id, others in depends_on.items()
        for other in others
    )


def _at_levels(nodes: Iterable[GraphNode], rank: Mapping[str, int]) -> tuple[GraphNode, ...]:
    return tuple(
        [
            node
            if node.level == (level := rank[node.id])
            else GraphNode(node.id, level, node.tasks, node.status, node.completed_tasks)
            for node in nodes
        ]
    )


def _by_level(rank: Mapping[str, int]) -> tuple[tuple[str, ...], ...]:
    levels: list[list[str]] = [[] for _ in range(1 + max(rank.values(), default=-1))]
    for id, level in rank.items():
        levels[level].append(id)
    return tuple(map(tuple, levels))


def _sound_edges(
    known: Mapping[str, GraphNode], edges: Iterable[GraphEdge], problems: list[GraphProblem]
) -> dict[str, list[str]]:
    """What each unit depends on, leaving out the edges that it lists as problems."""
    depends_on: dict[str, list[str]] = {}
    for edge in edges:
        if edge.from_ == edge.to:
            problems.append(GraphProblem("self_edge", (edge.from_, edge.to)))
        elif edge.from_ not in known or edge.to not in known:
            problems.append(GraphProblem("dangling_edge", (edge.from_, edge.to)))
        else:
            depends_on.setdefault(edge.from_, []).append(edge.to)
    return depends_on


def _ranks(
    ids: Iterable[str], depends_on: Mapping[str, Sequence[str]]
) -> tuple[dict[str, int], list[list[str]]]:
    """Return the level of each id, in the order of `ids`, and the circles.

    Kahn's algorithm, from the units that depend on nothing. It stops where
    circles begin; there each strongly connected component counts as one unit.
    """
    order = list(ids)
    rank = dict.fromkeys(order, 0)
    waits_for = {id: len(others) for id, others in depends_on.items()}
    waiting: dict[str, list[str]] = {}
    for id, others in depends_on.items():
        for other in others:
            waiting.setdefault(other, []).append(id)
    done = [id for id in order if id not in waits_for]
    for id in done:
        above = rank[id] + 1
        for waiter in waiting.get(id, ()):
            if rank[waiter] < above:
                rank[waiter] = above
            waits_for[waiter] -= 1
            if not waits_for[waiter]:
                done.append(waiter)
    if len(done) == len(order):
        return rank, []
    settled = set(done)
    place = {id: number for number, id in enumerate(order)}
    circles = []
    for component in _components([id for id in order if id not in settled], depends_on, settled):
        component.sort(key=place.__getitem__)
        members = set(component)
        level = max(
            (rank[other] + 1 for id in component for other in depends_on[id] if other not in members),
            default=0,
        )
        rank.update(dict.fromkeys(component, level))
        if len(component) > 1:
            circles.append(component)
    return rank, circles


def _components(
    ids: Sequence[str], depends_on: Mapping[str, Sequence[str]], settled: set[str]
) -> Iterator[list[str]]:
    """Yield the strongly connected components, each after those that it depends on.

    Tarjan's algorithm (SIAM Journal on Computing 1(2), 1972), with a stack of
    its own in place of recursion.
    """
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    for root in ids:
        if root in number:
            continue
        work = [(root, iter(depends_on[root]))]
        number[root] = low[root] = len(number)
        path.append(root)
        on_path.add(root)
        while work:
            id, others = work[-1]
            for other in others:
                if other in settled:
                    continue
                if other not in number:
                    number[other] = low[other] = len(number)
                    path.append(other)
                    on_path.add(other)
                    work.append((other, iter(depends_on[other])))
                    break
                if other in on_path:
                    low[id] = min(low[id], number[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[id])
                if low[id] == number[id]:
                    component: list[str] = []
                    while not component or component[-1] != id:
                        component.append(path.pop())
                    on_path.difference_update(component)
                    yield component
