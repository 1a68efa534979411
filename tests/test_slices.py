"""JSON in slices: byte for byte what one encode gives, and no call of the encoder is a long one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstore import Store, slices
from actorstore.answers import (
    Cursor,
    GraphData,
    GraphEdge,
    GraphNode,
    GraphProblem,
    RunStatus,
    Shared,
    StateSnapshot,
    StateSummary,
    UnitIndex,
    UnitState,
    UnitStatus,
    Update,
)
from actorstore.drafts import sliced_snapshot
from actorstore.graph import build
from actorstore.questions import takes_long
from actorstore.state import State
from tests.builders import NOON, at, fold, orch_started, unit_failed, units
from tests.raw import Raw

ODD = ('"units":[]', '"nodes":[],', "\\", "units", "\u20ac", "x" * 300)
TEXTS = st.text(max_size=8) | st.sampled_from(ODD)
STATES = st.builds(
    UnitState,
    TEXTS,
    st.sampled_from([*UnitStatus]),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9),
    st.none() | TEXTS,
    st.none() | st.just(NOON),
    st.none() | st.just(at(0.5)),
)
UNITS = st.lists(STATES, max_size=12).map(tuple)
SUMMARY = StateSummary(0, 0, 0, 0, 0, 0, 0)
SNAPSHOTS = st.builds(
    StateSnapshot,
    st.booleans(),
    TEXTS,
    st.integers(0, 99),
    st.sampled_from([*RunStatus]),
    st.just(3),
    UNITS,
    st.just(SUMMARY),
    st.none() | st.just(NOON),
    st.none(),
    st.none() | TEXTS,
)
IDS = st.lists(TEXTS, max_size=7).map(tuple)
GRAPHS = st.builds(
    GraphData,
    st.lists(st.builds(GraphNode, TEXTS, st.just(1), st.just(2)), max_size=7).map(tuple),
    st.lists(st.builds(GraphEdge, TEXTS, TEXTS), max_size=7).map(tuple),
    st.lists(IDS, max_size=5).map(tuple),
    st.lists(st.builds(GraphProblem, st.just("cycle"), IDS), max_size=5).map(tuple),
)
UPDATES = st.builds(
    Update,
    TEXTS,
    st.just(7),
    st.just(Cursor("c")),
    st.booleans(),
    st.sampled_from([*RunStatus]),
    st.just(3),
    st.just(SUMMARY),
    UNITS,
    st.none() | st.just(5),
    st.none(),
    st.none() | st.just(NOON),
    st.none() | TEXTS,
    st.none() | GRAPHS,
)
SIZES = st.integers(1, 5)


def cut(units: tuple[UnitState, ...], size: int) -> tuple[tuple[UnitState, ...], ...]:
    return tuple(units[start : start + size] for start in range(0, len(units), size))


def of_three(make: Callable[[], Any]) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "SLICE_THINGS", 3)
        patch.setattr(slices, "SLICE_BYTES", 400)
        return b"".join(make())


@given(SNAPSHOTS, SIZES)
def test_the_slices_of_a_snapshot_are_its_json(snapshot: StateSnapshot, size: int) -> None:
    whole = msgspec.json.encode(snapshot)
    chunks = cut(snapshot.units, size)
    shared = Shared(UnitIndex())
    assert of_three(lambda: slices.snapshot(snapshot, chunks)) == whole
    assert of_three(lambda: sliced_snapshot(snapshot, chunks, shared)) == whole
    other = msgspec.structs.replace(snapshot, connected=not snapshot.connected)
    assert of_three(lambda: sliced_snapshot(other, (), shared)) == msgspec.json.encode(other)


@given(UPDATES, SIZES)
def test_the_slices_of_an_update_are_its_json(update: Update, size: int) -> None:
    chunks = cut(update.units, size)
    bare = msgspec.structs.replace(update, graph=None)
    sliced = of_three(lambda: slices.update(bare, chunks, update.graph))
    assert sliced == msgspec.json.encode(update)


@given(GRAPHS)
def test_the_slices_of_a_graph_are_its_json(graph: GraphData) -> None:
    assert of_three(lambda: slices.graph(graph)) == msgspec.json.encode(graph)


def test_a_name_without_an_empty_array_is_refused() -> None:
    with pytest.raises(ValueError, match="no empty array 'units'"):
        list(slices.fill(b'{"unit":[]}', [("units", [])]))


# In a store: nothing long is encoded in one call.

UNITS_OF_A_LARGE_RUN = 20_000


class Counter:
    """Counts what each call of the encoder is given."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.most = 0
        patch.setattr(msgspec.json, "encode", self._counted(msgspec.json.encode))
        patch.setattr(slices, "_encode", self._counted(slices._encode))

    def _counted(self, encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        def call(value: Any) -> bytes:
            self.most = max(self.most, _things(value))
            return encode(value)

        return call


def _things(value: Any) -> int:
    """How many units, nodes, edges and ids there are in what is encoded."""
    match value:
        case list() | tuple():
            return sum(map(_things, value))
        case StateSnapshot() | Update():
            return len(value.units) + (_things(value.graph) if isinstance(value, Update) else 0)
        case GraphData():
            return len(value.nodes) + len(value.edges) + sum(map(len, value.levels))
        case _:
            return 1


def large_graph() -> bytes:
    nodes = [{"id": f"unit-{number}"} for number in range(UNITS_OF_A_LARGE_RUN)]
    edges = [{"from": f"unit-{number}", "to": "unit-0"} for number in range(1, UNITS_OF_A_LARGE_RUN)]
    event = {"type": "orch.started", "payload": {"graph": {"nodes": nodes, "edges": edges}}}
    return msgspec.json.encode(event) + b"\n"


@pytest.mark.parametrize("what", ["snapshot", "graph", "update", "wait"])
def test_a_large_answer_is_encoded_in_slices_and_comes_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with Store(listen=tmp_path / "s") as store, Raw(tmp_path / "s") as raw:
        raw.hello()
        raw.send(large_graph()).acked(1)
        raw.send(b'{"type":"orch.completed"}\n').acked(2)
        counter = Counter(monkeypatch)
        answer = raw.asked(1, what)
        assert counter.most <= 2 * slices.SLICE_THINGS
        monkeypatch.undo()
        name = "snapshot" if what == "wait" else what
        own = {
            "snapshot": lambda: store.snapshot().json(),
            "graph": lambda: store.graph().json(),  # type: ignore[union-attr]
            "update": lambda: next(iter(store.subscribe())).json(),
        }[name]()
        said, expected = answer[name], msgspec.json.decode(own)
        for each in (said, expected):
            each.pop("connected", None)
        assert said == expected


def test_many_runs_are_told_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(listen=tmp_path / "s") as store, Raw(tmp_path / "s") as raw:
        raw.hello()
        store.handle_lines(
            b"".join([b'{"type":"orch.started","run":"%d"}\n' % number for number in range(5000)])
        )
        counter = Counter(monkeypatch)
        runs = raw.asked(1, "runs")["runs"]
        assert counter.most <= 2 * slices.SLICE_THINGS
        assert [run["run"] for run in runs] == [str(number) for number in range(5000)]


def test_what_callers_encode_is_encoded_in_slices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with Store() as store:
        store.handle_lines(large_graph())
        graph, snapshot, update = store.graph(), store.snapshot(), next(iter(store.subscribe()))
    assert graph is not None
    wholes = [msgspec.json.encode(answer) for answer in (graph, snapshot, update)]
    counter = Counter(monkeypatch)
    assert [answer.json() for answer in (graph, snapshot, update)] == wholes
    assert counter.most <= 2 * slices.SLICE_THINGS


def test_lines_are_acked_while_a_large_answer_is_on_its_way(tmp_path: Path) -> None:
    with Store(listen=tmp_path / "s"), Raw(tmp_path / "s") as raw, Raw(tmp_path / "s") as reader:
        raw.hello()
        raw.send(large_graph()).acked(1)
        reader.hello()
        done = threading.Event()

        def read() -> None:
            for id in range(5):
                assert len(reader.asked(id, "snapshot")["snapshot"]["units"]) == UNITS_OF_A_LARGE_RUN
            done.set()

        thread = threading.Thread(target=read)
        thread.start()
        count = 1
        while not done.is_set():
            count += 1
            raw.send(b'{"type":"unit.started","unit":"unit-7"}\n').acked(count)
        thread.join()


def test_a_long_level_and_many_short_ones_are_told_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = build([GraphNode(f"u{number}", 0, 1) for number in range(3000)], ())
    deep_nodes = [GraphNode(f"u{number}", 0, 1) for number in range(3000)]
    deep = build(deep_nodes, [GraphEdge(f"u{number}", f"u{number - 1}") for number in range(1, 3000)])
    for graph in (wide, deep):
        counter = Counter(monkeypatch)
        assert b"".join(slices.graph(graph)) == msgspec.json.Encoder().encode(graph)
        assert counter.most <= slices.SLICE_THINGS


def test_few_units_with_long_errors_are_a_large_answer_too() -> None:
    def state_of(size: int) -> State:
        ids = [f"u{number}" for number in range(100)]
        return fold(orch_started(units(*ids)), *[unit_failed(id, "x" * size) for id in ids])

    for size, is_large in ((100, False), (3000, True)):
        state = state_of(size)
        snapshot = state.draft_snapshot("", False)
        update = state.update("", None, False)
        answers = (snapshot, (snapshot, update.bare().cursor), snapshot.finish(), update.bare())
        assert [takes_long(answer) for answer in answers] == [is_large] * 4
        assert takes_long(update)  # whose graph is to be put together
