"""A listening store, as the other end of a socket sees it: what is counted, heard, asked and closed.

Everything here speaks over a real socket, by hand (`tests.raw`); what the
messages look like is in test_protocol.py.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from actorstore import Store, StoreActor, StoreFailedError
from actorstore.asking import MAX_OPEN_QUESTIONS
from actorstore.connection import LINE_BYTES, UNTOLD_LINES, WARY_LINES
from actorstore.handover import MAX_BYTES
from actorstore.intake import Lines
from actorstore.protocol import LINES_AT_ONCE
from tests.builders import (
    chain,
    diamond,
    line,
    lines,
    orch_completed,
    orch_started,
    task_started,
    unit_added,
    unit_queued,
    unit_started,
    units,
    whole_run,
)
from tests.raw import Message, Raw, folder, has_failed, lying, nothing_left
from tests.threads import (
    SECONDS,
    doom,
    held,
    in_actor,
    inbox,
    is_idle,
    kill,
    open_questions,
    results,
    spawn,
    wait_until,
    waiting_producers,
)

BAD = b'{"type":1}\n'
GOOD = b'{"type":"anything","unit":"a"}\n'


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
    """Makes connections, and closes them at the end."""
    made: list[Raw] = []

    def connect() -> Raw:
        made.append(Raw(path))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


Connect = Callable[[], Raw]


def codes(messages: list[Message]) -> list[str]:
    """The codes of the errors among messages."""
    return [message["error"]["code"] for message in messages if "error" in message]


def rejects(messages: list[Message]) -> list[int]:
    """The numbers of the lines that were rejected."""
    return [message["reject"]["line"] for message in messages if "reject" in message]


def connections(store: Store) -> int | None:
    return store.stats().connections


# A connection that just writes.


def test_a_connection_that_just_writes_is_a_producer_and_hears_nothing(store: Store, raw: Connect) -> None:
    producer = raw().send(lines(*whole_run(diamond())) + BAD)
    wait_until(lambda: store.stats().rejected == 1)
    assert store.snapshot().status == "completed"
    assert producer.hears_nothing()
    producer.half_close()
    assert producer.rest() == []


def test_bytes_may_come_one_at_a_time(store: Store, raw: Connect) -> None:
    producer = raw()
    for byte in lines(orch_started(units("a")), unit_started("a")):
        producer.send(bytes([byte]))
    wait_until(lambda: store.stats().accepted == 2)
    assert store.snapshot().unit("a").status == "in_progress"


def test_a_line_that_does_not_end_is_no_line(store: Store, raw: Connect) -> None:
    producer = raw()
    producer.hello("p")
    producer.send(GOOD + GOOD[:-1]).half_close()
    assert producer.rest() == [{"ack": {"lines": 1}}]
    assert store.stats().accepted == 1
    again = raw()
    assert again.hello("p")["lines"] == 1


def test_a_store_is_connected_while_one_that_feeds_it_is_open(store: Store, raw: Connect) -> None:
    store.handle_event(orch_started(units("a")))
    reader, first, second = raw(), raw(), raw()
    reader.hello()
    assert reader.asked(1, "snapshot")["snapshot"]["connected"] is False
    first.send(GOOD)
    wait_until(lambda: store.snapshot().connected)
    second.send(GOOD)
    wait_until(lambda: store.stats().accepted == 3)
    first.close()
    wait_until(lambda: connections(store) == 2)
    assert store.snapshot().connected
    second.close()
    wait_until(lambda: not store.snapshot().connected)


def test_one_that_said_it_is_connected_stays_so_when_others_leave(store: Store, raw: Connect) -> None:
    store.set_connected(True)
    producer = raw().send(GOOD)
    wait_until(lambda: store.stats().accepted == 1)
    producer.close()
    wait_until(lambda: connections(store) == 0)
    assert store.snapshot().connected


def test_open_connections_are_counted(store: Store, raw: Connect) -> None:
    assert connections(store) == 0
    made = [raw() for _ in range(3)]
    wait_until(lambda: connections(store) == 3)
    made[0].hello()
    assert made[0].asked(1, "stats")["stats"]["connections"] == 3
    made[1].close()
    wait_until(lambda: connections(store) == 2)


# Hello, and what is heard after it.


def test_a_welcome_says_which_store_it_is_and_where_it_stands(store: Store, raw: Connect) -> None:
    store.handle_lines(lines(*whole_run(diamond())))
    first, second = raw().hello(), raw().hello("p")
    assert first["store"] == second["store"]
    assert first["lines"] == second["lines"] == 0
    assert first["version"] == second["version"] == store.snapshot().version


def test_acks_are_cumulative_and_every_line_counts_once(store: Store, raw: Connect) -> None:
    producer = raw()
    producer.hello("p")
    assert producer.send(GOOD + b"\n" + BAD + b"  \r\n").acked(4)[-1] == {"ack": {"lines": 4}}
    assert producer.send(GOOD).acked(5)[-1] == {"ack": {"lines": 5}}
    stats = store.stats()
    assert (stats.accepted, stats.rejected) == (2, 1)


def test_acks_never_go_down_and_never_ahead_of_what_is_applied(store: Store, raw: Connect) -> None:
    producer = raw()
    producer.hello("p")
    heard: list[int] = []
    for _ in range(50):
        producer.send(GOOD * 20)
        heard += [message["ack"]["lines"] for message in producer.acked(len(heard) and heard[-1] + 1)]
        assert heard[-1] <= store.stats().accepted
    assert heard == sorted(set(heard))


def test_a_line_that_is_rejected_is_named_before_the_ack_that_covers_it(store: Store, raw: Connect) -> None:
    producer = raw()
    producer.hello("p")
    heard = producer.send(GOOD + BAD + GOOD + BAD).acked(4)
    for number in (2, 4):
        place = next(
            place for place, message in enumerate(heard) if message.get("reject", {}).get("line") == number
        )
        assert all(message["ack"]["lines"] < number for message in heard[:place] if "ack" in message)
    assert all("type" in message["reject"]["reason"] for message in heard if "reject" in message)


def test_lines_are_counted_on_over_reconnects(store: Store, raw: Connect) -> None:
    for number in range(3):
        producer = raw()
        welcome = producer.hello("p")
        assert (welcome["lines"], welcome.get("rejected", 0)) == (2 * number, number)
        assert rejects(producer.send(GOOD + BAD).acked(2 * number + 2)) == [2 * number + 2]
        producer.close()


def test_a_producer_that_reconnects_finds_all_that_was_read_before(store: Store, raw: Connect) -> None:
    producer = raw()
    producer.hello("p")
    with held(store):
        producer.send(GOOD * 1000).half_close()
        again = raw().say(hello={"producer": "p", "protocol": 1})
    assert again.read()["welcome"]["lines"] == store.stats().accepted


def test_a_producer_without_an_id_is_acked_and_not_remembered(store: Store, raw: Connect) -> None:
    for _ in range(2):
        producer = raw()
        assert producer.hello()["lines"] == 0
        assert rejects(producer.send(GOOD + BAD).acked(2)) == [2]
        producer.close()


def test_producers_do_not_hear_of_each_other(store: Store, raw: Connect) -> None:
    first, second = raw(), raw()
    first.hello("p")
    second.hello("q")
    first.send(BAD * 3).acked(3)
    assert second.send(GOOD).acked(1) == [{"ack": {"lines": 1}}]


def test_a_goodbye_is_the_end_and_the_id_is_forgotten(store: Store, raw: Connect) -> None:
    producer = raw()
    producer.hello("p")
    producer.send(GOOD * 3).acked(3)
    assert producer.say(bye={}).rest() == []
    assert raw().hello("p")["lines"] == 0


def test_a_goodbye_comes_after_the_acks_of_what_was_written_before(store: Store, raw: Connect) -> None:
    producer = raw()
    producer.hello("p")
    with held(store):
        producer.send(GOOD * 3 + BAD + b'{"bye":{}}\n' + GOOD)  # the last of which is after the end
    heard = producer.rest()
    assert heard[-1] == {"ack": {"lines": 4}}
    assert rejects(heard) == [4]
    assert store.stats().accepted == 3


def test_one_that_says_no_more_hears_the_rest(store: Store, raw: Connect) -> None:
    store.handle_event(orch_started(units("a")))
    client = raw()
    client.hello("p")
    with held(store):
        client.send(GOOD).ask(1, "snapshot").send(BAD).ask(2, "stats").half_close()
    heard = client.rest()
    assert [message["ack"] for message in heard if "ack" in message][-1] == {"lines": 2}
    assert sorted(message["answer"]["id"] for message in heard if "answer" in message) == [1, 2]


def test_one_that_says_no_more_and_waits_is_answered_when_it_happens(store: Store, raw: Connect) -> None:
    store.handle_event(orch_started(units("a")))
    client = raw()
    client.hello()
    client.ask(1, "wait").half_close()
    wait_until(lambda: open_questions(store) == 1)
    store.handle_event(orch_completed())
    assert [message["answer"]["snapshot"]["status"] for message in client.rest()] == ["completed"]


def test_one_that_said_no_more_and_is_gone_is_not_waited_for(store: Store, raw: Connect) -> None:
    store.handle_event(orch_started(units("a")))
    client = raw()
    client.hello()
    client.ask(1, "wait").half_close()
    wait_until(lambda: open_questions(store) == 1)
    client.close()
    wait_until(lambda: connections(store) == 0)
    wait_until(lambda: open_questions(store) == 0)


# Those whose lines are refused.


def flooded(store: Store, producer: Raw, said: bytes) -> int:
    """Have a producer write until it is not read any more, and return how many lines lie before the actor."""
    with held(store):
        assert results([spawn(producer.fill, said)])[0] > 200_000
        return sum(item.lines for item in store._intake.items if isinstance(item, Lines))


@pytest.mark.parametrize("said", [b"x\n", b"garbage\n", b'{"type":1}\n', b"{}\n" + GOOD])
def test_lines_that_are_refused_wait_in_their_connection_and_not_before_those_of_others(
    store: Store, raw: Connect, said: bytes
) -> None:
    producer = raw().send(GOOD + said)
    wait_until(lambda: store.stats().rejected == 1)
    assert flooded(store, producer, said * 100_000) <= WARY_LINES


def test_lines_of_which_nothing_is_known_are_looked_at_before_more_are_taken(
    store: Store, raw: Connect
) -> None:
    assert flooded(store, raw(), GOOD * 100_000) <= WARY_LINES


@pytest.mark.parametrize("said", [b"\n", b'{"type":"a"}\n'])
def test_short_lines_take_the_room_that_looking_at_them_takes(
    store: Store, raw: Connect, said: bytes
) -> None:
    producer = raw()
    for number in (1, 2, 3):
        producer.send(GOOD)
        wait_until(lambda: store.stats().accepted == number)
    assert flooded(store, producer, said * 1_000_000) <= MAX_BYTES // LINE_BYTES + LINES_AT_ONCE


def test_one_that_writes_good_lines_again_is_trusted_again(store: Store, raw: Connect) -> None:
    producer = raw().send(BAD * 1000 + GOOD * 1000 + b"\n")
    wait_until(lambda: store.stats().accepted == 1000)
    assert flooded(store, producer, GOOD * 100_000) > WARY_LINES


def test_all_lines_of_one_whose_lines_are_refused_are_counted_and_the_last_are_shown(
    store: Store, raw: Connect
) -> None:
    said = [b"bad %d\n" % number if number % 3 else GOOD for number in range(1, 30_001)]
    raw().send(b"".join(said)).half_close()
    wait_until(lambda: store.stats().accepted == 10_000)
    wait_until(lambda: store.stats().rejected == 20_000)
    assert [rejection.line for rejection in store.stats().rejections][-2:] == [29_998, 29_999]
    assert store.stats().rejections[-1].text == "bad 29999"


# Questions.


def test_a_question_is_answered_after_what_the_same_connection_wrote_before(
    store: Store, raw: Connect
) -> None:
    client = raw()
    client.hello()
    client.send(line(orch_started(units("a"))))
    for task in range(1, 201):
        client.send(line(task_started("a", task))).ask(task, "snapshot")
    for task in range(1, 201):
        assert client.answer(task)["snapshot"]["units"][0]["currentTask"] >= task


def test_every_question_has_its_answer(store: Store, raw: Connect) -> None:
    store.handle_lines(lines(*whole_run(diamond())))
    client = raw()
    client.hello()
    assert client.asked(1, "snapshot", run="")["snapshot"]["summary"]["complete"] == 4
    assert len(client.asked(2, "graph")["graph"]["nodes"]) == 4
    assert [run["status"] for run in client.asked(3, "runs")["runs"]] == ["completed"]
    assert client.asked(4, "stats")["stats"]["accepted"] == store.stats().accepted
    update = client.asked(5, "update")["update"]
    assert len(update["units"]) == 4
    assert client.asked(6, "wait")["snapshot"]["status"] == "completed"
    assert client.asked(7, "connected", connected=True)["connected"] is True
    news = client.asked(8, "next", since=update["cursor"], connected=False)["update"]
    assert (news["connected"], news["units"]) == (True, [])


def test_a_snapshot_since_a_cursor_holds_what_changed(store: Store, raw: Connect) -> None:
    store.handle_event(orch_started(units("a", "b", "c")))
    client = raw()
    client.hello()
    first = client.asked(1, "snapshot")
    same = client.asked(2, "snapshot", since=first["cursor"])["update"]
    assert (same["units"], same["since"]) == ([], first["snapshot"]["version"])
    store.handle_event(unit_started("b"))
    news = client.asked(3, "snapshot", since=same["cursor"])["update"]
    assert [unit["id"] for unit in news["units"]] == ["b"]
    whole = client.asked(4, "snapshot", since="of another store")
    assert len(whole["snapshot"]["units"]) == 3


def test_a_question_that_nobody_knows_is_refused_by_name(store: Store, raw: Connect) -> None:
    client = raw()
    client.hello()
    error = client.asked(1, "the \x1b[31mtime")["error"]
    assert error["code"] == "unknown_question"
    assert "\x1b" not in error["message"]
    assert "snapshot" in error["message"]
    assert client.asked(1, "runs")["runs"] == []


def test_an_unknown_run_is_refused_by_name(store: Store, raw: Connect) -> None:
    client = raw()
    client.hello()
    for id, what in enumerate(["snapshot", "graph", "update", "wait"]):
        error = client.asked(id, what, run="nightly")["error"]
        assert (error["code"], error["run"]) == ("unknown_run", "nightly")


def test_a_number_may_be_used_again_once_it_is_answered_and_not_before(store: Store, raw: Connect) -> None:
    client = raw()
    client.hello()
    client.ask(1, "wait").ask(1, "stats")
    assert client.answer(1)["error"]["code"] == "duplicate_id"
    store.handle_lines(lines(orch_started(), orch_completed()))
    assert client.answer(1)["snapshot"]["status"] == "completed"
    assert "stats" in client.asked(1, "stats")


def test_questions_that_are_open_are_bounded_and_others_may_go_on_asking(store: Store, raw: Connect) -> None:
    client, other = raw(), raw()
    client.hello()
    other.hello()
    for id in range(MAX_OPEN_QUESTIONS + 1):
        client.ask(id, "wait")
    assert client.answer(MAX_OPEN_QUESTIONS)["error"]["code"] == "too_many_questions"
    assert other.asked(0, "runs")["runs"] == []
    client.ask(0, "forget").ask(MAX_OPEN_QUESTIONS, "runs")
    assert client.answer(MAX_OPEN_QUESTIONS)["runs"] == []


def test_a_question_that_is_forgotten_has_no_answer(store: Store, raw: Connect) -> None:
    client = raw()
    client.hello()
    client.ask(1, "wait")
    wait_until(lambda: open_questions(store) == 1)
    client.ask(1, "forget").ask(9, "forget")
    wait_until(lambda: open_questions(store) == 0)
    store.handle_lines(lines(orch_started(), orch_completed()))
    client.ask(2, "stats")
    assert client.read()["answer"]["id"] == 2


def test_the_questions_of_one_who_leaves_are_forgotten(store: Store, raw: Connect) -> None:
    client = raw()
    client.hello()
    client.ask(1, "wait").ask(2, "next")
    wait_until(lambda: open_questions(store) >= 1)
    client.close()
    wait_until(lambda: open_questions(store) == 0)
    wait_until(lambda: connections(store) == 0)


# Who breaks the protocol.


OFFENCES = {
    "a late hello": (b'{"hello":{"protocol":1}}\n', b'{"hello":{"protocol":1}}\n', "late_hello"),
    "a hello after a line": (GOOD, b'{"hello":{"protocol":1}}\n', "late_hello"),
    "a question without a hello": (b"", b'{"ask":{"id":1,"what":"stats"}}\n', "no_hello"),
    "a goodbye without a hello": (GOOD, b'{"bye":{}}\n', "no_hello"),
    "a hello that is none": (b"", b'{"hello":7}\n', "bad_hello"),
    "a producer without letters": (b"", b'{"hello":{"protocol":1,"producer":""}}\n', "bad_hello"),
    "a question without a number": (b'{"hello":{"protocol":1}}\n', b'{"ask":{"what":"stats"}}\n', "bad_ask"),
    "another protocol": (b"", b'{"hello":{"protocol":2}}\n', "wrong_protocol"),
}


@pytest.mark.parametrize(("before", "offence", "code"), OFFENCES.values(), ids=list(OFFENCES))
def test_who_breaks_the_protocol_is_told_once_and_closed(
    store: Store, raw: Connect, before: bytes, offence: bytes, code: str
) -> None:
    other, client = raw(), raw()
    other.hello()
    client.send(before + offence + GOOD + offence)
    heard = client.rest()
    assert codes(heard) == [code]
    assert heard[-1]["error"]["code"] == code
    assert store.stats().accepted == before.count(b'"type"')
    assert "stats" in other.asked(1, "stats")


def test_a_second_holder_of_an_id_supersedes_the_first_after_its_lines(store: Store, raw: Connect) -> None:
    first, second = raw(), raw()
    first.hello("p")
    with held(store):
        first.send(GOOD * 10)
        in_order = raw()  # once this is let in, the ten lines are read
        wait_until(lambda: lying(store))
        second.say(hello={"producer": "p", "protocol": 1})
        assert codes(first.rest()) == ["superseded"]
    assert second.read()["welcome"]["lines"] == 10
    assert second.send(GOOD).acked(11)
    in_order.close()


def test_one_that_is_superseded_while_much_of_it_is_unacked_is_let_go(store: Store, raw: Connect) -> None:
    first = raw()
    first.hello("p")
    first.send(GOOD * 2 * WARY_LINES).acked(2 * WARY_LINES)
    with held(store):
        first.send(b"\n" * (12 * UNTOLD_LINES))
        wait_until(lambda: lying(store) >= 1)
        second = raw().say(hello={"protocol": 1, "producer": "p"})
        assert codes(first.rest()) == ["superseded"]
    assert MAX_BYTES // LINE_BYTES <= second.read()["welcome"]["lines"] < 12 * UNTOLD_LINES
    second.close()
    wait_until(lambda: not store.snapshot().connected)


def test_one_that_resumes_and_says_no_more_still_hears_its_last_ack(store: Store, raw: Connect) -> None:
    with raw() as first:
        first.hello("p")
        first.send(GOOD * 3).acked(3)
    producer = raw()
    producer.hello("p")
    producer.send(GOOD).acked(4)
    with held(store):
        producer.send(GOOD).half_close()
        wait_until(lambda: lying(store) == 1)
    assert [message for message in producer.rest() if "ack" in message] == [{"ack": {"lines": 5}}]


def test_an_id_that_is_superseded_back_and_forth_loses_no_line(store: Store, raw: Connect) -> None:
    sent = 0
    for _ in range(20):
        client = raw()
        sent = client.hello("p")["lines"]
        client.send(GOOD * 3)
    last = raw()
    assert sent <= last.hello("p")["lines"] == store.stats().accepted


# Lines of any length, and order.


def test_large_lines_keep_their_order_with_the_small_ones_around(store: Store, raw: Connect) -> None:
    graph = line(orch_started(chain(3000)))
    assert len(graph) > 1 << 16
    producer = raw()
    producer.hello("p")
    for turn in range(3):
        data = (
            graph
            + line(unit_started("u7"))
            + line(unit_added(f"late{turn}"))
            + BAD
            + graph
            + line(unit_queued("u8"))
        )
        heard = producer.send(data).acked(6 * turn + 6)
        assert rejects(heard) == [6 * turn + 4]
        snapshot = store.snapshot()
        assert len(snapshot.units) == 3000
        assert (snapshot.unit("u7").status, snapshot.unit("u8").status) == ("pending", "ready")
    assert store.snapshot().version == 15


def test_a_large_line_is_answered_and_acked_after_its_connection_is_half_closed(
    store: Store, raw: Connect
) -> None:
    producer = raw()
    producer.hello("p")
    producer.send(line(orch_started(chain(3000))) + GOOD).ask(1, "graph").half_close()
    heard = producer.rest()
    assert [len(message["answer"]["graph"]["nodes"]) for message in heard if "answer" in message] == [3000]
    assert [message["ack"]["lines"] for message in heard if "ack" in message][-1] == 2


def test_a_line_over_the_limit_is_rejected_in_its_place(path: Path) -> None:
    with Store(listen=path, max_line_bytes=1000) as store, Raw(path) as producer:
        producer.hello("p")
        heard = producer.send(GOOD + b"x" * 200_000 + b"\n" + GOOD).acked(3)
        assert rejects(heard) == [2]
        assert store.stats().accepted == 2


# Back-pressure.


def test_a_producer_that_runs_ahead_is_not_read_and_goes_on_later(store: Store, raw: Connect) -> None:
    producer = raw()
    producer.hello("p")
    data = GOOD * 1000
    with held(store):
        sent = producer.fill(data)
        assert sent < 4 << 20
        assert lying(store)
    rest = -sent % len(data)
    producer.send(data[len(data) - rest :])
    producer.acked((sent + rest) // len(GOOD))
    assert store.stats().accepted == (sent + rest) // len(GOOD)


def test_who_waits_for_room_delays_nobody_who_only_comes_and_goes(store: Store, raw: Connect) -> None:
    producer = raw()
    producer.hello("p")
    with held(store):
        producer.fill(GOOD * 1000)
        for _ in range(3):
            client = raw().send(b'{"hello":{"protocol":9}}\n')
            assert codes(client.rest()) == ["wrong_protocol"]


def test_one_who_does_not_read_its_answers_is_not_read_and_others_are(store: Store, raw: Connect) -> None:
    store.handle_event(orch_started(chain(2000)))
    silent, other = raw(), raw()
    silent.hello()
    other.hello()
    question = b'{"ask":{"id":1,"what":"snapshot"}}\n'
    sent = silent.fill(question * 1000)
    assert "stats" in other.asked(1, "stats")
    assert other.send(GOOD).acked(1)
    rest = -sent % len(question)
    silent.socket.setblocking(True)
    reading = spawn(silent.rest)  # it begins to read, and is read again
    silent.send(question[len(question) - rest :]).half_close()
    answers = [message["answer"] for message in reading.result(SECONDS)]
    assert len(answers) == (sent + rest) // len(question)


def test_all_who_wait_for_room_are_let_in_wherever_they_are(store: Store, raw: Connect) -> None:
    data = GOOD * 20_000
    producers = [raw() for _ in range(4)]
    for number, producer in enumerate(producers):
        producer.hello(f"p{number}")
        producer.send(GOOD * 2 * WARY_LINES).acked(2 * WARY_LINES)
    with held(store):
        writing = [spawn(producer.send, data) for producer in producers]
        here = [spawn(store.handle_lines, data) for _ in range(2)]
        wait_until(lambda: waiting_producers(store) == 3)  # two here, and the server for all the others
    results(here)
    results(writing)
    for producer in producers:
        producer.acked(2 * WARY_LINES + 20_000)
    assert store.stats().accepted == 6 * 20_000 + len(producers) * 2 * WARY_LINES


def test_the_order_of_each_producer_is_kept_however_they_wait(store: Store, raw: Connect) -> None:
    store.handle_event(orch_started(units("a", "b")))
    producers = {unit: raw() for unit in ("a", "b")}
    for producer in producers.values():
        producer.hello()
        producer.send(GOOD * 2 * WARY_LINES).acked(2 * WARY_LINES)
    taken = store.stats().accepted
    with held(store):
        writing = [
            spawn(producer.send, b"".join(line(task_started(unit, task)) for task in range(1, 20_001)))
            for unit, producer in producers.items()
        ]
        wait_until(lambda: waiting_producers(store) == 1)
    results(writing)
    wait_until(lambda: store.stats().accepted == taken + 40_000)
    assert [unit.current_task for unit in store.snapshot().units] == [20_000, 20_000]


# Lines that do not end.


def test_lines_that_do_not_end_have_so_much_room_and_the_one_idle_for_longest_leaves(path: Path) -> None:
    half = b'{"type":"' + b"x" * (400 << 10)
    with Store(listen=path, max_line_bytes=1 << 20) as store, ExitStack() as stack:
        made = [stack.enter_context(Raw(path)) for _ in range(20)]
        for raw in made:
            raw.hello()
        for number, raw in enumerate(made):
            raw.send(GOOD + half).acked(1)
            if number:
                made[0].send(b"x")  # which is slow, and not idle
        for raw in made[1:-4]:
            assert codes(raw.rest()) == ["no_room"]
        wait_until(lambda: connections(store) == 5)
        for raw in (made[0], *made[-4:]):
            raw.send(b'"}\n').acked(2)
        assert store.stats().rejected == 5  # for what they are: a type of so many bytes
        stack.enter_context(Raw(path)).send(half)  # which has room again


def test_a_line_that_does_not_end_is_let_go_of_with_its_connection(path: Path) -> None:
    half = b'{"type":"' + b"x" * (700 << 10)
    with Store(listen=path, max_line_bytes=1 << 20) as store:
        for _ in range(10):
            with Raw(path) as gone:
                gone.hello()
                gone.send(GOOD + half).acked(1)
            wait_until(lambda: connections(store) == 0)
        with Raw(path) as first, Raw(path) as second:
            for raw in (first, second):
                raw.hello()
                raw.send(GOOD + half).acked(1)
            for raw in (first, second):
                raw.send(b'"}\n').acked(2)


# The end.


def test_closing_takes_what_was_written_before_and_acks_it(path: Path) -> None:
    store = Store(listen=path)
    with Raw(path) as producer, Raw(path) as plain:
        producer.hello("p")
        producer.send(GOOD * 5000 + BAD)
        plain.send(GOOD * 5000)
        store.close()
        heard = producer.rest()
        assert plain.rest() == []
    acked = [message["ack"]["lines"] for message in heard if "ack" in message]
    assert acked[-1] == 5001
    assert rejects(heard) == [5001]
    assert codes(heard) == ["closed"]
    assert heard[-1]["error"]["code"] == "closed"
    assert not list(path.parent.iterdir())


def test_closing_hears_those_who_have_only_just_connected(path: Path) -> None:
    for _ in range(10):
        store = Store(listen=path)
        updates = store.subscribe()
        with Raw(path) as producer:
            producer.send(lines(orch_started(), orch_completed()))
            store.close()
        assert [update.status for update in updates][-1] == "completed"


def test_closing_waits_for_no_reader_for_good(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorstore.server.DRAIN_SECONDS", 0.1)
    monkeypatch.setattr("actorstore.server.WIND_UP_SECONDS", 0.1)
    store = Store(listen=path)
    store.handle_event(orch_started(chain(2000)))
    with Raw(path) as silent:
        silent.hello()
        silent.fill(b'{"ask":{"id":1,"what":"snapshot"}}\n' * 1000)
        spawn(store.close).result(SECONDS)
        assert not list(path.parent.iterdir())


def test_closing_cuts_off_who_goes_on_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorstore.server.DRAIN_SECONDS", 0.1)
    store = Store(listen=path)

    def write(producer: Raw) -> None:
        while True:
            producer.send(GOOD * 100)

    with Raw(path) as producer:
        writing = spawn(write, producer)
        wait_until(lambda: store.stats().accepted)
        spawn(store.close).result(SECONDS)
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            writing.result(SECONDS)


def test_closing_answers_what_was_asked_and_refuses_what_would_wait(path: Path) -> None:
    store = Store(listen=path)
    with Raw(path) as client:
        client.hello()
        client.ask(1, "wait").ask(2, "runs")
        assert client.answer(2)["runs"] == []
        store.close()
        heard = client.rest()
    assert codes(heard) == ["closed"]


def test_closing_twice_and_from_many_threads_is_closing_once(path: Path) -> None:
    store = Store(listen=path)
    with Raw(path):
        results([spawn(store.close) for _ in range(4)])
        store.close()
    assert not list(path.parent.iterdir())


def test_another_store_may_listen_as_soon_as_the_first_is_closed(path: Path) -> None:
    ids = []
    for _ in range(5):
        with Store(listen=path), Raw(path) as client:
            ids.append(client.hello()["store"])
    assert len(set(ids)) == 5


def test_closing_takes_no_longer_than_it_may_when_the_actor_is_busy(path: Path) -> None:
    store = Store(listen=path)
    with Raw(path) as producer:
        producer.hello("p")
        with held(store):
            producer.send(GOOD)
            wait_until(lambda: lying(store))
            with pytest.raises(TimeoutError):
                store.close(0.1)
        assert not [message for message in producer.rest() if "ack" in message]
    store.close()


def test_a_store_that_cannot_listen_leaves_nothing_running(path: Path) -> None:
    path.write_text("in the way")
    with pytest.raises(OSError, match="no socket"):
        Store(listen=path)
    assert path.read_text() == "in the way"


# An actor that has died.


def test_a_store_that_has_failed_refuses_lines_and_never_acks(store: Store, raw: Connect) -> None:
    kill(store)
    assert codes(raw().send(GOOD).rest()) == ["failed"]
    heard = raw().say(hello={"protocol": 1, "producer": "p"}).rest()
    assert codes(heard) == ["failed"]
    assert len(heard) == 1
    with pytest.raises(StoreFailedError):
        store.snapshot()


def test_the_lines_over_which_a_store_failed_are_not_acked(store: Store, raw: Connect) -> None:
    producer = raw()
    producer.hello("p")
    doom(store)
    heard = producer.send(GOOD).rest()
    assert [message for message in heard if "ack" in message] == []
    assert codes(heard) == ["failed"]
    assert has_failed(store)


def test_the_lines_over_which_a_store_failed_are_not_acked_with_those_before(
    store: Store, raw: Connect
) -> None:
    def fail_later(actor: StoreActor) -> None:
        apply, calls = actor._state.apply, iter(range(100))

        def apply_once(events: object) -> None:
            if events and next(calls):
                raise MemoryError("out of memory")
            apply(events)  # type: ignore[arg-type]

        actor._state.apply = apply_once  # type: ignore[assignment, method-assign]

    producer = raw()
    producer.hello("p")
    in_actor(store, fail_later)
    with held(store):
        producer.send(GOOD)
        wait_until(lambda: lying(store) == 1)
        producer.send(GOOD)
        wait_until(lambda: lying(store) == 2)
    heard = producer.rest()
    assert all(message["ack"]["lines"] <= 1 for message in heard if "ack" in message)
    assert codes(heard) == ["failed"]


def test_a_question_that_waits_while_the_store_fails_is_refused(store: Store, raw: Connect) -> None:
    client = raw()
    client.hello()
    client.ask(1, "wait")
    wait_until(lambda: open_questions(store) == 1)
    kill(store)
    heard = client.rest()
    assert codes([message.get("answer", message) for message in heard])[-1] == "failed"


def test_a_question_that_has_just_come_when_the_store_fails_is_refused(store: Store, raw: Connect) -> None:
    client = raw()
    client.hello()
    doom(store)
    with held(store):
        client.send(GOOD).ask(1, "stats")
        wait_until(lambda: inbox(store) >= 3)  # a feed begins, there are lines, and the question
    assert codes([message.get("answer", message) for message in client.rest()])[-1] == "failed"


def test_those_who_only_listen_are_told_that_the_store_has_failed(store: Store, raw: Connect) -> None:
    listener, plain = raw(), raw()
    listener.hello("p")
    plain.send(GOOD)
    wait_until(lambda: store.stats().accepted == 1)
    kill(store)
    assert codes(listener.rest()) == ["failed"]
    assert codes(plain.rest()) == ["failed"]


def test_a_failed_store_can_be_closed_and_leaves_nothing(path: Path) -> None:
    store = Store(listen=path)
    with Raw(path) as client:
        client.hello()
        kill(store)
        store.close()
        assert codes(client.rest()) == ["failed"]
    assert not list(path.parent.iterdir())


# What is logged.


def test_the_loop_of_a_server_complains_about_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Store(listen=path) as store:
        for data in (b"", GOOD, b"\x00" * 10, b'{"hello"', b'{"hello":{"protocol":1}}\n' + GOOD):
            for linger in (False, True):
                client = Raw(path).send(data)
                if linger:  # closes with a reset
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
        wait_until(lambda: connections(store) == 0 and is_idle(store))
    assert caplog.messages == []
    assert not os.path.exists(path)
