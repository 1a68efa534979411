"""Peers that mean harm, or know no better: none of them stops, slows, fills or fools a store.

The store is a process of its own here, so that its memory, its descriptors and
its computing time can be looked at from outside. The limits are generous: they
tell what is bounded from what is not.
"""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import pytest

from actorstore import ProducerSupersededError, RemoteStore, address, connect
from actorstore.errors import RefusedError
from actorstore.handshake import shake_hands
from actorstore.protocol import ClientReader
from tests.builders import line, orch_started, unit_queued, units
from tests.chaos import greedy
from tests.chaos.daemon import Daemon
from tests.chaos.producer import witnessed
from tests.chaos.record import Record, find
from tests.raw import Raw, folder
from tests.threads import SECONDS, results, spawn, wait_until

SEED = int(os.environ.get("CHAOS_SEED", "1"))

MIB = 1 << 20

GOOD = b'{"type":"anything"}\n'
BAD = b"x\n"
HELLO = b'{"hello":{"protocol":1}}\n'


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as made:
        yield made


@pytest.fixture
def daemon(place: Path) -> Iterator[Daemon]:
    with Daemon(place / "s", begins=False) as made:
        yield made


def check_service(daemon: Daemon) -> None:
    """The store is alive, and takes lines and answers questions of others as ever."""
    with connect(daemon.path) as store:
        store.handle_lines(GOOD * 100)
        assert store.flush(SECONDS).accepted == 100
        assert store.stats().version >= 100


def open_socket(path: Path) -> socket.socket:
    """Connect, however many others wait to be let in."""
    return address.connect(str(path), SECONDS)


# Garbage.


def garbage(drawn: random.Random) -> bytes:
    """What no client says."""
    hello = b'{"hello":{"producer":"p","protocol":1}}\n'
    return drawn.choice(
        [
            lambda: drawn.randbytes(drawn.randint(1, 300)),
            lambda: drawn.randbytes(drawn.randint(1, 300)) + b"\n",
            lambda: b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
            lambda: b"\0" * drawn.randint(1, 500),
            lambda: b"\n" * drawn.randint(1, 500),
            lambda: b"{" * drawn.randint(1, 3000) + b"\n",
            lambda: b'{"hello":' + b"[" * drawn.randint(1, 3000) + b"\n",
            lambda: hello[: drawn.randint(1, len(hello) - 1)],
            lambda: hello + hello,
            lambda: b'{"hello":{"protocol":2}}\n',
            lambda: b'{"ask":{"id":1,"what":"snapshot"}}\n',
            lambda: b'{"bye":{}}\n' * 3,
            lambda: hello + b'{"ask":{"id":-1}}\n',
            lambda: hello + b'{"ask":{"id":1,"what":"wait"}}\n{"ask":{"id":1,"what":"wait"}}\n',
            lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + drawn.randbytes(200),
            lambda: "\ufeff{}\n".encode(),
            lambda: b"",
        ]
    )()


def test_garbage_openings_by_the_thousand_leave_nothing_behind(daemon: Daemon) -> None:
    drawn = random.Random(SEED)
    print(f"CHAOS_SEED={SEED} repeats it")

    def open_some(number: int) -> None:
        for _ in range(number):
            made = open_socket(daemon.path)
            with made, suppress(ConnectionError):
                made.sendall(garbage(drawn))
                if drawn.random() < 0.3:
                    made.shutdown(drawn.choice((socket.SHUT_WR, socket.SHUT_RDWR, socket.SHUT_RD)))
                if drawn.random() < 0.1:
                    made.settimeout(0.001)
                    with suppress(TimeoutError):
                        made.recv(100)

    open_some(200)
    check_service(daemon)
    descriptors, resident = daemon.descriptors(), daemon.resident()
    open_some(2000)
    check_service(daemon)
    wait_until(lambda: daemon.descriptors() <= descriptors)
    assert daemon.resident() - resident < 20 * MIB
    with connect(daemon.path) as store:
        assert store.stats().connections == 1


def test_a_wrong_protocol_a_late_hello_and_a_bad_question_are_told_once_and_closed(daemon: Daemon) -> None:
    for said, code in [
        (b'{"hello":{"protocol":2}}\n', "wrong_protocol"),
        (b'{"hello":{"protocol":"1"}}\n', "bad_hello"),
        (GOOD + HELLO, "late_hello"),
        (HELLO + HELLO, "late_hello"),
        (HELLO + b'{"ask":7}\n', "bad_ask"),
        (b'{"ask":{"id":1,"what":"stats"}}\n', "no_hello"),
    ]:
        with Raw(daemon.path) as raw:
            raw.send(said + GOOD * 10)
            errors = [message["error"]["code"] for message in raw.rest() if "error" in message]
            assert errors == [code], said
    with connect(daemon.path) as store:
        assert store.stats().version == 1  # what came before the late hello, and nothing of what came after
    check_service(daemon)


# Half-open and slow ones.


def test_peers_that_close_one_direction_or_vanish_leave_nothing_behind(daemon: Daemon) -> None:
    check_service(daemon)
    descriptors = daemon.descriptors()
    for _ in range(50):
        for said in (b"", GOOD[:5], GOOD, HELLO, HELLO + GOOD[:5]):
            for how in (socket.SHUT_WR, socket.SHUT_RD, None):
                with open_socket(daemon.path) as made, suppress(ConnectionError):
                    made.sendall(said)
                    if how is not None:
                        made.shutdown(how)
    check_service(daemon)
    wait_until(lambda: daemon.descriptors() <= descriptors)


def test_one_that_listens_no_more_is_still_heard(daemon: Daemon) -> None:
    with open_socket(daemon.path) as made:
        made.shutdown(socket.SHUT_RD)
        made.sendall(GOOD * 1000)
    with connect(daemon.path) as store:
        wait_until(lambda: store.stats().version == 1000)


def test_bytes_that_come_one_at_a_time_are_the_same_lines_and_delay_nobody(daemon: Daemon) -> None:
    said = b'{"hello":{"producer":"slow","protocol":1}}\n' + GOOD + BAD + b"\n" + line(unit_queued("\u00e9"))
    with Raw(daemon.path) as raw:
        for place in range(len(said)):
            raw.send(said[place : place + 1])
            if place % 40 == 0:
                check_service(daemon)
        assert raw.read()["welcome"]["lines"] == 0
        messages = raw.acked(4)
    assert [message["reject"]["line"] for message in messages if "reject" in message] == [2]


def test_lines_over_the_limit_are_counted_and_rejected_and_the_connection_goes_on(place: Path) -> None:
    with Daemon(place / "s", begins=False, max_line_bytes=1000) as daemon:
        resident = daemon.resident()
        with Raw(daemon.path) as raw:
            raw.hello()
            raw.send(GOOD + b"x" * 30 * MIB + b"\n" + GOOD + b"y" * 1000 + b"\n" + GOOD)
            messages = raw.acked(5)
            rejected = [message["reject"] for message in messages if "reject" in message]
            assert [reject["line"] for reject in rejected] == [2, 4]
            assert all("1,000" in reject["reason"] or "1000" in reject["reason"] for reject in rejected)
            assert raw.asked(1, "stats")["stats"]["accepted"] == 3
            with Raw(daemon.path) as endless:
                endless.send(b"z" * 30 * MIB)  # it never ends
                check_service(daemon)
                assert daemon.resident() - resident < 20 * MIB


# Ones that do not read.


def test_one_that_never_reads_its_acks_is_not_read_and_costs_little(daemon: Daemon) -> None:
    check_service(daemon)
    resident = daemon.resident()
    with Raw(daemon.path) as raw:
        raw.say(hello={"protocol": 1, "producer": "deaf"})
        sent = raw.fill(BAD * 100_000)  # each is told why, at forty times its length
        check_service(daemon)
        assert sent < 20 * MIB
        assert daemon.resident() - resident < 100 * MIB
    with Raw(daemon.path) as raw:  # what was read of it counts, told or not
        assert 0 < raw.hello("deaf")["lines"] <= sent // len(BAD)
    check_service(daemon)


def test_one_that_asks_thousands_of_questions_and_reads_no_answer_costs_little(daemon: Daemon) -> None:
    with connect(daemon.path) as store:
        store.handle_event(orch_started(units(*(f"unit-{number}" for number in range(5000)))))
        answer = len(store.snapshot().json())
        resident = daemon.resident()
        with Raw(daemon.path) as raw:
            raw.say(hello={"protocol": 1})
            raw.send(b"".join(b'{"ask":{"id":%d,"what":"snapshot"}}\n' % number for number in range(1000)))
            wait_until(lambda: store.stats().pending == 0)
            with suppress(TimeoutError):
                raw.fill(b'{"ask":{"id":1,"what":"stats"}}\n')
            check_service(daemon)
            assert daemon.resident() - resident < 100 * answer < 100 * MIB
    check_service(daemon)


def test_one_that_asks_for_a_large_run_and_reads_no_answer_costs_little(daemon: Daemon) -> None:
    greedy.begin_large_run(daemon, 30_000)
    with Raw(daemon.path) as other:
        other.hello()
        resident = daemon.resident()
        with greedy.deaf_reader(daemon):
            check_service(daemon)
            update = other.asked(1, "update", run=greedy.LARGE)["update"]  # whose turn is behind theirs
            answer = len(msgspec.json.encode(update))
            assert daemon.resident() - resident < 20 * answer < 100 * MIB
    check_service(daemon)


def test_producers_of_garbage_leave_others_their_turn(daemon: Daemon) -> None:
    """For each line that is acked, not so many are looked at that are refused."""
    acked = 20
    with ExitStack() as stack:
        for said in greedy.REFUSED_LINES:
            stack.enter_context(greedy.garbage(daemon, said))
        with Raw(daemon.path) as raw:
            raw.hello()
            before = raw.asked(1, "stats")["stats"]["rejected"]
            for number in range(1, acked + 1):
                raw.send(GOOD).acked(number)
            refused = raw.asked(2, "stats")["stats"]["rejected"] - before
    print(f"{refused / acked:,.0f} lines were refused for each that was acked")
    assert refused < acked * 100_000
    check_service(daemon)


def test_many_that_neither_say_nor_read_anything_cost_little_and_delay_nobody(daemon: Daemon) -> None:
    check_service(daemon)
    resident = daemon.resident()
    with ExitStack() as stack:
        for said in (b"", b'{"type":', HELLO) * 160:
            stack.enter_context(open_socket(daemon.path)).sendall(said)
        check_service(daemon)
        assert daemon.resident() - resident < 480 * 60 * 1024


# Descriptors.


def test_a_store_without_descriptors_serves_those_it_has_idles_and_lets_others_in_later(place: Path) -> None:
    with Daemon(place / "s", begins=False, descriptors=64) as daemon:
        with ExitStack() as crowd, ExitStack() as patient, Raw(daemon.path) as old:
            old.hello()
            old.send(GOOD).acked(1)
            for _ in range(150):
                crowd.enter_context(open_socket(daemon.path)).sendall(HELLO)
            waiting = [patient.enter_context(open_socket(daemon.path)) for _ in range(50)]
            for made in waiting:
                made.sendall(HELLO)
            wait_until(lambda: daemon.descriptors() >= 64)
            old.send(GOOD * 99).acked(100)
            before, logged = daemon.cpu(), len(daemon.log())
            time.sleep(1.5)  # idleness has to last a while to be seen
            assert daemon.cpu() - before < 0.5
            assert len(daemon.log()) - logged < 100_000
            old.send(GOOD * 100).acked(200)
            crowd.close()
            assert all(made.recv(1000).startswith(b'{"welcome"') for made in waiting)
            old.send(GOOD * 100).acked(300)
        check_service(daemon)


# Two holders of one id.


def test_a_remote_store_whose_id_is_taken_raises_and_does_not_come_back(daemon: Daemon, place: Path) -> None:
    record = Record(place / "r")
    with RemoteStore(daemon.path) as second:
        first = witnessed(RemoteStore(daemon.path), record, "same")
        first.handle_lines(GOOD * 10)
        assert first.flush(SECONDS).accepted == 10
        witnessed(second, Record(place / "q"), "same").handle_lines(GOOD * 5)
        assert second.flush(SECONDS).accepted == 5

        def is_told() -> bool:
            try:
                first.handle_lines(GOOD)
            except ProducerSupersededError:
                return True
            return False

        wait_until(is_told)
        for call in (first.snapshot, first.stats, first.flush):
            with pytest.raises(ProducerSupersededError):
                call()
        second.handle_lines(GOOD * 5)
        assert second.flush(SECONDS).accepted == 10
        assert second.stats().version == 20
        assert len(find(place / "r", "welcome")) == 1
        with suppress(ProducerSupersededError):
            first.close()


def test_two_that_fight_for_one_id_lose_and_double_no_line(daemon: Daemon) -> None:
    counted = 0
    for number in range(1, 40):
        with Raw(daemon.path) as raw:
            welcome = raw.hello("same")
            assert welcome["lines"] >= counted
            counted = welcome["lines"]
            raw.send(GOOD * 30)
            if number % 3:
                counted += 30
                raw.acked(counted)
            other = Raw(daemon.path)
            with other:
                assert other.hello("same")["lines"] >= counted
                assert raw.rest()[-1]["error"]["code"] == "superseded"
    with Raw(daemon.path) as raw:
        lines = raw.hello("same")["lines"]
        assert raw.asked(1, "stats")["stats"]["version"] == lines


def test_what_a_superseded_one_goes_on_writing_is_dropped_and_counts_for_nobody(daemon: Daemon) -> None:
    def flood(raw: Raw) -> None:
        with suppress(OSError):
            for _ in range(100):
                raw.send((GOOD * 5000) + b'{"type":"' + b"x" * 100_000 + b'"}\n')

    for _ in range(5):
        with Raw(daemon.path) as first, Raw(daemon.path) as second:
            before = first.hello("same")["lines"]
            flooding = spawn(flood, first)
            first.acked(before + 1)
            taken = second.hello("same")["lines"]
            results([flooding])
            second.send(GOOD * 10)
            assert second.acked(taken + 10)[-1]["ack"]["lines"] == taken + 10


def test_a_refusal_is_heard_though_the_store_has_hung_up_before_the_hello_was_written() -> None:
    """As it is with one of another user, who is refused without being asked."""
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b'{"error":{"code":"forbidden","message":"this store is user 0\'s alone"}}\n')
        there.close()
        with pytest.raises(RefusedError, match="alone"):
            shake_hands(here, ClientReader(), "p", "path")


# Other users, and what they would have a terminal do.


def as_nobody(path: Path, said: bytes) -> str:
    """Connect as somebody else, say something, and return what is heard."""
    code = """
import contextlib, os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
made = socket.socket(socket.AF_UNIX)
try:
    made.connect(sys.argv[1])
    with contextlib.suppress(BrokenPipeError):
        made.sendall(sys.stdin.buffer.read())
    while data := made.recv(1000):
        print(data.decode())
except OSError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(
        command, input=said, stdout=subprocess.PIPE, timeout=SECONDS, check=True
    ).stdout.decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused_though_the_files_let_them_in(daemon: Daemon, place: Path) -> None:
    assert "Permission denied" in as_nobody(daemon.path, HELLO)
    place.chmod(0o755)
    daemon.path.chmod(0o666)
    assert '"forbidden"' in as_nobody(daemon.path, b"")
    for said in (HELLO, GOOD, HELLO + b'{"ask":{"id":1,"what":"stats"}}\n'):
        heard = as_nobody(daemon.path, said)
        assert "welcome" not in heard
        assert "answer" not in heard
    with connect(daemon.path) as store:
        assert store.stats().version == 0
    wait_until(lambda: "user 65534" in daemon.log())
    check_service(daemon)


def test_no_escape_sequence_of_a_peer_reaches_the_log(daemon: Daemon) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\x00"
    shown = evil.encode("unicode_escape")
    with Raw(daemon.path) as raw:
        raw.hello(f"p{evil}")
        raw.send(b'{"type":"","unit":"' + evil.encode() + b'"}\n')
        raw.send(b'{"type":"unit.queued","task":"' + evil.encode() + b'"}\n')
        raw.send(evil.encode() + b"\nforged WARNING line\n")
        raw.ask(1, evil)
        raw.ask(2, "snapshot", run=evil)
        told = raw.acked(4)
        told += [dict(raw.answer(2))]
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", "".join(map(str, told)))
    wait_until(lambda: "rejected" in daemon.log())
    assert daemon.stop() == 0
    log = daemon.log()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", log)
    assert not [text for text in log.split("\n") if text.startswith("forged")], shown


# All of them at once.


def test_an_honest_producer_among_all_of_them_loses_nothing(daemon: Daemon) -> None:
    print(f"CHAOS_SEED={SEED} repeats it")

    def harm(seed: int) -> int:
        drawn = random.Random(seed)
        for _ in range(100):
            # So many may wait to be let in that one is not; and a busy store does not read at once.
            with suppress(OSError), open_socket(daemon.path) as made:
                made.settimeout(0.01)
                for _ in range(drawn.randint(1, 4)):
                    made.sendall(garbage(drawn))
        return 100

    harming = [spawn(harm, SEED * 10 + number) for number in range(3)]
    with connect(daemon.path) as store:
        for _ in range(50):
            store.handle_lines((GOOD + BAD) * 20)
        result = store.flush(SECONDS)
        assert (result.accepted, result.rejected) == (1000, 1000)
    assert sum(results(harming)) == 300
    check_service(daemon)
