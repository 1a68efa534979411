"""Questions that wait: asked again when what they wait for may have happened, and at no other time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from actorstore import Event, Store, StoreActor
from actorstore.actor import Standing
from actorstore.reply import Reply
from tests.builders import (
    orch_completed,
    orch_reset,
    orch_started,
    unit_added,
    unit_queued,
    unit_started,
    units,
)
from tests.threads import SECONDS, in_actor, open_questions

asked: Counter[str] = Counter()


@pytest.fixture
def store() -> Iterator[Store]:
    """Two runs, of which `b` has started last."""
    asked.clear()
    with Store() as store:
        for run in ("a", "b"):
            store.handle_event(orch_started(units("x"), run=run))
        store.flush()
        yield store


def put(store: Store, name: str, ask: Callable[[StoreActor], object]) -> Reply:
    """Ask a question that is counted each time it is asked."""
    reply = Reply()

    def counted(actor: StoreActor) -> object:
        asked[name] += 1
        return ask(actor)

    store._mailbox.send(counted, reply)
    return reply


def wait(store: Store, run: str | None) -> Reply:
    return put(store, f"wait {run}", lambda actor: actor.ended(run))


def follow(store: Store, run: str | None) -> Reply:
    cursor = in_actor(store, lambda actor: actor.draft(run, None)).bare().cursor
    return put(store, f"next {run}", lambda actor: actor.next_draft(Standing(run, cursor, actor._connected)))


def asked_over(store: Store, *events: Event) -> Counter[str]:
    """Which questions the actor asks over some events."""
    store.flush()
    asked.clear()
    for event in events:
        store.handle_event(event)
    store.flush()
    return asked


def all_questions(store: Store) -> dict[str, Reply]:
    runs = ("a", "b", None)
    return {f"wait {run}": wait(store, run) for run in runs} | {
        f"next {run}": follow(store, run) for run in runs
    }


def test_events_of_a_run_ask_none_that_wait_for_another(store: Store) -> None:
    for _ in range(100):
        wait(store, "b")
    for _ in range(10):
        assert not asked_over(store, *(unit_started("x", run="a") for _ in range(100)))
    assert open_questions(store) == 100


@pytest.mark.parametrize(
    ("event", "due"),
    [
        (unit_queued("x", run="a"), {"next a"}),
        (unit_queued("x", run="b"), {"next b", "next None"}),
        (unit_queued("x", run="no run"), set()),
        (Event("anything", run="a"), set()),
        (unit_added("y", run="a"), {"wait a", "next a", "wait None", "next None"}),
        (orch_started(units("x"), run="a"), {"wait a", "next a", "wait None", "next None"}),
        (orch_completed(run="b"), {"wait b", "next b", "wait None", "next None"}),
        (orch_reset(run="c"), {"wait None", "next None"}),
    ],
    ids=lambda value: value.type + " " + value.run if isinstance(value, Event) else "",
)
def test_an_event_asks_those_that_it_may_answer(store: Store, event: Event, due: set[str]) -> None:
    all_questions(store)
    assert set(asked_over(store, event)) == due


def test_all_are_answered_when_it_has_happened(store: Store) -> None:
    replies = all_questions(store)
    store.handle_event(orch_completed(run="a"))
    store.flush()
    assert {name for name, reply in replies.items() if reply.wait(0)} == {"wait a", "next a"}
    store.handle_event(orch_completed(run="b"))
    store.flush()
    assert all(reply.wait(SECONDS) for name, reply in replies.items() if not name.endswith(" a"))
    assert open_questions(store) == 0


def test_one_that_follows_the_last_run_hears_of_the_one_that_starts(store: Store) -> None:
    reply = follow(store, None)
    store.handle_event(orch_started(units("y"), run="c"))
    assert reply.wait(SECONDS)


def test_who_is_connected_matters_to_those_that_follow_alone(store: Store) -> None:
    all_questions(store)
    asked.clear()
    store.set_connected(True)
    assert set(asked) == {"next a", "next b", "next None"}


def test_a_question_that_is_forgotten_is_not_asked_again(store: Store) -> None:
    reply = wait(store, "a")
    assert open_questions(store) == 1
    store._mailbox.forget(reply)
    assert not asked_over(store, orch_completed(run="a"))
    assert open_questions(store) == 0
