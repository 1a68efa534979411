"""The way to a store: what is sent again after a break, what ends it for good, and what is left when it ends.

The other end is a store by hand (`tests.raw.ByHand`), which says whatever a
test needs it to say; what goes well with a real one is in test_remote.py.
"""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorstore import (
    Event,
    JournalRegressionError,
    ProducerConflictError,
    ProducerSupersededError,
    RefusedError,
    RemoteStore,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreTimeoutError,
    StoreUnreachableError,
    connect,
)
from tests.builders import line, unit_queued, unit_started
from tests.raw import (
    ByHand,
    Raw,
    abandon,
    counts,
    folder,
    is_away,
    lock,
    nothing_left,
    unacked,
    waiting,
    why_refused,
)
from tests.threads import SECONDS, results, spawn, wait_until

EVENT = unit_queued("a")

MANY = 12_000
"""More events than a client with a small buffer takes at once."""


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def path() -> Iterator[Path]:
    with folder() as room:
        yield room / "s"


@pytest.fixture
def host(path: Path) -> Iterator[ByHand]:
    with ByHand(path) as host:
        yield host


@pytest.fixture
def remote(path: Path) -> Iterator[RemoteStore]:
    """A client that has not connected yet; what it still holds at the end is nobody's."""
    store = RemoteStore(path)
    yield store
    abandon(store)


def unit_of(message: dict[str, Any]) -> Any:
    return message["unit"]


def feed(store: RemoteStore, *ids: str) -> None:
    for id in ids:
        store.handle_event(unit_queued(id))


# Hello, lines, acks.


def test_nothing_is_sent_before_the_welcome(host: ByHand, remote: RemoteStore) -> None:
    feed(remote, "a")
    connection = host.accept()
    hello = connection.read()["hello"]
    assert hello["protocol"] == 1
    assert hello["producer"]
    assert connection.hears_nothing()
    connection.say(welcome={"store": "s", "lines": 0, "version": 0})
    assert unit_of(connection.read()) == "a"


def test_making_one_connects_to_nobody(path: Path) -> None:
    store = RemoteStore(path)
    assert not [thread for thread in threading.enumerate() if thread.name == "StoreLink"]
    store.close()


def test_a_flush_returns_with_the_ack_and_not_before(host: ByHand, remote: RemoteStore) -> None:
    feed(remote, "a", "b")
    connection, _ = host.welcome()
    flushed = spawn(remote.flush)
    assert [unit_of(connection.read()) for _ in range(2)] == ["a", "b"]
    connection.say(ack={"lines": 1})
    feed(remote, "c")
    assert unit_of(connection.read()) == "c"
    assert not flushed.done()
    connection.say(reject={"line": 2, "reason": "no"}).say(ack={"lines": 2})
    result = flushed.result(SECONDS)
    assert (result.accepted, result.rejected) == (1, 1)


def test_messages_that_nobody_knows_are_passed_over(host: ByHand, remote: RemoteStore) -> None:
    feed(remote, "a")
    connection, _ = host.welcome(colour="red")
    connection.read()
    connection.say(news={"of": "a later version"}).say(ack={"lines": 1, "at": "noon"})
    assert remote.flush(SECONDS).accepted == 1


def test_a_goodbye_is_said_once_all_is_acked(host: ByHand, remote: RemoteStore) -> None:
    feed(remote, "a")
    connection, _ = host.welcome()
    connection.read()
    closing = spawn(remote.close)
    connection.say(ack={"lines": 1})
    closing.result(SECONDS)
    assert connection.rest() == [{"bye": {}}]


# After a break.


def test_what_is_not_acked_is_sent_again_from_where_the_store_stands(
    host: ByHand, remote: RemoteStore
) -> None:
    feed(remote, "a", "b", "c", "d")
    connection, producer = host.welcome()
    for _ in range(4):
        connection.read()
    connection.say(ack={"lines": 1})
    connection.close()
    connection, again = host.welcome(lines=2)
    assert again == producer
    assert [unit_of(connection.read()) for _ in range(2)] == ["c", "d"]
    connection.say(ack={"lines": 4})
    assert remote.flush(SECONDS).accepted == 4


def test_the_acks_that_were_lost_are_found_in_the_welcome(host: ByHand, remote: RemoteStore) -> None:
    feed(remote, "a", "b")
    flushed = spawn(remote.flush)
    connection, _ = host.welcome()
    for _ in range(2):
        connection.read()
    connection.close()
    connection, _ = host.welcome(lines=2, rejected=1)
    result = flushed.result(SECONDS)
    assert (result.accepted, result.rejected) == (1, 1)
    assert connection.hears_nothing()


def test_unknown_units_are_heard_of_in_acks_and_welcomes_and_where_a_store_is_silent_there_are_none(
    host: ByHand, remote: RemoteStore
) -> None:
    feed(remote, "a", "b", "c")
    connection, _ = host.welcome(unknown=7, lines=7)
    for _ in range(3):
        connection.read()
    connection.say(ack={"lines": 9, "unknown": 8})
    connection.close()
    connection, _ = host.welcome(unknown=9, lines=10)
    result = remote.flush(SECONDS)
    assert (result.accepted, result.unknown_units) == (3, 2)
    connection.close()
    connection, _ = host.welcome(store="an older one")
    feed(remote, "d")
    connection.read()
    connection.say(ack={"lines": 1})
    result = remote.flush(SECONDS)
    assert (result.accepted, result.unknown_units) == (4, 2)


def test_a_line_that_was_half_sent_is_sent_again_whole(host: ByHand, remote: RemoteStore) -> None:
    big = b'{"type":"x","payload":"' + b"x" * (3 << 20) + b'"}\n'
    feeding = spawn(remote.handle_lines, line(unit_queued("a")) + big + line(unit_queued("b")))
    connection, _ = host.welcome()
    assert connection.socket.recv(100_000)
    connection.close()
    connection, _ = host.welcome(lines=1)
    assert [message.get("unit", "") for message in (connection.read(), connection.read())] == ["", "b"]
    feeding.result(SECONDS)
    connection.say(ack={"lines": 3})
    assert remote.flush(SECONDS).accepted == 3


def test_a_new_store_gets_what_is_not_acked_and_nothing_else(host: ByHand, remote: RemoteStore) -> None:
    feed(remote, "a", "b", "c")
    connection, _ = host.welcome()
    for _ in range(3):
        connection.read()
    connection.say(reject={"line": 1, "reason": "no"}).say(ack={"lines": 1})
    wait_until(lambda: counts(remote) == (0, 1))
    connection.close()
    connection, _ = host.welcome(store="another")
    assert [unit_of(connection.read()) for _ in range(2)] == ["b", "c"]
    connection.say(ack={"lines": 2})
    result = remote.flush(SECONDS)
    assert (result.accepted, result.rejected) == (2, 1)


def test_questions_are_asked_again_after_the_lines(host: ByHand, remote: RemoteStore) -> None:
    feed(remote, "a")
    asked = spawn(remote.runs)
    connection, _ = host.welcome()
    assert [next(iter(connection.read())) for _ in range(2)] == ["type", "ask"]
    connection.close()
    connection, _ = host.welcome()
    assert "type" in connection.read()
    question = connection.read()["ask"]
    connection.say(answer={"id": question["id"], "runs": []})
    assert asked.result(SECONDS) == ()


@pytest.mark.parametrize("code", ["closed", "failed", "internal"])
def test_a_store_that_leaves_for_reasons_of_its_own_is_come_back_to(
    host: ByHand, remote: RemoteStore, code: str
) -> None:
    feed(remote, "a")
    for _ in range(2):
        connection, _ = host.welcome()
        connection.say(error={"code": code, "message": "later"})
        connection.close()
    connection = host.accept()
    connection.read()
    connection.say(error={"code": code, "message": "not yet"})  # in place of a welcome
    connection.close()
    connection, _ = host.welcome()
    assert unit_of(connection.read()) == "a"


def test_a_question_that_is_refused_because_the_store_closes_is_asked_of_the_next(
    host: ByHand, remote: RemoteStore
) -> None:
    asked = spawn(remote.runs)
    connection, _ = host.welcome()
    id = connection.read()["ask"]["id"]
    connection.say(answer={"id": id, "error": {"code": "closed", "message": "too late"}})
    connection.close()
    connection, _ = host.welcome(store="another")
    connection.say(answer={"id": connection.read()["ask"]["id"], "runs": []})
    assert asked.result(SECONDS) == ()


def test_a_store_that_says_nothing_is_left_after_a_while(
    path: Path, host: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorstore.link.WELCOME_SECONDS", 0.05)
    with pytest.raises(StoreUnreachableError, match="nobody answers"):
        connect(path)


def test_a_store_that_closes_at_once_is_not_there(path: Path, host: ByHand) -> None:
    def close_at_once() -> None:
        host.accept().close()

    closing = spawn(close_at_once)
    with pytest.raises(StoreUnreachableError) as raised:
        connect(path)
    assert raised.value.address == str(path)
    closing.result(SECONDS)


# What ends it for good.


def ended(store: RemoteStore) -> StoreClosedError:
    """Wait until nothing is taken any more, and return why."""
    why_refused(store)
    raised = []
    for call in (store.snapshot, lambda: store.handle_event(EVENT), store.flush, store.runs):
        with pytest.raises(StoreClosedError) as caught:
            call()
        raised.append(caught.value)
    assert len({(type(error), str(error)) for error in raised}) == 1
    assert len(set(map(id, raised))) == len(raised)
    return raised[0]


def test_one_that_is_superseded_does_not_come_back(host: ByHand, remote: RemoteStore) -> None:
    feed(remote, "a")
    waiting = [spawn(remote.flush), spawn(remote.wait)]
    connection, _ = host.welcome()
    connection.read()
    connection.say(error={"code": "superseded", "message": "another goes on"})
    assert isinstance(ended(remote), ProducerSupersededError)
    for future in waiting:
        with pytest.raises(ProducerSupersededError):
            future.result(SECONDS)
    assert [message for message in connection.rest() if "bye" in message] == []


def test_a_store_that_knows_more_than_was_sent_is_a_conflict(host: ByHand, remote: RemoteStore) -> None:
    feed(remote, "a")
    connection, _ = host.welcome()
    connection.read()
    connection.say(ack={"lines": 2})
    assert isinstance(ended(remote), ProducerConflictError)


def test_a_store_that_knows_less_than_it_acked_has_lost_some(host: ByHand, remote: RemoteStore) -> None:
    feed(remote, "a", "b")
    connection, _ = host.welcome()
    for _ in range(2):
        connection.read()
    connection.say(ack={"lines": 2})
    remote.flush(SECONDS)
    connection.close()
    host.welcome(lines=1)
    error = ended(remote)
    assert isinstance(error, JournalRegressionError)
    assert "journal" in str(error)


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\n", b"[" * 5000 + b"\n"])
def test_one_that_speaks_something_else_is_refused(
    path: Path, host: ByHand, remote: RemoteStore, data: bytes
) -> None:
    def answer() -> None:
        host.accept().send(data)

    answering = spawn(answer)
    with pytest.raises(RefusedError, match="something else") as raised:
        connect(path)
    assert raised.value.code == "not_this_protocol"
    answering.result(SECONDS)
    remote.handle_event(EVENT)
    connection, _ = host.welcome()
    connection.send(data)
    error = ended(remote)
    assert isinstance(error, RefusedError)
    assert error.code == "not_this_protocol"


def test_a_store_of_another_version_is_refused(path: Path, host: ByHand) -> None:
    def answer() -> None:
        host.accept().say(error={"code": "wrong_protocol", "message": "this store speaks 2"})

    answering = spawn(answer)
    with pytest.raises(RefusedError, match="speaks 2") as raised:
        connect(path)
    assert raised.value.code == "wrong_protocol"
    answering.result(SECONDS)


def test_a_question_may_fail_and_the_rest_goes_on(host: ByHand, remote: RemoteStore) -> None:
    failing = spawn(remote.runs)
    connection, _ = host.welcome()
    id = connection.read()["ask"]["id"]
    connection.say(answer={"id": id, "error": {"code": "failed", "message": "the actor has died"}})
    with pytest.raises(StoreFailedError):
        failing.result(SECONDS)
    asked = spawn(remote.runs)
    connection.say(answer={"id": connection.read()["ask"]["id"], "runs": []})
    assert asked.result(SECONDS) == ()


def test_an_answer_that_nobody_waits_for_any_more_is_passed_over(host: ByHand, remote: RemoteStore) -> None:
    with pytest.raises((StoreTimeoutError, StoreUnreachableError)):
        remote.snapshot(timeout=0)
    connection, _ = host.welcome()
    connection.say(answer={"id": 1, "snapshot": {}})
    feed(remote, "a")
    while "type" not in connection.read():
        pass
    connection.say(ack={"lines": 1})
    assert remote.flush(SECONDS).accepted == 1


# Nobody there.


def test_connecting_to_nobody_names_the_address_and_leaves_nothing(path: Path) -> None:
    with pytest.raises(StoreUnreachableError) as raised:
        connect(path)
    assert raised.value.address == str(path)
    assert str(path) in str(raised.value)


def test_closing_with_nobody_there_ends_after_some_patience_and_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorstore.link.PATIENCE_SECONDS", 0.1)
    store = RemoteStore(path)
    feed(store, "a", "b", "c")
    with pytest.raises(StoreUnreachableError, match="3 lines are not acked") as raised:
        store.close()
    assert raised.value.unacked == 3
    abandon(store)


def test_closing_a_client_that_holds_nothing_is_quick_whoever_is_there(path: Path) -> None:
    store = RemoteStore(path)
    store.close()
    store.close()
    with pytest.raises(StoreClosedError):
        store.handle_event(EVENT)


def test_what_could_not_be_sent_when_closed_is_sent_when_somebody_listens(path: Path) -> None:
    store = RemoteStore(path)
    feed(store, "a")
    with pytest.raises(StoreUnreachableError):
        store.close(0.05)
    with ByHand(path) as host:
        connection, _ = host.welcome()
        assert unit_of(connection.read()) == "a"
        connection.say(ack={"lines": 1})
        assert connection.read() == {"bye": {}}
    store.close()


def test_a_flush_with_nobody_there_ends_in_time_and_says_so(remote: RemoteStore) -> None:
    feed(remote, "a")
    wait_until(lambda: is_away(remote))
    with pytest.raises(StoreUnreachableError, match="1 line is not acked"):
        remote.flush(0.05)


# Room.


def connected(store: RemoteStore, host: ByHand) -> Raw:
    """Let a client in, and return the store's end of the connection."""
    opened = spawn(store._link.open)
    connection, _ = host.welcome()
    opened.result(SECONDS)
    return connection


def test_a_producer_waits_while_too_much_is_not_acked_and_goes_on_with_the_ack(
    path: Path, host: ByHand
) -> None:
    store = RemoteStore(path, kept_bytes=1000)
    connection = connected(store, host)
    feeding = spawn(feed, store, *["a"] * MANY)
    wait_until(lambda: waiting(store))
    assert 0 < unacked(store) < MANY
    assert not feeding.done()
    for number in range(MANY):
        connection.read()
        connection.say(ack={"lines": number + 1})
    feeding.result(SECONDS)
    assert store.flush(SECONDS).accepted == MANY
    store.close()


def test_producers_that_wait_for_room_are_let_go_when_the_client_is_closed(path: Path) -> None:
    store = RemoteStore(path, kept_bytes=100)
    feeding = [spawn(feed, store, *["a"] * MANY) for _ in range(3)]
    wait_until(lambda: waiting(store) == 3 and is_away(store))
    with pytest.raises(StoreUnreachableError):
        store.close(0)
    for future in feeding:
        with pytest.raises(StoreClosedError):
            future.result(SECONDS)
    abandon(store)


def test_a_line_larger_than_the_buffer_is_taken(path: Path, host: ByHand) -> None:
    store = RemoteStore(path, kept_bytes=100)
    connection = connected(store, host)
    feeding = spawn(store.handle_event, Event("x", payload="y" * 10_000))
    assert connection.read()["type"] == "x"
    connection.say(ack={"lines": 1})
    feeding.result(SECONDS)
    store.close()


def test_lines_that_would_control_are_sent_as_lines_that_count(host: ByHand, remote: RemoteStore) -> None:
    remote.handle_lines(b'{"bye":{}}\n{"ask":{"id":1,"what":"stats"}}\n' + line(EVENT))
    connection, _ = host.welcome()
    sent = [connection.read() for _ in range(3)]
    assert [len(message) > 1 for message in sent] == [True, True, True]
    connection.say(ack={"lines": 3})
    assert remote.flush(SECONDS).accepted == 3


# Forgotten.


def test_a_client_that_is_forgotten_sends_what_it_holds_and_ends(path: Path, host: ByHand) -> None:
    store = RemoteStore(path)
    feed(store, "a")
    del store
    gc.collect()
    connection, _ = host.welcome()
    assert unit_of(connection.read()) == "a"
    connection.say(ack={"lines": 1})
    assert connection.read() == {"bye": {}}


def test_a_client_may_be_collected_in_the_midst_of_its_own_work(path: Path) -> None:
    store = RemoteStore(path)
    feed(store, "a")
    its_lock, its_link = lock(store), store._link
    store.itself = store  # type: ignore[attr-defined]
    del store

    def collect_in_the_midst() -> None:
        with its_lock:
            gc.collect()  # as any allocation may

    collecting = spawn(collect_in_the_midst)
    try:
        collecting.result(SECONDS / 3)
    finally:
        if its_lock.locked():
            its_lock.release()  # so that the threads of a test that has failed come to an end
        its_link.abandon()


def test_many_threads_that_open_and_close_leave_nothing(path: Path) -> None:
    with ByHand(path) as host:

        def serve() -> None:
            for _ in range(20):
                host.welcome()

        serving = spawn(serve)

        def use() -> None:
            for _ in range(5):
                connect(path).close()

        results([spawn(use) for _ in range(4)])
        serving.result(SECONDS)


def test_an_event_that_cannot_be_encoded_harms_no_other(host: ByHand, remote: RemoteStore) -> None:
    with pytest.raises(TypeError, match="Event"):
        remote.handle_event({"type": "x"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bytes"):
        remote.handle_lines("text")  # type: ignore[arg-type]
    remote.handle_event(unit_started("a"))
    connection, _ = host.welcome()
    assert unit_of(connection.read()) == "a"


def test_a_close_that_was_interrupted_does_not_take_its_thread_for_ended(path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    remote = RemoteStore(path)
    remote.handle_event(unit_queued("a"))
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)  # time enough to wait in `close`
        with pytest.raises(KeyboardInterrupt):
            remote.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    with Store(listen=path) as store:
        remote.close(SECONDS)
        assert store.stats().accepted == 1
