"""Checkpoints: what comes back cannot be told from what was kept, whatever happens to both from then on."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from actorstore import checkpoint, payload
from actorstore.answers import Cursor
from actorstore.checkpoint import FORMAT, PART_BYTES, CheckpointError, encode, freeze, restore
from actorstore.replica import snapshot_of
from actorstore.run import Run, Unit
from actorstore.state import State
from actorstore.wire import decode_line

TYPES = (
    "unit.queued",
    "unit.started",
    "task.started",
    "unit.completed",
    "unit.failed",
    "unit.blocked",
    "unit.added",
    "orch.completed",
    "orch.failed",
    "orch.reset",
    "orch.started",
    "anything",
)
TIMES = ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678901+05:30", "0001-01-01T00:00:00+14:00", None)


def lines(drawn: random.Random, count: int) -> Iterator[bytes]:
    """Events of a few runs and units, good and odd ones; the graphs have circles and edges to nowhere."""
    for _ in range(count):
        unit = f"u{drawn.randrange(8)}"
        event: dict[str, object] = {
            "type": drawn.choice(TYPES[:7] * 4 + TYPES),
            "run": drawn.choice(("", "", "r", "\u20ac")),
            "unit": unit,
            "time": drawn.choice(TIMES),
            "error": drawn.choice(("", "boom", "\u00e9\n")),
            "task": drawn.choice((None, 1, 7)),
        }
        match event["type"]:
            case "unit.started":
                event["payload"] = drawn.choice((None, {"total_tasks": 5}, {"completed_tasks": 2}))
            case "unit.added":
                event["payload"] = {"tasks": 3, "depends_on": [f"u{drawn.randrange(9)}"]}
            case "orch.started":
                nodes = [{"id": f"u{n}", "tasks": n} for n in drawn.sample(range(8), drawn.randrange(7))]
                edges = [{"from": f"u{drawn.randrange(9)}", "to": f"u{drawn.randrange(9)}"} for _ in range(5)]
                event["payload"] = {"parallelism": 3, "graph": {"nodes": nodes, "edges": edges}}
        yield msgspec.json.encode(event)


def apply(state: State, drawn: random.Random, count: int) -> State:
    state.apply([decode_line(line) for line in lines(drawn, count)])
    return state


def copy(state: State) -> State:
    return restore(encode(freeze(state)))


def answers(state: State) -> list[bytes]:
    """All that a state says, but for what changed since when."""
    said = [state.snapshot().json(), msgspec.json.encode(state.infos())]
    for run in state.runs:
        graph = state.graph(run)
        said += [state.snapshot(run).json(), graph.data().json() if graph else b""]
    return [*said, b"%d %d" % (state.version, state.unknown_units)]


@pytest.mark.parametrize("seed", range(40))
def test_what_comes_back_says_the_same_now_and_after_whatever_comes(seed: int) -> None:
    drawn = random.Random(seed)
    state = apply(State("store"), drawn, drawn.randrange(120))
    other = copy(state)
    assert answers(other) == answers(state)
    for _ in range(4):
        more = list(lines(drawn, 15))
        for each in (state, other):
            each.apply([decode_line(line) for line in more])
        if drawn.random() < 0.5:
            answers(drawn.choice((state, other)))
        assert answers(other) == answers(state)


@pytest.mark.parametrize("seed", range(20))
def test_a_cursor_from_before_leads_on_without_a_hole(seed: int) -> None:
    drawn = random.Random(seed)
    state = apply(State("store"), drawn, 60)
    seen = {run: (state.snapshot(run), state.update(run).finish().cursor) for run in state.runs}
    other = copy(apply(state, drawn, drawn.randrange(3)))
    apply(other, drawn, drawn.randrange(30))
    for run, (snapshot, cursor) in seen.items():
        update = other.update(run, cursor).finish()
        assert snapshot_of(update, snapshot).json() == other.snapshot(run).json()
        again = other.update(run, Cursor(update.cursor)).finish()
        assert (again.since, again.units) == (other.version, ())


@pytest.mark.parametrize("seed", range(10))
def test_the_bytes_are_what_the_events_made_and_not_who_asked(seed: int) -> None:
    quiet = apply(State("store"), random.Random(seed), 100)
    drawn = random.Random(seed)
    asked = State("store")
    for line in lines(drawn, 100):
        asked.apply([decode_line(line)])
        if asked.version % 7 == 0:
            asked.snapshot()
            asked.infos()
    assert list(encode(freeze(quiet))) == list(encode(freeze(asked)))
    assert list(encode(freeze(copy(quiet)))) == list(encode(freeze(quiet)))


@pytest.fixture
def _graphs_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every graph be a large one, and every slice and part a small one."""
    monkeypatch.setattr(payload, "LARGE_GRAPH", 0)
    monkeypatch.setattr(payload, "SLICE_THINGS", 2)
    monkeypatch.setattr(checkpoint, "SLICE_THINGS", 2)
    monkeypatch.setattr(checkpoint, "PART_BYTES", 200)


@pytest.mark.usefixtures("_graphs_in_slices")
@pytest.mark.parametrize("seed", range(40))
def test_graphs_kept_in_slices_say_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sliced = apply(State("store"), random.Random(seed), 100)
    kept = list(encode(freeze(sliced)))
    assert list(encode(freeze(restore(kept)))) == kept
    assert answers(restore(kept)) == answers(sliced)
    monkeypatch.setattr(payload, "LARGE_GRAPH", 1 << 16)
    whole = apply(State("store"), random.Random(seed), 100)
    assert answers(sliced) == answers(whole)
    assert list(encode(freeze(whole))) == kept


def in_format_1(state: State) -> list[bytes]:
    """The parts as earlier versions have written them."""
    first, *others = encode(freeze(state), assembled=True)
    return [first.replace(b'"format":2', b'"format":1', 1), *others]


@pytest.mark.parametrize("seed", range(40))
def test_parts_of_the_format_before_are_read_and_go_on(seed: int) -> None:
    state = apply(State("store"), random.Random(seed), 100)
    other = restore(in_format_1(state))
    assert answers(other) == answers(state)
    for count in (3, 20):
        more = list(lines(random.Random(seed + count), count))
        for each in (state, other):
            each.apply([decode_line(line) for line in more])
        other = copy(other)
        assert answers(other) == answers(state)
        assert in_format_1(other) == in_format_1(state)


def test_no_graph_is_put_together_for_a_checkpoint() -> None:
    event = {"type": "orch.started", "payload": {"graph": {"nodes": [{"id": "a"}, {"id": "b"}]}}}
    state = State("store")
    state.apply([decode_line(msgspec.json.encode(event))])
    parts = list(encode(freeze(state)))
    for each in (state, restore(parts)):
        graph = each.graph()
        assert graph is not None
        assert not graph.whole


def test_units_with_long_errors_are_put_into_parts_of_their_own() -> None:
    nodes = [{"id": f"u{number}"} for number in range(40)]
    error = "x" * (PART_BYTES // 4)
    started = {"type": "orch.started", "payload": {"graph": {"nodes": nodes}}}
    failed = [{"type": "unit.failed", "unit": f"u{number}", "error": error} for number in range(40)]
    state = State("store")
    state.apply([decode_line(msgspec.json.encode(event)) for event in (started, *failed)])
    parts = list(encode(freeze(state)))
    assert max(map(len, parts)) <= 2 * PART_BYTES + 100
    assert answers(restore(parts)) == answers(state)


def test_a_frozen_state_does_not_change_with_the_state() -> None:
    drawn = random.Random(3)
    state = apply(State("store"), drawn, 80)
    frozen = freeze(state)
    before = list(encode(frozen))
    apply(state, drawn, 50)
    assert list(encode(frozen)) == before


def test_parts_are_small_however_large_a_run_is() -> None:
    nodes = [{"id": f"unit-{number}", "level": 0} for number in range(15_000)]
    graph = {"nodes": nodes, "edges": [{"from": "unit-1", "to": "unit-0"}] * 10_000}
    event = {"type": "orch.started", "payload": {"graph": graph}}
    state = State("store")
    state.apply([decode_line(msgspec.json.encode(event))])
    parts = list(encode(freeze(state)))
    assert len(parts) >= 8
    assert max(map(len, parts)) <= PART_BYTES + 2
    assert answers(restore(parts)) == answers(state)


def test_parts_that_are_missing_or_doubled_are_found() -> None:
    nodes = [{"id": f"unit-{number}"} for number in range(15_000)]
    event = {"type": "orch.started", "payload": {"graph": {"nodes": nodes}}}
    state = State("store")
    state.apply([decode_line(msgspec.json.encode(event))])
    parts = list(encode(freeze(state)))
    with pytest.raises(CheckpointError):
        restore(parts[:1] + parts[2:])
    with pytest.raises(CheckpointError):
        restore(parts[:2] + parts[1:])


def test_an_empty_state_comes_back() -> None:
    assert answers(copy(State("store"))) == answers(State("store"))
    assert copy(State("store")).store == "store"


def test_nothing_that_rules_write_is_left_out() -> None:
    """Whoever adds a field to a unit or a run has to think of checkpoints."""
    assert set(Unit.__slots__) == {
        "attempts",
        "current_task",
        "error",
        "finished_at",
        "id",
        "place",
        "seen",
        "started_at",
        "status",
        "total_tasks",
    }
    kept = {"id", "born", "changed", "status", "started_at", "finished_at", "error", "parallelism", "units"}
    kept |= {"_graph", "_graph_changed", "_added"}
    made_again = {"unseen", "_faces", "_faceless", "_has_faces", "_counts", "_first_seen", "_last_seen"}
    made_again |= {"_index", "_snapshot"}
    assert set(vars(Run("", 0))) == kept | made_again


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "first part is missing"),
        ([b"[]"], "first part is missing"),
        ([b"\xff"], "malformed"),
        ([b"once upon a time"], "malformed"),
        ([b'[{"x":' + b"[" * 200_000], "nested"),
        ([b'[{"head":{"format":%d}}]' % (FORMAT + 1)], f"format {FORMAT + 1}"),
        (
            [
                b'[{"head":{"format":%d,"store":"s","version":1,"unknown_units":0,"started":true}}]'
                % (FORMAT + 1)
            ],
            f"format {FORMAT + 1}",
        ),
        (
            [
                b'[{"head":{"format":1,"store":"s","version":1,"unknown_units":0,"started":true,"latest":"x"}}]'
            ],
            "no run 'x'",
        ),
    ],
)
def test_parts_that_are_none_or_another_version_are_refused(parts: list[bytes], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        restore(parts)
