"""The questions of connections: what is done for one that asks much, reads nothing, or is gone.

What is counted here is how often something is done, and in which order; never how long it takes.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actorstore import Store
from actorstore.asking import PLACES
from actorstore.errors import StoreTimeoutError
from actorstore.past import Past
from actorstore.questions import Asked
from actorstore.state import State
from tests.builders import chain, line, orch_completed, orch_started, unit_queued, units
from tests.raw import Raw, folder, nothing_left
from tests.threads import SECONDS, open_questions, spawn, wait_until

UNITS = 4000


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def path() -> Iterator[Path]:
    with folder() as room:
        yield room / "s"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(listen=path) as store:
        yield store


@pytest.fixture
def raw(path: Path, store: Store) -> Iterator[Callable[[], Raw]]:
    """Makes connections that have said hello, and closes them at the end."""
    made: list[Raw] = []

    def connect() -> Raw:
        made.append(Raw(path))
        made[-1].hello()
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


Connect = Callable[[], Raw]


def ask_often(client: Raw, times: int, what: str, **more: object) -> Raw:
    """Ask the same question many times, at once."""
    asked = [json.dumps({"ask": {"id": id, "what": what, **more}}) + "\n" for id in range(times)]
    return client.send("".join(asked).encode())


def answers(client: Raw, times: int, part: str) -> list[Any]:
    """Read so many answers, in whatever order they come, and return a part of each by their numbers."""
    found = [client.read()["answer"] for _ in range(times)]
    return [answer[part] for answer in sorted(found, key=lambda answer: answer["id"])]


def let_turns_pass(other: Raw) -> None:
    """Have the server take so many turns that all connections have had their questions read."""
    for id in range(20):
        assert "error" in other.asked(id, "no question")


def connections(store: Store) -> int | None:
    return store.stats().connections


class Counted:
    """Counts the calls of a method, and holds them up where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._open = threading.Event()
        self._open.set()
        real = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(args)
            self._open.wait(SECONDS)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, call)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no call end before the block does."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


# Ones that do not read.


@pytest.mark.parametrize("what", ["update", "snapshot", "graph"])
def test_answers_are_made_when_those_before_are_read(
    store: Store, raw: Connect, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.handle_event(orch_started(chain(UNITS)))
    made = Counted(monkeypatch, Asked, "encode_slowly")
    reader, other = raw(), raw()
    with made.held():
        ask_often(reader, 400, what)
        let_turns_pass(other)
    assert "graph" in other.asked(1, "update")["update"]
    assert "stats" in other.asked(2, "stats")
    assert len(made.calls) < 10
    assert len(answers(reader, 400, what)) == 400
    assert len(made.calls) == 401


def test_the_news_of_one_that_does_not_read_are_not_put_together(
    store: Store, raw: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a thousand drafts would hold all units that have changed, as they were then."""
    ids = [f"unit-{number}" for number in range(UNITS)]
    store.handle_event(orch_started(units(*ids)))
    reader, other = raw(), raw()
    update = reader.asked(1, "update")["update"]
    standing = {"since": update["cursor"], "connected": update["connected"]}
    ask_often(reader, 300, "next", **standing)
    wait_until(lambda: open_questions(store) == 300)
    drawn = Counted(monkeypatch, State, "update")
    store.handle_lines(b"".join(line(unit_queued(id)) for id in ids))
    store.flush()
    assert "stats" in other.asked(1, "stats")
    assert 0 < len(drawn.calls) <= 2 * PLACES
    assert all(len(update["units"]) == UNITS for update in answers(reader, 300, "update"))
    assert open_questions(store) == 0


def test_questions_have_their_turn_though_others_wait(store: Store, raw: Connect) -> None:
    store.handle_event(orch_started(units("a")))
    client = raw()
    for id in range(10 * PLACES):
        client.ask(id, "wait" if id % 2 else "runs")
    assert len(answers(client, 5 * PLACES, "runs")) == 5 * PLACES
    for id in range(1, 10 * PLACES, 4):
        client.ask(id, "forget")
    store.handle_event(orch_completed())
    ended = answers(client, 10 * PLACES // 4, "snapshot")  # all of them have their turn
    assert {snapshot["status"] for snapshot in ended} == {"completed"}
    assert client.asked(1, "stats")["stats"]["accepted"] == 2


# Turns.


def test_no_line_waits_behind_the_answers_of_others(
    store: Store, raw: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.handle_event(orch_started(chain(UNITS)))
    made = Counted(monkeypatch, Asked, "encode_slowly")
    reader, producer = raw(), raw()
    with made.held():
        ask_often(reader, 300, "update")
        wait_until(lambda: made.calls)
        producer.send(b'{"type":"a","payload":"' + b"y" * 100_000 + b'"}\n').acked(1)
    assert len(made.calls) < 10


def test_large_answers_of_one_leave_their_turn_to_those_of_others(
    store: Store, raw: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.handle_event(orch_started(chain(UNITS)))
    made = Counted(monkeypatch, Asked, "encode_slowly")
    greedy, other, third = raw(), raw(), raw()
    with made.held():
        ask_often(greedy, 50, "update")
        let_turns_pass(other)
        other.ask(1000, "update")
        let_turns_pass(third)
    reading = spawn(answers, greedy, 50, "update")
    assert other.answer(1000)["update"]["units"]
    assert len(reading.result(SECONDS)) == 50
    assert [call[0].question.id for call in made.calls].index(1000) < 5


# Ones that are gone.


@pytest.fixture
def kept(path: Path, tmp_path: Path) -> Iterator[Store]:
    """A store with a past of some versions."""
    with Store(listen=path, journal=tmp_path / "j.db") as store:
        for _ in range(10):  # transactions
            store.handle_lines(b'{"type":"a"}\n' * 10)
            store.flush()
        yield store


def asking_of_the_past(path: Path, times: int, at: int) -> Raw:
    client = Raw(path)
    client.hello()
    return ask_often(client, times, "snapshot", at=at)


def test_the_past_is_not_folded_for_those_that_are_gone(
    kept: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Counted(monkeypatch, Past, "_begin")
    with begun.held():
        gone = [asking_of_the_past(path, 100, 10) for _ in range(5)]
        wait_until(lambda: begun.calls)
        for client in gone:
            client.close()
        wait_until(lambda: connections(kept) == 0)
    with asking_of_the_past(path, 1, 20) as other:
        assert other.answer(0)["snapshot"]["version"] == 20
    assert [call[1] for call in begun.calls] == [10, 20]


def test_questions_about_the_past_take_turns_between_connections(
    kept: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Counted(monkeypatch, Past, "_begin")
    with begun.held():
        greedy = asking_of_the_past(path, 50, 10)
        wait_until(lambda: begun.calls)
        other = asking_of_the_past(path, 1, 20)
        assert "stats" in other.asked(99, "stats")  # so the question before has been read
    with greedy, other:
        assert other.answer(0)["snapshot"]["version"] == 20
        assert {snapshot["version"] for snapshot in answers(greedy, 50, "snapshot")} == {10}
    assert [call[1] for call in begun.calls].index(20) <= 2


def test_a_fold_that_nobody_waits_for_any_more_ends(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    past = kept._past
    assert past is not None
    assert past.snapshot(None, 50).version == 50
    begun = Counted(monkeypatch, Past, "_begin")
    with pytest.raises(StoreTimeoutError):
        past.snapshot(None, 50, is_wanted=lambda: False)
    assert not begun.calls
    looks = iter([True, False])
    monkeypatch.setattr("actorstore.past.WORK_SECONDS", 0.0)
    with pytest.raises(StoreTimeoutError):
        past.snapshot(None, 50, is_wanted=lambda: next(looks))


def test_a_question_of_one_that_is_gone_is_not_put_to_the_state(
    store: Store, raw: Connect, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.handle_event(orch_started(units("a")))
    client = raw()
    ask_often(client, 50, "wait")
    wait_until(lambda: open_questions(store) == 50)
    client.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: open_questions(store) == 0)
    drawn = Counted(monkeypatch, State, "snapshot")
    store.handle_event(orch_completed())
    store.flush()
    assert not drawn.calls


def test_questions_that_were_read_of_one_that_is_gone_are_not_asked(
    store: Store, raw: Connect, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.handle_event(orch_started(chain(UNITS)))
    drawn = Counted(monkeypatch, State, "update")
    for _ in range(5):
        with Raw(path) as gone:
            gone.hello()
            ask_often(gone, 1000, "update")
    other = raw()
    wait_until(lambda: connections(store) == 1)
    let_turns_pass(other)
    assert len(drawn.calls) < 5 * 100
