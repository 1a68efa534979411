"""The ledger: whatever is lost on the way, a store that counts gets each line once and in order."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorstore.errors import JournalRegressionError, ProducerConflictError
from actorstore.ledger import Ledger, Standing
from actorstore.protocol import Ask, Sendable, Welcome, ask, sendable
from tests.builders import line, orch_started, unit_failed, unit_queued

LINE = line(unit_queued("a"))
BAD = b'{"type":7}\n'
UNKNOWN = line(unit_queued("nobody"))
BLANK = b" \t\r\n"
QUESTION = ask(Ask(1, "stats"))


def new_ledger(lines: int = 0, rejected: int = 0, store: str = "s") -> Ledger:
    """The ledger of a producer that has been welcomed once."""
    ledger = Ledger("p")
    ledger.resume(Welcome(store, lines, 0, rejected))
    return ledger


def send(ledger: Ledger, size: int | None = None) -> bytes:
    """Send so many bytes, or all there are, as a socket would take them."""
    sent = b""
    while (size is None or len(sent) < size) and (data := ledger.to_send()) is not None:
        taken = bytes(data if size is None else data[: size - len(sent)])
        ledger.has_sent(len(taken))
        sent += taken
    return sent


def hear_rejections(ledger: Ledger, count: int = 1) -> None:
    """Hear that lines were refused; the ack that covers them follows."""
    for _ in range(count):
        ledger.hear_reject()


def check_empty(ledger: Ledger) -> None:
    """Everything is acked, and nothing is kept."""
    assert (ledger.unacked, ledger.size, ledger.to_send()) == (0, 0, None)


# In a few lines.


def test_lines_are_sent_in_their_order():
    ledger = new_ledger()
    handed = [LINE, line(unit_failed("b", "é")), LINE]
    for data in handed:
        ledger.add_lines(sendable(data))
    assert send(ledger) == b"".join(handed)
    assert (ledger.handed, ledger.acked, ledger.unacked) == (3, 0, 3)


def test_lines_and_questions_keep_their_order():
    ledger = new_ledger()
    ledger.add_lines(sendable(LINE))
    ledger.add_question(QUESTION)
    ledger.add_lines(sendable(LINE + BAD))
    ledger.add_lines(sendable(LINE))
    ledger.add_question(QUESTION)
    assert send(ledger) == LINE + QUESTION + LINE + BAD + LINE + QUESTION
    assert ledger.handed == 4


def test_what_is_sent_is_kept_until_it_is_acked():
    ledger = new_ledger()
    ledger.add_lines(sendable(LINE))
    assert ledger.size == len(LINE)
    send(ledger)
    assert ledger.size == len(LINE)
    ledger.hear_ack(1)
    check_empty(ledger)


def test_a_question_is_not_kept_and_takes_no_room():
    ledger = new_ledger()
    ledger.add_question(QUESTION)
    assert (ledger.size, ledger.handed) == (0, 0)
    send(ledger)
    ledger.resume(Welcome("s", 0, 0))
    check_empty(ledger)


def test_an_ack_in_the_middle_of_a_parcel_lets_go_of_the_lines_before_it():
    ledger = new_ledger()
    ledger.add_lines(sendable(LINE + BAD + LINE))
    send(ledger)
    ledger.hear_ack(2)
    assert (ledger.acked, ledger.unacked, ledger.size) == (2, 1, len(LINE))
    ledger.resume(Welcome("s", 2, 1, 1))
    assert send(ledger) == LINE
    ledger.hear_ack(3)
    check_empty(ledger)


def test_an_ack_that_comes_again_or_late_changes_nothing():
    ledger = new_ledger()
    ledger.add_lines(sendable(LINE * 3))
    send(ledger)
    for lines in (2, 2, 1, 0):
        ledger.hear_ack(lines)
        assert ledger.acked == 2


def test_lines_of_a_parcel_that_is_partly_sent_may_be_acked():
    ledger = new_ledger()
    ledger.add_lines(sendable(LINE * 3))
    assert send(ledger, 2 * len(LINE) + 5) == LINE * 2 + LINE[:5]
    ledger.hear_ack(2)
    assert send(ledger) == LINE[5:]
    ledger.hear_ack(3)
    check_empty(ledger)


def test_after_a_reconnect_half_a_line_is_sent_from_its_start():
    ledger = new_ledger()
    ledger.add_lines(sendable(LINE * 2))
    send(ledger, len(LINE) + 5)
    ledger.resume(Welcome("s", 1, 1))
    assert send(ledger) == LINE


def test_after_a_reconnect_a_store_may_know_more_than_was_acked():
    ledger = new_ledger()
    ledger.add_lines(sendable(LINE * 2))
    ledger.add_lines(sendable(BAD * 2))
    send(ledger)
    ledger.hear_ack(1)
    ledger.resume(Welcome("s", 3, 2, 1))
    assert (ledger.acked, ledger.accepted, ledger.rejected) == (3, 2, 1)
    assert send(ledger) == BAD


def test_a_new_producer_goes_on_from_what_a_store_already_counts():
    ledger = new_ledger(lines=7, rejected=2)
    ledger.add_lines(sendable(LINE + BAD))
    send(ledger)
    hear_rejections(ledger)
    ledger.hear_ack(9)
    assert (ledger.acked, ledger.accepted, ledger.rejected) == (2, 1, 1)


def test_a_new_store_gets_what_the_one_before_did_not_ack():
    ledger = new_ledger()
    for data in (LINE, BAD, LINE):
        ledger.add_lines(sendable(data))
    send(ledger)
    ledger.hear_ack(1)
    ledger.resume(Welcome("t", 0, 0))
    assert send(ledger) == BAD + LINE
    hear_rejections(ledger)
    ledger.hear_ack(2)
    check_empty(ledger)
    assert (ledger.acked, ledger.accepted, ledger.rejected) == (3, 2, 1)


def test_a_rejection_that_was_heard_before_its_ack_counts_once_when_a_new_store_says_it_again():
    ledger = new_ledger()
    ledger.add_lines(sendable(BAD + LINE))
    send(ledger)
    hear_rejections(ledger)  # whose ack is lost with the store
    ledger.resume(Welcome("t", 0, 0))
    send(ledger)
    hear_rejections(ledger)
    ledger.hear_ack(2)
    assert (ledger.accepted, ledger.rejected) == (1, 1)


def test_events_of_unknown_units_are_counted_from_what_each_store_counts_already():
    ledger = Ledger("p")
    ledger.resume(Welcome("s", 7, 7, 0, 5))
    ledger.add_lines(sendable(UNKNOWN * 3))
    send(ledger)
    ledger.hear_ack(8, 6)
    assert ledger.unknown_units == 1
    ledger.resume(Welcome("s", 9, 9, 0, 7))  # the ack of the second was lost
    assert ledger.unknown_units == 2
    ledger.resume(Welcome("t", 4, 4, 0, 4))
    send(ledger)
    ledger.hear_ack(5, 5)
    check_empty(ledger)
    assert (ledger.accepted, ledger.unknown_units) == (3, 3)


def test_an_older_store_says_nothing_of_unknown_units_and_so_there_are_none():
    ledger = new_ledger(lines=7)
    ledger.add_lines(sendable(UNKNOWN * 3))
    send(ledger)
    ledger.hear_ack(10)
    assert (ledger.accepted, ledger.unknown_units) == (3, 0)


def test_who_goes_on_for_a_producer_that_is_gone_counts_unknown_units_of_what_was_left():
    before = Ledger("p")
    before.resume(Welcome("s", 0, 0))
    before.add_lines(sendable(UNKNOWN * 3))
    send(before)
    before.hear_ack(2, 2)
    after = Ledger("p")
    after.inherit(before.standing, [sendable(UNKNOWN)])
    after.resume(Welcome("s", 3, 3, 0, 3))
    assert (after.accepted, after.unknown_units) == (1, 1)


def test_the_same_store_with_fewer_lines_than_it_acked_is_a_regression():
    ledger = new_ledger()
    ledger.add_lines(sendable(LINE * 2))
    send(ledger)
    ledger.hear_ack(2)
    with pytest.raises(JournalRegressionError, match="it counts 1 lines of producer p, and has acked 2"):
        ledger.resume(Welcome("s", 1, 1))


def test_a_store_that_counts_lines_never_sent_is_a_conflict():
    ledger = new_ledger()
    ledger.add_lines(sendable(LINE * 2))
    ledger.add_lines(sendable(LINE))
    send(ledger, 2 * len(LINE))
    with pytest.raises(ProducerConflictError, match="it counts 3 lines of producer p, which has sent 2"):
        ledger.hear_ack(3)
    with pytest.raises(ProducerConflictError):
        ledger.resume(Welcome("s", 3, 3))
    ledger.resume(Welcome("s", 2, 2))
    assert send(ledger) == LINE


def test_blank_lines_are_neither_accepted_nor_rejected():
    ledger = new_ledger()
    ledger.add_lines(sendable(BLANK + LINE + b"\n" + BAD + BLANK + LINE))
    send(ledger)
    for acked, accepted in ((1, 0), (2, 1), (3, 1)):
        ledger.hear_ack(acked)
        assert ledger.accepted == accepted
    hear_rejections(ledger)
    for acked, accepted in ((4, 1), (5, 1), (6, 2)):
        ledger.hear_ack(acked)
        assert ledger.accepted == accepted
    check_empty(ledger)


def test_a_control_line_that_is_handed_over_as_an_event_is_a_line_that_counts():
    ledger = new_ledger()
    ledger.add_lines(sendable(QUESTION + LINE))
    assert ledger.handed == 2
    assert send(ledger) != QUESTION + LINE


# Going on for a producer that is gone.


def heir(standing: Standing, *left: bytes) -> Ledger:
    """The ledger of a producer that has these lines of one before."""
    ledger = Ledger("p")
    ledger.inherit(standing, [sendable(data) for data in left])
    assert ledger.handed == sum(data.count(b"\n") for data in left)
    assert ledger.size == sum(map(len, left))
    return ledger


def test_what_was_left_goes_on_from_where_the_store_stands():
    ledger = heir(Standing("s", 7, 2), LINE + BAD, LINE + BLANK + LINE)
    ledger.resume(Welcome("s", 9, 0, 3))
    assert (ledger.acked, ledger.accepted, ledger.rejected) == (2, 1, 1)
    ledger.add_lines(sendable(LINE * 2))
    assert send(ledger) == LINE + BLANK + LINE + LINE * 2
    ledger.hear_ack(14)
    assert (ledger.accepted, ledger.rejected) == (5, 1)
    assert ledger.standing == Standing("s", 14, 3)
    check_empty(ledger)


def test_what_was_left_goes_to_another_store_as_a_whole():
    ledger = heir(Standing("s", 7, 2), LINE * 2)
    ledger.resume(Welcome("t", 0, 0))
    assert send(ledger) == LINE * 2
    assert ledger.standing == Standing("t", 0, 0)


def test_a_store_that_knows_less_than_was_acked_is_refused_by_a_successor_too():
    with pytest.raises(JournalRegressionError):
        heir(Standing("s", 7, 2), LINE).resume(Welcome("s", 6, 0))


@pytest.mark.parametrize("store", ["s", ""])
@pytest.mark.parametrize("rejected", [0, 1, 9])
def test_lines_whose_end_was_lost_are_acked_where_the_store_knows_even_more(store: str, rejected: int):
    standing = Standing(store, 7, 2) if store else Standing()
    ledger = heir(standing, LINE + BLANK, LINE)
    ledger.resume(Welcome("s", 20, 0, standing.rejected + rejected))
    assert ledger.acked == 3
    assert (ledger.accepted, ledger.rejected) == (2 - min(rejected, 2), min(rejected, 2))
    check_empty(ledger)
    ledger.add_lines(sendable(LINE))
    assert send(ledger) == LINE
    ledger.hear_ack(21)
    assert ledger.accepted == 3 - min(rejected, 2)
    assert ledger.standing == Standing("s", 21, standing.rejected + rejected)
    with pytest.raises(ProducerConflictError):
        ledger.resume(Welcome("s", 22, 0))


# Against a store of a few lines, for as long as one likes.


def is_blank(data: bytes) -> bool:
    return not data.strip()


class Counter:
    """A store as simple as it can be: it keeps the lines of one producer.

    Args:
        id: Its id.
        first: How many lines of the producer were handed over before the first that it may know.
        lines: How many lines it counts already, from some life before.
        rejected: How many of those it refused.
        unknown: How many of those were of unknown units.
    """

    def __init__(self, id: str, first: int, lines: int, rejected: int, unknown: int) -> None:
        self.id = id
        self.first = first
        self.before = lines
        self.rejected_before = rejected
        self.unknown_before = unknown
        self.lines: list[bytes] = []

    @property
    def count(self) -> int:
        return self.before + len(self.lines)

    @property
    def rejected(self) -> int:
        return self.rejected_before + self.lines.count(BAD)

    @property
    def unknown(self) -> int:
        return self.unknown_before + self.lines.count(UNKNOWN)

    def welcome(self) -> Welcome:
        return Welcome(self.id, self.count, 0, self.rejected, self.unknown)


KINDS: Final = st.lists(st.sampled_from([LINE, BAD, UNKNOWN, BLANK, b"\n"]), min_size=1, max_size=6)


class Exchange(RuleBasedStateMachine):
    """A producer with its ledger, a store, and a connection between them that breaks at will."""

    @initialize(lines=st.integers(0, 3), rejected=st.integers(0, 2))
    def begin(self, lines: int, rejected: int) -> None:
        self.ledger = Ledger("p")
        self.handed: list[bytes] = []
        self.made = 0
        self.store = self.new_store(lines, rejected)
        self.connect()

    def new_store(self, lines: int, rejected: int) -> Counter:
        self.made += 1
        rejected = min(lines, rejected)
        return Counter(f"s{self.made}", self.ledger.acked, lines, rejected, lines - rejected)

    def connect(self) -> None:
        self.ledger.resume(self.store.welcome())
        self.wire = b""  # sent, not yet read
        self.untold = 0  # lines refused since the store last said so
        self.told: list[tuple[int, int, int]] = []  # said, not yet heard: lines, those refused, those unknown
        self.asked: list[int] = []  # lines handed over before each open question

    # What is handed over.

    @rule(count=st.integers(1, 4))
    def hand_over_events(self, count: int) -> None:
        self.ledger.add_lines(Sendable(LINE * count, count, 0))
        self.handed += [LINE] * count

    @rule(data=KINDS, ends=st.booleans())
    def hand_over_lines(self, data: list[bytes], ends: bool) -> None:
        whole = b"".join(data)
        if not ends and len(data[-1]) > 1:
            whole = whole[:-1]
        self.ledger.add_lines(sendable(whole))
        self.handed += data

    @rule()
    def hand_over_a_large_event(self) -> None:
        event = orch_started({f"u{number}": [] for number in range(2000)})
        self.ledger.add_lines(sendable(line(event)))
        self.handed.append(line(event))

    @rule()
    def ask(self) -> None:
        self.ledger.add_question(QUESTION)
        self.asked.append(len(self.handed))

    # What happens on the way.

    @rule(size=st.one_of(st.integers(1, 200), st.just(1 << 30)))
    def send(self, size: int) -> None:
        self.wire += send(self.ledger, size)

    @rule(lines=st.integers(1, 8))
    def read(self, lines: int) -> None:
        """The store reads whole lines."""
        for _ in range(min(lines, self.wire.count(b"\n"))):
            found, _, self.wire = self.wire.partition(b"\n")
            if found + b"\n" == QUESTION:
                assert self.store.first + len(self.store.lines) == self.asked.pop(0)
            else:
                self.store.lines.append(found + b"\n")
                self.untold += found + b"\n" == BAD

    @rule()
    def tell(self) -> None:
        """The store says what became of them."""
        self.told.append((self.store.count, self.untold, self.store.unknown))
        self.untold = 0

    @precondition(lambda self: self.told)
    @rule(messages=st.integers(1, 4))
    def hear(self, messages: int) -> None:
        for lines, rejected, unknown in self.told[:messages]:
            hear_rejections(self.ledger, rejected)
            self.ledger.hear_ack(lines, unknown)
        del self.told[:messages]

    @rule()
    def reconnect(self) -> None:
        self.connect()

    @rule(lines=st.integers(0, 3), rejected=st.integers(0, 2))
    def restart(self, lines: int, rejected: int) -> None:
        """The store is gone with all it knew, and another one comes, which may know other lines."""
        self.store = self.new_store(lines, rejected)
        self.connect()

    @precondition(lambda self: self.ledger.acked > self.store.first)
    @rule()
    def meet_a_store_that_has_forgotten(self) -> None:
        said = self.store.welcome()
        count = self.store.before + self.ledger.acked - self.store.first - 1
        with pytest.raises(JournalRegressionError):
            self.ledger.resume(Welcome(said.store, count, 0, said.rejected))

    @rule(more=st.integers(1, 3))
    def meet_a_store_that_knows_too_much(self, more: int) -> None:
        with pytest.raises(ProducerConflictError):
            self.ledger.hear_ack(self.store.before + len(self.handed) - self.store.first + more)

    # What must always hold.

    @invariant()
    def each_line_counts_once_and_in_order(self) -> None:
        first = self.store.first
        assert self.store.lines == self.handed[first : first + len(self.store.lines)]

    @invariant()
    def the_counts_agree(self) -> None:
        ledger = self.ledger
        assert (ledger.handed, ledger.unacked) == (len(self.handed), len(self.handed) - ledger.acked)
        acked = self.handed[: ledger.acked]
        assert ledger.rejected == acked.count(BAD)
        assert ledger.unknown_units == acked.count(UNKNOWN)
        assert ledger.accepted == sum(not is_blank(data) and data != BAD for data in acked)

    @invariant()
    def what_is_not_acked_is_kept(self) -> None:
        kept = b"".join(self.handed[self.ledger.acked :])
        assert self.ledger.size == len(kept)

    def teardown(self) -> None:
        """In the end everything arrives, and nothing is kept."""
        if not hasattr(self, "store"):
            return
        self.connect()
        self.wire += send(self.ledger)
        self.read(self.wire.count(b"\n"))
        self.tell()
        self.hear(1)
        assert self.store.lines == self.handed[self.store.first :]
        self.the_counts_agree()
        check_empty(self.ledger)


TestExchange = Exchange.TestCase
TestExchange.settings = settings(max_examples=60, stateful_step_count=30)
