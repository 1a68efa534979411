"""What holds when processes are killed, frozen, restarted and cut off; a separate program judges it.

Each test plays a scenario of `tests.chaos` and has its checker read what
producers and readers wrote down. `CHAOS_SEED` plays another one, and
`make soak` plays all of them for as long as one likes.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from actorstore import AddressError, SocketInUseError, Store, connect
from tests.chaos.checker import Verdict, judge
from tests.chaos.daemon import Daemon
from tests.chaos.process import environment
from tests.chaos.record import Record
from tests.chaos.scenarios import (
    Scene,
    bad_way,
    frozen_producers,
    frozen_reader,
    frozen_store,
    greedy_peers,
    killed_heirs,
    killed_producers,
    killed_stores,
    leave_over,
    restarts,
    scene,
    stalled_journal,
    twice_told,
    two_holders,
    two_stores,
)
from tests.chaos.script import kind, units
from tests.raw import Raw, folder
from tests.threads import ROOT, SECONDS, spawn

SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as made:
        yield made


def play(scenario: Callable[[Scene], Verdict], seed: int = SEED) -> Counter[str]:
    """Play a scenario, have it judged, and return what happened."""
    with scene(seed) as made:
        verdict = scenario(made)
        print(verdict)
        assert not verdict.broken, "\n".join(verdict.broken)
        return made.happened


# Producers and readers.


def test_killed_producers_lose_nothing_acked_double_nothing_and_harm_nobody() -> None:
    assert play(killed_producers)["kill"] == 20


def test_killed_producers_with_spools_leave_all_that_they_handed_over_to_the_next() -> None:
    assert play(killed_heirs)["kill"] > 10


def test_half_a_line_of_a_killed_producer_is_no_event(place: Path) -> None:
    code = """
import os, signal, socket, sys
made = socket.socket(socket.AF_UNIX)
made.connect(sys.argv[1])
made.sendall(b'{"hello":{"producer":"p","protocol":1}}\\n{"type":"unit.added","unit":"whole"}\\n{"type":"unit.added"')
while b'"ack"' not in made.recv(1000):
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""
    with Daemon(place / "s"):
        killed = subprocess.run([sys.executable, "-c", code, str(place / "s")], timeout=SECONDS, check=False)
        assert killed.returncode == -signal.SIGKILL
        with Raw(place / "s") as raw:
            assert raw.hello("p")["lines"] == 1
            raw.send(b',"unit":"b"}\n').acked(2)  # what it would have been the end of
        with connect(place / "s") as store:
            assert [unit.id for unit in store.snapshot().units] == ["whole"]
            assert store.stats().rejected == 1


def test_a_frozen_producer_holds_up_nobody_and_goes_on_where_it_was() -> None:
    assert play(lambda made: frozen_producers(made, freezes=4))["freeze"]


def test_a_producer_frozen_in_the_middle_of_a_line_finishes_it_later(place: Path) -> None:
    with Daemon(place / "s") as daemon, Raw(place / "s") as slow, connect(place / "s") as store:
        slow.hello()
        slow.send(b'{"type":"unit.added","unit":"sl')
        store.handle_lines(b'{"type":"unit.added","unit":"quick"}\n')
        assert store.flush(SECONDS).accepted == 1
        slow.send(b'ow"}\n').acked(1)
        assert [unit.id for unit in store.snapshot().units] == ["quick", "slow"]
        assert daemon.code() is None


def test_a_frozen_reader_holds_up_nobody_and_gets_what_it_missed_as_one_update() -> None:
    assert play(frozen_reader)["freeze"]


# Greedy peers.


def test_greedy_peers_take_nothing_from_others_and_leave_the_store_small() -> None:
    assert play(lambda made: greedy_peers(made, rounds=1, units=5000))["greed"]


# The store.


def test_a_store_that_is_killed_twenty_times_has_lost_and_doubled_nothing() -> None:
    assert play(killed_stores)["kill"] == 20


def test_producers_that_come_back_to_a_stalled_journal_lose_and_double_nothing() -> None:
    assert play(stalled_journal)["stalled"]


@pytest.mark.parametrize(
    "bug", ["ack_before_commit", "dedupe_after_ack", "resume_off_by_one", "dropped_update"]
)
def test_a_bug_that_is_planted_is_found(bug: str) -> None:
    """What makes the tests above worth something."""
    with scene(SEED) as made:
        try:
            broken = killed_stores(made, kills=4, points=("",), bug=bug, lines=1200).broken
        except (AssertionError, subprocess.TimeoutExpired) as error:
            broken = [str(error)]
    print(broken)
    assert broken


def test_a_store_that_was_frozen_has_lost_and_doubled_nothing() -> None:
    assert play(frozen_store)["freeze"]


def test_a_producer_that_gave_up_on_a_frozen_store_is_not_superseded_by_its_own_former_tries(
    place: Path,
) -> None:
    """Each try leaves a connection with a hello in the queue, and all of them are let in at once."""
    code = """
import sys
from actorstore import RemoteStore, link
link.WELCOME_SECONDS = 0.02
with RemoteStore(sys.argv[1]) as store:
    store.handle_lines(b'{"type":"unit.added","unit":"a"}\\n' * 100)
    print("handed over", flush=True)
    print(store.flush().accepted, flush=True)
"""
    with Daemon(place / "s") as daemon:
        daemon.freeze()
        command = [sys.executable, "-c", code, str(place / "s")]
        producer = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE)
        with producer:
            assert producer.stdout is not None
            producer.stdout.readline()
            time.sleep(0.5)  # time for a dozen tries, which nothing outside can see
            daemon.thaw()
            assert producer.stdout.read() == b"100\n"
        assert daemon.code() is None


def test_five_hundred_may_knock_while_a_store_is_frozen(place: Path) -> None:
    with Daemon(place / "s") as daemon:
        daemon.freeze()
        knocking: list[Raw] = []
        try:
            while len(knocking) < 500:
                knocking.append(Raw(place / "s"))  # at once, or not at all
            daemon.thaw()
            assert {raw.hello()["lines"] for raw in knocking} == {0}
        finally:
            daemon.thaw()
            for raw in knocking:
                raw.close()


def test_producers_go_from_one_store_to_the_next_and_the_last_has_all_that_was_not_acked() -> None:
    assert play(lambda made: restarts(made, number_of=2))["term"]


def test_a_store_told_to_end_twice_under_load_ends_once_in_time_and_leaves_no_file() -> None:
    assert play(twice_told)["term"] == 2


def test_a_store_told_to_end_acks_what_was_on_its_way(place: Path) -> None:
    with Daemon(place / "s") as daemon, Raw(place / "s") as raw:
        raw.hello()
        raw.send(b'{"type":"anything"}\n' * 1000)
        assert daemon.stop() == 0
        assert [message["ack"]["lines"] for message in raw.rest() if "ack" in message][-1] == 1000


# The way.


@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_a_way_that_cuts_loses_acks_and_delivers_late_loses_and_doubles_nothing(seed: int) -> None:
    happened = play(lambda made: bad_way(made, lines=1000), seed)
    assert sum(happened.values()) > 5


@pytest.mark.parametrize("kinds", [("remote", "raw"), ("raw", "remote"), ("remote", "remote")])
def test_the_first_holder_of_an_id_gives_up_for_good_and_no_acked_line_of_either_is_lost(
    kinds: tuple[str, str],
) -> None:
    assert play(lambda made: two_holders(made, kinds))["superseded"]


# The socket.


def test_of_two_stores_started_together_one_wins_and_the_other_is_told_who() -> None:
    assert play(two_stores)["race"] == 50


def test_one_who_comes_between_lock_and_socket_of_another_is_told_who_that_is(place: Path) -> None:
    path = place / "s"
    leave_over(path)
    lock = os.open(path.with_name("s.lock"), os.O_RDWR)
    with closing_descriptor(lock), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Store(listen=place / "other").close()  # so that all is imported
        second = spawn(lambda: Store(listen=path))
        with suppress(TimeoutError):
            second.exception(0.1)  # it has found the lock taken by now; if it is late, the test is easier
        os.ftruncate(lock, 0)
        os.write(lock, b"%d" % os.getpid())
        path.unlink()
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(SocketInUseError) as caught:
            second.result(SECONDS)
        assert caught.value.owner == os.getpid()


@contextmanager
def closing_descriptor(descriptor: int) -> Iterator[None]:
    """Close it in the end."""
    try:
        yield
    finally:
        os.close(descriptor)


def test_what_a_killed_store_left_is_replaced_by_the_next_one(place: Path) -> None:
    with Daemon(place / "s") as killed:
        killed.kill()
    assert sorted(path.name for path in place.glob("s*") if path.suffix != ".log") == ["s", "s.lock"]
    with Store(listen=place / "s") as store, connect(place / "s") as remote:
        remote.handle_lines(b'{"type":"anything"}\n')
        assert remote.flush(SECONDS).accepted == 1
        assert store.stats().version == 1
    assert [path.name for path in place.iterdir()] == ["s.log"]


def test_a_live_store_is_not_stolen_by_one_that_finds_files_like_left_over_ones(place: Path) -> None:
    leave_over(place / "s")
    with Daemon(place / "s") as daemon:
        with pytest.raises(SocketInUseError) as caught:
            Store(listen=place / "s")
        assert caught.value.owner == daemon.pid
        assert daemon.is_up()


def test_a_store_is_for_its_user_alone_whatever_the_umask(place: Path) -> None:
    with Daemon(place / "s", umask=0):
        assert mode(place / "s") == 0o600
        assert mode(place / "s.lock") == 0o600


def mode(path: Path) -> int:
    """The permissions of a file."""
    return path.lstat().st_mode & 0o777


@pytest.mark.parametrize("what", ["symlink", "file", "directory", "too long"])
def test_what_is_in_the_way_of_a_store_is_refused_and_not_touched(place: Path, what: str) -> None:
    target, path = place / "target", place / "s"
    target.write_text("precious")
    match what:
        case "symlink":
            path.symlink_to(target)
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case _:
            path = place / ("s" * 120)
    before = {entry.name: entry.lstat().st_ino for entry in place.iterdir()}
    with pytest.raises(AddressError, match=path.name):
        Store(listen=path)
    assert {entry.name: entry.lstat().st_ino for entry in place.iterdir()} == before
    assert target.read_text() == "precious"


# The checker.


def judged(place: Path, *records: list[list[object]], **final: object) -> list[str]:
    """Which promises are broken, of a store that says this last."""
    for path in place.glob("*.record"):
        path.unlink()
    for number, entries in enumerate(records):
        record = Record(place / f"{number}.record")
        for entry in entries:
            record.write(*entry)
    final = {"store": "s", "version": 1, "others": 1, "runs": [""], "units": [], "digest": "d"} | final
    (place / "final.json").write_text(json.dumps(final))
    return sorted({why.partition(":")[0] for why in judge(place).broken})


NUMBERS = [number for number in range(1, 41) if kind("p", number) == "event"]
STATE = [[f"p/{place}", attempts] for place, attempts in units("p", 0, 40).items()]
FED: list[list[object]] = [["is", "p", "remote", "units"], ["welcome", "s", 0], ["hand", 40], ["ack", 40]]


def test_the_checker_finds_nothing_where_nothing_is_wrong(place: Path) -> None:
    assert judged(place, FED, units=STATE, version=1 + len(NUMBERS)) == []


def test_the_checker_finds_what_is_lost_doubled_misplaced_and_made_up(place: Path) -> None:
    def broken(state: list[list[object]], more: int = 0) -> list[str]:
        return judged(place, FED, units=state, version=1 + len(NUMBERS) + more)

    assert broken(STATE[:-1]) == ["G1"]
    assert broken([*STATE[:4], *STATE[5:]]) == ["G1"]
    assert broken([[STATE[0][0], STATE[0][1] + 1], *STATE[1:]]) == ["G2"]  # type: ignore[operator]
    assert broken([STATE[1], STATE[0], *STATE[2:]]) == ["G3"]
    assert broken([*STATE, ["p/99", 1]]) == ["G2"]
    assert broken(STATE, more=1) == ["G4"]


def test_the_checker_finds_versions_that_go_back_and_updates_that_do_not_add_up(place: Path) -> None:
    reads: list[list[object]] = [["reads", "r"], ["welcome", "s", 0], ["saw", 7], ["saw", 7]]
    assert judged(place, [*reads, ["end", 7, "d", "d", "d"]]) == []
    assert judged(place, [*reads, ["saw", 6]]) == ["G4"]
    assert judged(place, [*reads[:3], ["welcome", "t", 0], ["saw", 1]]) == []
    assert judged(place, [*reads, ["end", 7, "d", "e", "d"]]) == ["G5"]


def test_the_checker_finds_a_snapshot_without_what_was_acked(place: Path) -> None:
    last = max(units("p", 0, 40))
    assert judged(place, [*FED, ["held", 40, 9, last]], units=STATE, version=1 + len(NUMBERS)) == []
    held = [*FED, ["held", 40, 9, last - 1]]
    assert judged(place, held, units=STATE, version=1 + len(NUMBERS)) == ["G6"]


def test_the_checker_finds_rejections_that_nobody_heard_of_and_those_of_good_lines(place: Path) -> None:
    bad = [number for number in range(1, 41) if kind("p", number) == "bad"]
    begins: list[list[object]] = [["is", "p", "raw", "units"], ["welcome", "s", 0], ["hand", 40]]
    told: list[list[object]] = [["reject", number] for number in bad]
    assert bad
    good = {"units": STATE, "version": 1 + len(NUMBERS)}
    assert judged(place, [*begins, *told, ["ack", 40]], **good) == []
    assert judged(place, [*begins, ["ack", 40]], **good) == ["R"]
    assert judged(place, [*begins, ["ack", 40], *told], **good) == ["R"]
    assert judged(place, [*begins, *told, ["reject", 1], ["ack", 40]], **good) == ["R"]


def test_the_checker_is_a_program_whose_exit_code_says_whether_all_is_well(place: Path) -> None:
    judged(place, FED, units=STATE, version=1 + len(NUMBERS))
    command = [sys.executable, "-m", "tests.chaos.checker", str(place)]
    good = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment()
    )
    assert (good.returncode, good.stdout[:8]) == (0, "checked:")
    judged(place, FED, units=STATE[1:])
    bad = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment()
    )
    assert bad.returncode == 1
    assert "G1: p: " in bad.stdout
