"""The hand-over, without an actor: order, bounds, who is woken and who is let in, and what is refused."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from actorstore import Event, Rejection, StoreClosedError, StoreFailedError, handover, throttle
from actorstore.handover import MAX_BYTES, MAX_ITEMS
from actorstore.intake import KEPT_REJECTIONS, Intake, Lines
from actorstore.reply import Reply
from actorstore.wire import CHUNK_BYTES, Chunk
from tests.builders import line, lines, task_started, unit_failed, unit_queued, unit_started
from tests.threads import SECONDS, results, spawn, wait_until

EVENT = unit_queued("a")


class Bench:
    """An intake, and how often its actor was woken."""

    def __init__(self, **options: int) -> None:
        self.intake = Intake(**options)
        self.woken = 0
        self.intake.attach(self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def fill(self) -> None:
        """Hand over all that fits, but for one event."""
        for _ in range(MAX_ITEMS - 1):
            self.intake.put(EVENT)

    def work(self) -> list[object]:
        """What the actor does: take all, let one in, rest."""
        items, _ = self.intake.take()
        self.intake.let_in()
        self.intake.rest()
        return items


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock that limits the log; it goes only where a test moves it."""
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(throttle, "time", clock)
    return clock


def rejection(number: int) -> Rejection:
    """The refusal of a line."""
    return Rejection("odd", "{", number)


# What is handed over.


def test_items_are_taken_in_the_order_handed_over(bench: Bench) -> None:
    events = [task_started("a", number) for number in range(1, 4)]
    bench.intake.put(events[0])
    bench.intake.put_chunk(line(events[1]))
    bench.intake.put(events[2])
    lines = Lines(line(events[1]), bench.intake.here)
    assert bench.intake.take() == ([events[0], lines, events[2]], False)
    assert bench.intake.take() == ([], True)


def test_events_alone_are_known_to_be_alone(bench: Bench) -> None:
    bench.intake.put(EVENT)
    bench.intake.put(EVENT)
    assert bench.intake.take() == ([EVENT, EVENT], True)


def test_many_events_cost_one_message(bench: Bench) -> None:
    for _ in range(100):
        bench.intake.put(EVENT)
    assert bench.woken == 1
    bench.work()
    bench.intake.put_chunk(line(EVENT))
    assert bench.woken == 2


def test_the_actor_does_not_rest_where_something_has_come_in_meanwhile(bench: Bench) -> None:
    bench.intake.put(EVENT)
    bench.intake.take()
    bench.intake.put(EVENT)
    assert bench.intake.rest() is False
    bench.intake.put(EVENT)
    assert bench.woken == 1
    bench.intake.take()
    assert bench.intake.rest() is True


def test_a_line_longer_than_a_chunk_is_decoded_by_its_producer(bench: Bench) -> None:
    long = b'{"type":"x","payload":"%s"}\n' % (b"x" * CHUNK_BYTES)
    bench.intake.put_chunk(long)
    ((item,), only_events) = bench.intake.take()
    assert isinstance(item.data, Chunk)
    assert (len(item.data.events), item.data.lines, only_events) == (1, 1, False)


@pytest.mark.parametrize("wrong", ["unit.queued", b"{}", None, {"type": "unit.queued"}, Event])
def test_what_is_no_event_is_a_type_error_of_its_producer(bench: Bench, wrong: object) -> None:
    with pytest.raises(TypeError, match="handle_event takes an"):
        bench.intake.put(wrong)
    assert (bench.intake.take(), bench.intake.rejected, bench.woken) == (([], True), 0, 0)


def test_what_lies_there_is_counted_as_events_and_lines(bench: Bench) -> None:
    bench.intake.put(EVENT)
    bench.intake.put_chunk(lines(EVENT, EVENT, EVENT))
    bench.intake.put_chunk(b'{"type":"x","payload":"%s"}\n' % (b"x" * CHUNK_BYTES))
    assert bench.intake.pending() == 5
    bench.work()
    assert bench.intake.pending() == 0


# The bounds.


def test_intake_is_full_at_so_many_events(bench: Bench) -> None:
    bench.fill()
    assert not bench.intake.queue_up(Reply())
    assert bench.intake.put(EVENT) is True
    assert bench.intake.queue_up(Reply())


def test_intake_is_full_at_so_many_bytes_of_lines(bench: Bench) -> None:
    chunk = line(Event("x", payload="x" * 60_000))
    answers = [bench.intake.put_chunk(chunk) for _ in range(MAX_BYTES // len(chunk) + 1)]
    assert answers == [False] * (len(answers) - 1) + [True]


@pytest.mark.parametrize("event", [Event("x", payload="x" * 65_000), unit_failed("a", "x" * 65_000)])
def test_intake_is_full_at_so_many_bytes_of_payloads_and_errors(bench: Bench, event: Event) -> None:
    answers = [bench.intake.put(event) for _ in range(MAX_BYTES // 65_000 + 1)]
    assert answers == [False] * (len(answers) - 1) + [True]


def test_there_is_room_again_once_the_actor_has_taken_all(bench: Bench) -> None:
    bench.fill()
    bench.intake.put(Event("x", payload="x" * MAX_BYTES))
    bench.work()
    assert bench.intake.put(EVENT) is False


def test_who_waits_longest_is_let_in_first_and_one_a_batch(bench: Bench) -> None:
    bench.fill()
    bench.intake.put(EVENT)
    replies = [Reply() for _ in range(3)]
    assert all(bench.intake.queue_up(reply) for reply in replies)
    let_in = []
    for _ in replies:
        bench.work()
        let_in.append([reply.wait(0) for reply in replies])
    assert let_in == [[True, False, False], [True, True, False], [True, True, True]]


def test_who_is_let_in_and_brings_nothing_more_does_not_strand_those_behind(bench: Bench) -> None:
    bench.fill()
    bench.intake.put(EVENT)
    waiting = [spawn(bench.intake.wait_for_room) for _ in range(5)]
    wait_until(lambda: len(bench.intake._waiting) == 5)
    bench.woken = 0
    for number in range(1, 5):
        bench.work()
        wait_until(lambda: bench.woken == number)
    bench.work()
    results(waiting)
    assert bench.woken == 4


def test_who_is_interrupted_while_waiting_does_not_strand_those_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fill()
    bench.intake.put(EVENT)
    interrupted = Reply()

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    behind = Reply()
    with monkeypatch.context() as patch:
        patch.setattr(handover, "Reply", lambda: interrupted)
        patch.setattr(Reply, "wait", lambda reply, *_: bench.intake.queue_up(behind) and interrupt())
        with pytest.raises(KeyboardInterrupt):
            bench.intake.wait_for_room()
    bench.work()
    if not behind.wait(0):
        assert bench.woken == 2, "nobody wakes the actor for the one that waits behind"
        bench.work()
        assert behind.wait(0)


# Closing.


def test_closing_hands_the_last_items_over_and_takes_nothing_more(bench: Bench) -> None:
    bench.intake.put(EVENT)
    assert bench.intake.close(StoreClosedError) == ([EVENT], True)
    for put, item in [(bench.intake.put, EVENT), (bench.intake.put_chunk, line(EVENT))]:
        with pytest.raises(StoreClosedError):
            put(item)
    assert bench.intake.take() == ([], True)


def test_an_event_that_comes_between_the_last_look_and_the_closing_is_refused(bench: Bench) -> None:
    """As `Store.handle_event` does it: append first, look afterwards."""
    bench.intake.close(StoreClosedError)
    late = unit_started("a")
    bench.intake.items.append(late)
    with pytest.raises(StoreClosedError):
        bench.intake.turn(late)
    assert bench.intake.take() == ([], True)


def test_an_event_that_was_taken_as_the_last_is_not_refused(bench: Bench) -> None:
    last = unit_started("a")
    bench.intake.items.append(last)
    assert bench.intake.close(StoreClosedError) == ([last], True)
    bench.intake.turn(last)


def test_closing_lets_everybody_go_who_waits_for_room(bench: Bench) -> None:
    bench.fill()
    bench.intake.put(EVENT)
    waiting = [spawn(bench.intake.wait_for_room) for _ in range(3)]
    wait_until(lambda: len(bench.intake._waiting) == 3)
    bench.intake.close(StoreClosedError)
    results(waiting)
    assert not bench.intake.queue_up(Reply())


def test_a_failure_stays_a_failure(bench: Bench) -> None:
    bench.intake.close(StoreFailedError)
    bench.intake.close(StoreClosedError)
    with pytest.raises(StoreFailedError):
        bench.intake.check_open()


# What is refused.


def test_an_event_that_is_too_long_is_refused() -> None:
    bench = Bench(max_line_bytes=100)
    bench.intake.put(Event("x", payload="x" * 90))
    bench.intake.put(Event("x", payload="x" * 99))
    bench.intake.put(unit_failed("a", "x" * 101))
    assert len(bench.intake.take()[0]) == 1
    assert bench.intake.rejected == 2
    assert ["at most 100" in each.reason for each in bench.intake.last_rejections()] == [True, True]


def test_the_last_few_rejections_are_kept_and_all_are_counted(bench: Bench) -> None:
    for number in range(KEPT_REJECTIONS + 5):
        bench.intake.reject(rejection(number))
    assert bench.intake.rejected == KEPT_REJECTIONS + 5
    assert [each.line for each in bench.intake.last_rejections()] == list(range(5, KEPT_REJECTIONS + 5))


def test_many_producers_count_their_rejections_together(bench: Bench) -> None:
    def reject() -> None:
        for number in range(200):
            bench.intake.reject_event(rejection(number))

    results([spawn(reject) for _ in range(4)])
    assert (bench.intake.rejected, bench.intake.here.rejected) == (800, 800)


def test_a_rejection_is_logged_with_reason_and_line(
    bench: Bench, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    bench.intake.reject(Rejection("unit: expected `str`, got `int`", '{"unit":7}', 12))
    clock.now += 1
    bench.intake.reject(Rejection("payload: not JSON", "Event('x')"))
    assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
        ("actorstore", logging.WARNING, 'rejected line 12: unit: expected `str`, got `int`: {"unit":7}'),
        ("actorstore", logging.WARNING, "rejected an event: payload: not JSON: Event('x')"),
    ]


def test_at_most_one_rejection_a_second_is_logged_and_the_others_are_counted(
    bench: Bench, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(50):
        clock.now += 0.1
        bench.intake.reject(rejection(number))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 5
    assert "more before it" not in messages[0]
    assert all("line" in message for message in messages)
    logged = len(messages) + sum(int(message.partition("(")[2].split()[0]) for message in messages[1:])
    assert logged >= 40


def test_reply_waits_no_longer_than_it_is_told() -> None:
    reply = Reply()
    assert reply.wait(0) is False
    assert reply.wait(0.001) is False
    waiting = spawn(reply.wait, SECONDS)
    reply.set(7)
    assert waiting.result(SECONDS) is True
    assert reply.result() == 7


def test_reply_raises_what_the_actor_could_not_answer() -> None:
    reply = Reply()
    reply.fail(LookupError("no such run"))
    assert reply.wait(0)
    with pytest.raises(LookupError, match="no such run"):
        reply.result()
