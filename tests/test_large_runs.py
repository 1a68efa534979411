"""Large runs: no turn of the actor is long, and what is said meanwhile is right all the same."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from actorstore import Store, StoreActor, StoreClosedError, actor, state, unitlist
from actorstore.actor import Question
from actorstore.answers import Cursor, StateSnapshot, UnitState, Update
from actorstore.asking import PLACES
from actorstore.checkpoint import encode, freeze, restore
from actorstore.replica import snapshot_of
from actorstore.reply import Reply
from actorstore.run import Unit
from actorstore.state import BehindError, State
from actorstore.wire import decode_line
from tests.builders import (
    apply,
    check_summary,
    fold,
    orch_started,
    unit_added,
    unit_completed,
    unit_started,
    units,
)
from tests.raw import Raw
from tests.test_checkpoint import answers, lines
from tests.threads import SECONDS, held, in_actor, spawn, wait_until

SIZE = 40_000


def large() -> list[str]:
    return [f"u{number}" for number in range(SIZE)]


@pytest.fixture
def faces_a_turn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many faces of units each turn of an actor has made."""
    made = [0]
    turns: list[int] = []
    face, receive = Unit.face, StoreActor.on_receive

    def counted(unit: Unit) -> UnitState:
        made[0] += 1
        return face(unit)

    def turn(self: StoreActor, message: Any) -> None:
        before = made[0]
        receive(self, message)
        turns.append(made[0] - before)

    monkeypatch.setattr(Unit, "face", counted)
    monkeypatch.setattr(StoreActor, "on_receive", turn)
    return turns


QUESTIONS = {
    "snapshot": lambda store: store.snapshot().units,
    "runs": lambda store: range(store.runs()[0].summary.total),
    "subscribe": lambda store: next(iter(store.subscribe())).units,
    "wait": lambda store: store.wait().units,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_turn_makes_the_faces_of_a_whole_large_run(faces_a_turn: list[int], question: str) -> None:
    with Store() as store:
        store.handle_event(orch_started(units(*large())))
        store.handle_lines(b'{"type":"orch.completed"}\n')
        assert len(QUESTIONS[question](store)) == SIZE
        store.flush()
    assert sum(faces_a_turn) >= SIZE
    assert max(faces_a_turn) <= SIZE // 2


def test_no_turn_makes_them_for_a_checkpoint(
    faces_a_turn: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorstore.writer.CHECKPOINT_BYTES", 1)
    with Store(journal=tmp_path / "j") as store:
        assert store._writer is not None
        store._writer._checkpoint_bytes = 1
        store.handle_event(orch_started(units(*large())))
        store.flush()
        wait_until(lambda: store._writer._kept_bytes > 1 and not store._writer._keeps)  # type: ignore[union-attr]
    assert max(faces_a_turn) <= SIZE // 2
    with Store(journal=tmp_path / "j") as store:
        assert len(store.snapshot().units) == SIZE


def test_no_turn_makes_those_of_many_units_that_changed(faces_a_turn: list[int]) -> None:
    with Store() as store:
        store.handle_event(orch_started(units(*large())))
        store.snapshot()
        for start in range(0, SIZE, 1000):
            numbers = range(start, start + 1000)
            queued = [b'{"type":"unit.queued","unit":"u%d"}\n' % number for number in numbers]
            store.handle_lines(b"".join(queued))
        assert store.snapshot().summary.ready == SIZE
    assert max(faces_a_turn) <= SIZE // 2


def test_a_change_in_a_large_run_costs_the_actor_a_part_of_a_copy() -> None:
    run = fold(orch_started(units(*large())))
    run.draft_snapshot()
    apply(run, unit_started("u7"))
    run.draft_snapshot()
    assert run.run(None)._faces.copied <= unitlist.CHUNK_UNITS < SIZE


@pytest.fixture
def small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every run be a large one."""
    monkeypatch.setattr(unitlist, "CHUNK_UNITS", 3)
    monkeypatch.setattr(state, "AT_ONCE", 2)
    monkeypatch.setattr(actor, "AT_ONCE", 2)
    monkeypatch.setattr(actor, "FACES_A_TURN", 2)


@pytest.mark.usefixtures("small_turns")
@pytest.mark.parametrize("seed", range(30))
def test_faces_made_bit_by_bit_are_those_made_at_once(seed: int) -> None:
    drawn = random.Random(seed)
    patient, plain = State("store"), State("store")
    said: dict[str, Update] = {}
    snapshots: dict[str, StateSnapshot] = {}
    for line in lines(drawn, 150):
        for each in (patient, plain):
            each.apply([decode_line(line)])
        while drawn.random() < 0.6:
            patient.catch_up(drawn.randrange(1, 4))
        if drawn.random() < 0.2:
            for run in patient.runs:
                patient.is_patient = True
                before = said.get(run)
                try:
                    update = patient.update(run, Cursor(before.cursor) if before else None).finish()
                except BehindError:
                    assert patient.behind > 2
                    continue
                finally:
                    patient.is_patient = False
                snapshot = snapshot_of(update, snapshots.get(run)) if before else snapshot_of(update)
                snapshots[run], said[run] = snapshot, update
                assert snapshot.json() == plain.snapshot(run).json()
                check_summary(snapshot.summary, snapshot.units)
    assert answers(patient) == answers(plain)
    assert list(encode(freeze(patient))) == list(encode(freeze(plain)))


@pytest.mark.usefixtures("small_turns")
@pytest.mark.parametrize("journal", [False, True])
def test_questions_that_wait_for_faces_are_answered_in_the_end(tmp_path: Path, journal: bool) -> None:
    path = tmp_path / "j" if journal else None
    with Store(listen=tmp_path / "s", journal=path) as store, Raw(tmp_path / "s") as raw:
        raw.hello()
        store.handle_event(orch_started(units(*"abcdefghij")))
        for unit in "abcdefghij":
            store.handle_event(unit_started(unit))
            assert store.snapshot().unit(unit).attempts == 1
            assert raw.asked(ord(unit), "snapshot")["snapshot"]["summary"]["inProgress"] >= 1
            assert store.runs()[0].summary.total == 10
        assert store.snapshot().summary.in_progress == 10


@pytest.mark.usefixtures("small_turns")
@pytest.mark.parametrize("journal", [False, True])
def test_a_store_that_closes_answers_who_waits_for_faces(tmp_path: Path, journal: bool) -> None:
    store = Store(journal=tmp_path / "j" if journal else None)
    store.handle_event(orch_started(units(*"abcdefghij")))
    store.flush()
    with held(store):
        asked = spawn(store.snapshot)
        wait_until(lambda: not asked.done())
        closing = spawn(store.close)
    closing.result(SECONDS)
    with suppress(StoreClosedError):  # where it came too late
        assert len(asked.result(SECONDS).units) == 10


def test_a_subscriber_that_goes_on_after_a_restart_hears_of_the_next_change() -> None:
    """Without faces nobody noted which units changed, so it heard nothing until somebody else asked."""
    events = (orch_started(units("a", "b")), unit_started("a"))
    cursor = fold(*events).update().finish().cursor
    again = fold(*events)
    assert not again.has_news(None, cursor)
    apply(again, unit_completed("a"))
    assert again.has_news(None, cursor)
    assert [unit.id for unit in again.update(None, cursor).finish().units] == ["a"]


def test_a_unit_that_is_added_before_all_have_faces_gets_one() -> None:
    run = fold(orch_started(units("a", "b", "c")))
    run.catch_up(1)
    apply(run, unit_added("d"), unit_started("a"), unit_started("d"))
    run.catch_up(1)
    apply(run, unit_added("e"))
    plain = fold(orch_started(units("a", "b", "c")), unit_added("d"), unit_started("a"), unit_started("d"))
    apply(plain, unit_added("e"))
    assert run.snapshot().json() == plain.snapshot().json()
    assert list(encode(freeze(restore(encode(freeze(run)))))) == list(encode(freeze(plain)))


@pytest.mark.usefixtures("small_turns")
def test_questions_forgotten_while_faces_are_made_leave_their_places_to_others(tmp_path: Path) -> None:
    with Store(listen=tmp_path / "s") as store, Raw(tmp_path / "s") as raw:
        raw.hello()
        store.handle_event(orch_started(units(*[f"u{number}" for number in range(20_000)])))
        its_actor = in_actor(store, lambda actor: actor)
        for number in range(PLACES):
            raw.ask(number, "snapshot")
        wait_until(lambda: len(its_actor._behind) == PLACES)
        for number in range(PLACES):
            raw.ask(number, "forget")
        assert "stats" in raw.asked(1000, "stats")


@pytest.mark.usefixtures("small_turns")
def test_a_question_that_asks_others_again_goes_on_in_short_turns(tmp_path: Path) -> None:
    with Store() as store:

        def ask_another(actor: StoreActor) -> bool:
            actor._ask(Question(lambda _: None, Reply()))
            return actor._state.is_patient

        assert in_actor(store, ask_another)
