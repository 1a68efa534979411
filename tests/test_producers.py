"""Producers: the table of their phases, and that no order of what concerns them loses or doubles a line.

The first half reads like the table in `actorstore.producers`. The second half
draws orders of hello, lines, bye, supersession, kill, stall, commit and restart,
between the real connections, actor and ledgers, with every thread stepped by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actorstore.account import Account
from actorstore.answers import Rejection
from actorstore.ledger import Ledger
from actorstore.producers import Claimant, Phase, Producers, phase
from actorstore.protocol import (
    Ack,
    ClientReader,
    Refusal,
    Reject,
    Sendable,
    Welcome,
    bye,
    count_blank,
    hello,
    sendable,
)
from actorstore.wire import CHUNK_BYTES, chunks
from tests.stepped import Journal, SteppedStore, Wire

# The table.


class Connected:
    """A connection as the table sees it: listener, and receiver of its welcome."""

    def hear(self, lines: int, rejections: Sequence[Rejection], unknown_units: int) -> None:
        """Take note of an ack."""

    def set(self, value: object) -> bool:
        return False

    def fail(self, error: BaseException) -> None:
        """Take note that there is no answer."""


def claimant() -> Claimant:
    connection = Connected()
    return Claimant(connection, connection)


def greet(producers: Producers, claimant: Claimant, producer: str = "p") -> Account | None:
    """Say hello; return the account with which that is welcomed at once."""
    producers.hello(producer, claimant)
    welcome = producers.welcome()
    assert all(who is claimant for _, who in welcome)
    return welcome[0][0] if welcome else None


def take(producers: Producers, account: Account, lines: int) -> None:
    """Have lines handed over and taken; not durable yet."""
    account.handed += lines
    account.taken += lines


def make_durable(producers: Producers, account: Account, lines: int) -> None:
    account.lines += lines
    producers.settle(account)


def test_the_hello_of_an_unknown_producer_is_welcomed_at_once() -> None:
    producers, first = Producers({}), claimant()
    account = greet(producers, first)
    assert account is not None
    assert (account.producer, account.lines, account.listener) == ("p", 0, first.listener)
    assert phase(account) is Phase.SETTLED


def test_a_hello_without_an_id_leaves_nothing_behind() -> None:
    producers = Producers({})
    producers.hello(None, claimant())
    [(account, _)] = producers.welcome()
    assert account.producer is None
    assert not len(producers)


def test_the_hello_of_a_producer_that_is_behind_waits_for_its_lines_wherever_they_are() -> None:
    producers = Producers({})
    account = greet(producers, claimant())
    assert account is not None
    account.handed += 2  # one lies in the intake, where the actor has not looked
    account.taken += 1
    assert phase(account) is Phase.BEHIND
    second = claimant()
    assert greet(producers, second) is None
    make_durable(producers, account, 1)
    assert producers.welcome() == []
    account.taken += 1
    make_durable(producers, account, 1)
    assert producers.welcome() == [(account, second)]
    assert account.lines == 2
    assert account.listener is second.listener


def test_from_a_hello_on_the_connection_before_is_told_nothing_more() -> None:
    producers, first = Producers({}), claimant()
    account = greet(producers, first)
    assert account is not None
    take(producers, account, 1)
    greet(producers, claimant())
    assert account.listener is None


def test_of_two_hellos_that_are_put_off_the_newest_is_welcomed() -> None:
    producers = Producers({})
    account = greet(producers, claimant())
    assert account is not None
    take(producers, account, 1)
    second, third = claimant(), claimant()
    assert greet(producers, second) is None
    assert greet(producers, third) is None
    make_durable(producers, account, 1)
    assert producers.welcome() == [(account, third)]
    assert account.listener is third.listener


def test_a_farewell_is_written_once_all_lines_are_taken() -> None:
    producers = Producers({})
    account = greet(producers, claimant())
    assert account is not None
    account.handed += 1
    producers.bye("p")
    assert phase(account) is Phase.LEAVING
    assert producers.farewells() == []
    account.taken += 1
    assert producers.farewells() == [account]
    assert producers.farewells() == []
    assert len(producers) == 1  # until that is durable


def test_the_hello_of_a_producer_that_leaves_opens_a_new_account_once_that_is_durable() -> None:
    producers = Producers({})
    account = greet(producers, claimant())
    assert account is not None
    take(producers, account, 5)
    make_durable(producers, account, 5)
    producers.bye("p")
    producers.bye("p")  # ignored
    assert producers.farewells() == [account]
    second = claimant()
    assert greet(producers, second) is None
    producers.forget(account)
    [(new, who)] = producers.welcome()
    assert who is second
    assert new is not account
    assert new.lines == 0
    assert list(producers) == [new]


def test_a_bye_of_an_unknown_producer_is_ignored() -> None:
    producers = Producers({})
    producers.bye("p")
    assert producers.farewells() == []


def test_a_producer_without_a_line_is_forgotten_with_its_connection() -> None:
    producers, first = Producers({}), claimant()
    account = greet(producers, first)
    assert account is not None
    producers.release(account, first.listener)
    assert not len(producers)


def test_a_producer_with_lines_outlives_its_connection() -> None:
    producers, first = Producers({}), claimant()
    account = greet(producers, first)
    assert account is not None
    account.handed += 1
    producers.release(account, first.listener)
    assert list(producers) == [account]
    assert account.listener is None


def test_a_connection_that_goes_does_not_take_the_listener_of_its_successor() -> None:
    producers, first, second = Producers({}), claimant(), claimant()
    account = greet(producers, first)
    assert account is not None
    assert greet(producers, second) is account
    producers.release(account, first.listener)
    assert account.listener is second.listener


def test_a_producer_that_leaves_counts_until_its_farewell_is_durable() -> None:
    producers = Producers({})
    account = greet(producers, claimant())
    assert account is not None
    take(producers, account, 2)
    make_durable(producers, account, 2)
    producers.bye("p")
    assert producers.farewells() == [account]
    assert [(count.producer, count.lines) for count in producers.counts()] == [("p", 2)]
    producers.forget(account)
    assert producers.counts() == []


def test_counts_are_those_of_durable_lines() -> None:
    producers = Producers({"q": Account("q", 4, 3, 1)})
    account = greet(producers, claimant())
    assert account is not None
    take(producers, account, 2)
    assert [count.producer for count in producers.counts()] == ["q"]
    make_durable(producers, account, 2)
    assert [(count.producer, count.lines) for count in producers.counts()] == [("q", 4), ("p", 2)]


# Every order.


class Client:
    """A producer process with a spool: what it hands over outlives its kill.

    Args:
        producer: Its id.
    """

    def __init__(self, producer: str) -> None:
        self.producer = producer
        self.handed: list[bytes] = []  # events
        self.lines = 0
        self.ledger = Ledger(producer)
        self.wire: Wire | None = None
        self.kept = b""  # all lines, as the spool holds them
        self.welcomed_at = 0
        self._begun = 0  # lines of those before the one that lives
        self._is_welcome = False
        self._reader = ClientReader()

    def hand_over(self, data: bytes, events: list[bytes]) -> None:
        for chunk in chunks(data):
            lines = sendable(chunk)
            self.ledger.add_lines(lines)
            self.kept += lines.data
            self.lines += lines.lines
        self.handed += events

    def connect(self, store: SteppedStore) -> None:
        self.wire = store.connect()
        self._reader = ClientReader()
        self._is_welcome = False
        self.wire.send(hello(self.producer))

    def send(self, most: int) -> bool:
        """Send so many bytes; `False` where there are none."""
        data = self.ledger.to_send() if self.is_welcome else None
        if data is None or self.wire is None:
            return False
        self.wire.send(bytes(data[:most]))
        self.ledger.has_sent(len(data[:most]))
        return True

    def read(self, most: int) -> bool:
        """Read so many bytes; `False` where there are none."""
        if self.wire is None:
            return False
        data = self.wire.receive(most)
        for message in self._reader.feed(data):
            match message:
                case Welcome():
                    self.welcomed_at = message.lines
                    self.ledger.resume(message)
                    self._is_welcome = True
                case Ack():
                    self.ledger.hear_ack(message.lines)
                case Reject():
                    self.ledger.hear_reject()
                case Refusal():
                    assert message.code == "superseded", message
        if self.wire.is_over:
            self.wire = None
        return bool(data)

    def say_bye(self) -> None:
        assert self.wire is not None
        self.wire.send(bye())
        self.wire.hang_up()

    def kill(self) -> None:
        """Die, and come back as a process that goes on with the spool."""
        if self.wire is not None:
            self.wire.hang_up()
        self.wire = None
        acked = self._begun + self.ledger.acked
        standing = self.ledger.standing
        left = b"".join(self.kept.splitlines(keepends=True)[acked:])
        self._begun = acked
        self.ledger = Ledger(self.producer)
        if not standing.store:  # it was never welcome, so it has sent nothing
            for data in chunks(left):
                self.ledger.add_lines(sendable(data))
            return
        count = left.count(b"\n")
        self.ledger.inherit(standing, [Sendable(left, count, count_blank(left))] if left else [])

    @property
    def is_welcome(self) -> bool:
        return self._is_welcome and self.wire is not None

    @property
    def unacked(self) -> int:
        return self.ledger.unacked


class World:
    """Two producers, a store, and a journal that is full as soon as entries wait."""

    def __init__(self, full_entries: int = 1) -> None:
        self.journal = Journal(full_entries)
        self.store = SteppedStore(self.journal)
        self.clients = {producer: Client(producer) for producer in "pq"}
        self.wires: list[Wire] = []
        self.past: list[Client] = []  # lives that ended with a bye
        self.count = 0

    def hand_over(self, producer: str, lines: int) -> None:
        """Hand over lines, of which some are blank, rejected or too long to be decoded in between."""
        data, events = b"", []
        for _ in range(lines):
            self.count += 1
            kind = self.count % 5
            if kind == 3:
                data += b"\n"
            elif kind == 4:
                data += b'{"type":""}\n'
            else:
                more = b',"more":"%b"' % (b"-" * CHUNK_BYTES) if self.count % 7 == 6 else b""
                events.append(b'{"type":"x","unit":"%b-%d"%b}' % (producer.encode(), self.count, more))
                data += events[-1] + b"\n"
        self.clients[producer].hand_over(data, events)

    def connect(self, producer: str) -> None:
        client = self.clients[producer]
        client.connect(self.store)
        assert client.wire is not None
        self.wires.append(client.wire)

    def say_bye(self, client: Client) -> None:
        client.say_bye()
        self.past.append(client)
        self.clients[client.producer] = Client(client.producer)

    def restart(self) -> None:
        """Kill the store, and open another one on its journal."""
        for wire in self.wires:
            wire.kill()
        self.wires.clear()
        for client in self.clients.values():
            client.wire = None
        self.store = SteppedStore(self.journal)

    def run(self, *, commits: bool = True) -> None:
        """Let all that is under way come as far as it can; with commits, to its end."""
        if not commits:
            self.journal.stall()
        for _ in range(1000):
            if commits:
                self.journal.commit(1000)
            is_busy = [wire.deliver(100_000) for wire in self.wires]
            while self.store.step_actor() or self.store.step_loop() or self.store.step_background():
                is_busy.append(True)
            for client in self.clients.values():
                is_busy += [client.send(100_000), client.read(100_000)]
            if not any(is_busy):
                return
        raise AssertionError("it never ends")

    def run_until_decoding(self) -> None:
        """Deliver what is sent, until a long line is decoded in the background."""
        while not self.store.server.background:
            delivered = [wire.deliver(100_000) for wire in self.wires]
            assert any(delivered)

    def check(self) -> None:
        """Check what holds at any moment: what is acked is durable, and nothing counts twice."""
        durable = set(self.journal.lines)
        assert len(self.journal.lines) == len(durable)
        for client in (*self.clients.values(), *self.past):
            acked = client.kept.splitlines()[: client.lines - client.unacked]
            assert durable.issuperset([line for line in acked if line.startswith(b'{"type":"x"')])

    def end(self) -> None:
        """Let all producers finish; each line counts once, in its order, and nothing is left."""
        self.run()
        for producer, client in self.clients.items():
            client.kill()
            self.connect(producer)
        self.run()
        for client in list(self.clients.values()):
            assert client.unacked == 0
            self.say_bye(client)
        self.run()
        self.check()
        assert self.store.connections == 0
        assert not list(self.store.actor._producers)
        for producer in "pq":
            lives = [client for client in self.past if client.producer == producer]
            handed = [line for client in lives for line in client.handed]
            prefix = b'{"type":"x","unit":"%s-' % producer.encode()
            assert [line for line in self.journal.lines if line.startswith(prefix)] == handed


def connected() -> World:
    """Return a world with both producers welcome, and the journal full of an entry of `q` that waits."""
    world = World()
    world.connect("p")
    world.connect("q")
    world.run()
    world.hand_over("q", 1)
    world.run(commits=False)
    return world


def test_a_producer_that_is_killed_while_its_lines_lie_in_the_intake_sends_none_of_them_twice() -> None:
    world = connected()
    world.hand_over("p", 10)
    world.run(commits=False)
    world.clients["p"].kill()
    world.connect("p")
    world.run(commits=False)
    assert not world.clients["p"].is_welcome
    world.end()


def test_a_goodbye_does_not_wipe_the_next_life_of_its_producer() -> None:
    world = connected()
    world.journal.commit(1)
    world.hand_over("p", 2)
    world.run()
    world.hand_over("q", 1)
    world.run(commits=False)
    world.say_bye(world.clients["p"])
    world.run(commits=False)
    world.connect("p")
    world.run(commits=False)
    world.hand_over("p", 5)
    world.run()
    assert world.clients["p"].unacked == 0
    world.restart()
    world.connect("p")
    world.run()
    assert world.clients["p"].welcomed_at == 5
    world.end()


def test_the_next_life_of_a_producer_begins_once_its_goodbye_is_durable() -> None:
    world = World()
    world.connect("p")
    world.hand_over("p", 2)
    world.run()
    world.say_bye(world.clients["p"])
    world.connect("p")
    world.hand_over("p", 2)
    world.run(commits=False)
    world.restart()  # the farewell is lost with the store
    world.connect("p")
    world.end()


def test_a_superseded_connection_that_was_put_off_does_not_take_the_acks_of_its_successor() -> None:
    world = World(full_entries=3)
    for producer in "pq":
        world.connect(producer)
        world.hand_over(producer, 1)
    world.run()
    world.hand_over("p", 1)
    world.run(commits=False)
    world.connect("p")
    world.run(commits=False)
    world.journal.commit(0)  # there is room again, and nothing is written yet
    world.connect("p")
    for _ in range(3):
        for wire in world.wires:
            wire.deliver(100_000)
        while world.store.step_actor() or world.store.step_loop():
            pass
    world.hand_over("p", 1)
    world.run()
    assert world.clients["p"].unacked == 0
    world.end()


def test_a_farewell_follows_the_lines_that_the_producer_had_not_heard_of() -> None:
    world = connected()
    world.hand_over("p", 2)
    world.run(commits=False)
    leaving = world.clients["p"].wire
    assert leaving is not None
    leaving.send(bye())
    leaving.hang_up()
    world.run(commits=False)
    after = world.store.connect()
    world.wires.append(after)
    after.send(hello("p"))
    world.run(commits=False)
    assert after.receive(1000) == b""
    world.run()
    assert b'"lines":0' in after.receive(1000)
    after.send(b'{"type":"x"}\n')
    world.run()
    assert world.journal.fold.accounts["p"].lines == 1


def test_a_long_line_of_a_superseded_connection_that_is_still_decoded_is_dropped() -> None:
    world = World()
    world.connect("p")
    world.run()
    world.count = 5
    world.hand_over("p", 1)
    world.clients["p"].send(100_000)
    world.run_until_decoding()
    world.connect("p")
    world.wires[1].deliver(100_000)
    while world.store.step_actor() or world.store.step_loop():
        pass
    world.end()


def test_a_connection_whose_long_line_cannot_be_decoded_is_let_go() -> None:
    world = World()
    world.connect("p")
    world.run()
    world.count = 5
    world.hand_over("p", 2)
    world.clients["p"].send(100_000)
    world.run_until_decoding()
    world.wires[0].end.refuse_service(MemoryError())
    world.store.server.background.clear()
    world.clients["p"].kill()
    world.run()
    assert world.store.connections == 0
    assert world.store.actor._feeding == 0


class Orders(RuleBasedStateMachine):
    """Producers, their connections, a store that restarts, and a journal that stalls."""

    @initialize(full_entries=st.integers(1, 3))
    def begin(self, full_entries: int) -> None:
        self.world = World(full_entries)
        for producer in "pq":
            self.world.connect(producer)
            self.world.hand_over(producer, 1)
        self.world.run()

    producers = st.sampled_from("pq")
    sizes = st.sampled_from([1, 7, 100, 100_000])

    @rule(producer=producers, lines=st.integers(1, 5), most=sizes)
    def feed(self, producer: str, lines: int, most: int) -> None:
        """Hand over, and send some of it."""
        self.world.hand_over(producer, lines)
        self.world.clients[producer].send(most)

    @rule(producer=producers, most=sizes)
    def send_and_read(self, producer: str, most: int) -> None:
        self.world.clients[producer].send(most)
        self.world.clients[producer].read(most)

    @rule(producer=producers, is_killed=st.booleans())
    def say_hello(self, producer: str, is_killed: bool) -> None:
        """Connect anew, as another process where the one before was killed; what is open is superseded."""
        if is_killed:
            self.world.clients[producer].kill()
        self.world.connect(producer)

    @rule(producer=producers, comes_back=st.booleans())
    def say_bye(self, producer: str, comes_back: bool) -> None:
        """Say bye where all is acked, as a client does that closes; its next life may begin at once."""
        client = self.world.clients[producer]
        if client.is_welcome and not client.unacked:
            self.world.say_bye(client)
            if comes_back:
                self.world.connect(producer)

    @rule(data=st.data(), most=sizes)
    def deliver(self, data: st.DataObject, most: int) -> None:
        if self.world.wires:
            data.draw(st.sampled_from(self.world.wires)).deliver(most)

    @rule(steps=st.integers(1, 8))
    def run_the_actor(self, steps: int) -> None:
        for _ in range(steps):
            self.world.store.step_actor()

    @rule(steps=st.integers(1, 8), decodes=st.booleans())
    def run_the_loop(self, steps: int, decodes: bool) -> None:
        for _ in range(steps):
            self.world.store.step_loop()
        if decodes:
            self.world.store.step_background()

    @rule()
    def run_while_the_journal_stalls(self) -> None:
        self.world.run(commits=False)

    @rule()
    def run_all(self) -> None:
        self.world.run()

    @rule(entries=st.integers(0, 4))
    def commit(self, entries: int) -> None:
        self.world.journal.commit(entries)

    @rule(is_rare=st.integers(0, 3))
    def kill_the_store(self, is_rare: int) -> None:
        if not is_rare:
            self.world.restart()

    @invariant()
    def nothing_is_lost_or_counts_twice(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.end()


TestOrders = Orders.TestCase
TestOrders.settings = settings(max_examples=300, stateful_step_count=60)


def test_what_was_put_off_is_written_once_though_the_other_end_reads_after_the_close() -> None:
    world = World()
    world.connect("p")
    world.run()
    wire = world.wires[0]
    wire.close = lambda: None  # type: ignore[method-assign]  # asyncio takes more until all is written
    wire.end.pause_writing()
    wire.end.write_pieces([b'{"answer":', b"1}\n"])
    wire.end.supersede()
    wire.end.resume_writing()
    said = wire.receive(1000)
    assert said.count(b'{"answer":1}\n') == 1
    assert said.count(b"superseded") == 1
