"""Events of unknown units: which are kept, what the log says of them, and whose they are after a restart."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from actorstore import Event, FlushResult, RemoteStore, Store, compaction, throttle
from actorstore.batch import NOBODY, unpack
from actorstore.cli import main
from actorstore.journal import Journal, NoRoomError
from actorstore.keeper import Entry
from actorstore.state import Unknown
from actorstore.unknown import KEPT_UNKNOWN, UnknownUnits
from actorstore.writer import Writer
from tests.builders import line, orch_started, unit_queued, unit_started, units
from tests.raw import Raw, folder
from tests.threads import SECONDS, wait_until

GOOD = line(unit_queued("a"))
STRAY = line(unit_started("nobody"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock that limits the log; it goes only where a test moves it."""
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(throttle, "time", clock)
    return clock


def found(*units: str) -> list[Unknown]:
    return [(number, Event("unit.started", unit=unit, run="r"), True) for number, unit in enumerate(units)]


def test_one_a_second_is_logged_and_says_how_many_were_not(
    clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = UnknownUnits()
    unknown.add(found("a", "b", "c"))
    unknown.add(found("d"))
    clock.now += 0.9
    unknown.add(found("e", "f"))
    clock.now += 0.2
    unknown.add(found("g", "h"))
    clock.now += 1
    unknown.add(found("i"))
    text = "unit.started changed nothing: run 'r' has no unit "
    assert caplog.messages == [
        f"{text}'c' (2 more before it were not logged)",
        f"{text}'h' (4 more before it were not logged)",
        f"{text}'i'",
    ]
    assert {(record.name, record.levelno) for record in caplog.records} == {("actorstore", logging.WARNING)}


def test_the_last_few_are_kept() -> None:
    unknown = UnknownUnits()
    unknown.add(found("a", "b"))
    assert [each.unit for each in unknown.last()] == ["a", "b"]
    units = [str(number) for number in range(100)]
    unknown.add(found(*units))
    assert [each.unit for each in unknown.last()] == units[-KEPT_UNKNOWN:]


def test_what_is_logged_is_one_short_line_whatever_the_event_says(caplog: pytest.LogCaptureFixture) -> None:
    for has_run in (True, False):
        unknown = UnknownUnits()
        unknown.add([(1, Event("unit.started", unit="\x1b\n" * 300, run="\u202e" * 300), has_run)])
    assert len(caplog.messages) == 2
    for message in caplog.messages:
        assert len(message) < 300
        assert message.isprintable()


def test_a_handler_of_the_log_that_fails_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            raise OSError("no space left on device")

    monkeypatch.setattr(logging.getLogger("actorstore"), "handlers", [Failing()])
    unknown = UnknownUnits()
    unknown.add(found("a"))
    assert len(unknown.last()) == 1


# With a journal: whose they are is found again in the events.


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as made:
        yield made


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Whether the disk is full: then what comes in gathers, and is one batch once it is not."""
    full = SimpleNamespace(now=False, tries=0)
    real = Journal.append

    def append(journal: Journal, *args: object) -> object:
        if full.now:
            full.tries += 1
            raise NoRoomError("no space left on the device")
        return real(journal, *args)

    monkeypatch.setattr(Journal, "append", append)
    return full


def stall(store: Store, full: SimpleNamespace) -> None:
    """Have the writer wait for room, so that all that comes from now on is one batch."""
    full.now, tries = True, full.tries
    store.handle_event(unit_queued("a"))
    wait_until(lambda: full.tries > tries)


def counted(place: Path) -> dict[str, tuple[int, int, int]]:
    """What a store that is opened again tells producers of their lines."""
    told = {}
    with Store(journal=place / "j", listen=place / "s"):
        for producer in "pq":
            with Raw(place / "s") as raw:
                welcome = raw.hello(producer)
                told[producer] = welcome["lines"], welcome["rejected"], welcome.get("unknown", 0)
    return told


def check(place: Path) -> int:
    return main(["journal", "check", str(place / "j")])


def feed_at_random(
    place: Path, full: SimpleNamespace, drawn: random.Random
) -> dict[str, tuple[int, int, int]]:
    """Feed a store from here and from two producers, some of it in batches that hold all three's lines."""
    made: dict[str, Counter[bytes]] = {"p": Counter(), "q": Counter()}
    with (
        Store(journal=place / "j", listen=place / "s") as store,
        Raw(place / "s") as p,
        Raw(place / "s") as q,
    ):
        store.handle_event(orch_started(units("a")))
        ends = {"p": p, "q": q}
        for producer, end in ends.items():
            end.hello(producer)
        for _ in range(drawn.randint(1, 4)):
            if drawn.random() < 0.7:
                stall(store, full)
            behind = set()
            for _ in range(drawn.randint(1, 12)):
                who = drawn.choice("pqh")
                said = drawn.choices([GOOD, STRAY, b"bad\n", b"\n"], [4, 4, 1, 1], k=drawn.randint(1, 5))
                if who == "h":
                    if drawn.random() < 0.5:
                        store.handle_lines(b"".join(said))
                    else:
                        store.handle_event(drawn.choice([unit_queued("a"), unit_queued("nobody")]))
                    continue
                before = made[who].total()
                made[who].update(said)
                ends[who].send(b"".join(said))
                if full.now:
                    behind.add(who)
                else:
                    ends[who].acked(before + len(said))
            full.now = False
            for who in behind:
                ends[who].acked(made[who].total())
    return {who: (lines.total(), lines[b"bad\n"], lines[STRAY]) for who, lines in made.items()}


@pytest.mark.parametrize("dense", [False, True])
def test_each_producer_has_its_own_unknown_units_back_after_a_restart(
    place: Path, full: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, dense: bool
) -> None:
    if dense:
        monkeypatch.setattr(Writer, "wants_checkpoint", lambda self: not self._keeps)
    mixed = 0
    for seed in range(15):
        with folder() as made:
            expected = feed_at_random(made, full, random.Random(seed))
            journal = Journal(made / "j")
            for batch in journal.batches(0):
                mixed += NOBODY in [step.producer for step in unpack(batch.steps)]
            journal.close()
            for _ in range(2):
                assert counted(made) == expected, seed
            assert check(made) == 0
    assert mixed  # or this has tried nothing: some 30 of these batches hold events of producers and from here


def test_a_client_goes_on_counting_unknown_units_over_a_restart_of_its_store(place: Path) -> None:
    with RemoteStore(place / "s") as remote:
        for number in range(1, 4):
            with Store(journal=place / "j", listen=place / "s") as store:
                store.handle_lines(STRAY)
                remote.handle_lines(STRAY * 2 + GOOD + b"bad\n")
                assert remote.flush(SECONDS) == FlushResult(3 * number, number, 3 * number)
                assert store.flush(SECONDS) == FlushResult(1, 0, 1)
                assert store.stats().unknown_units == 4 * number


def test_what_a_journal_says_of_unknown_units_is_not_said_again(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(journal=place / "j") as store:
        store.handle_lines(STRAY)
        store.flush()
    assert len(caplog.messages) == 1
    with Store(journal=place / "j") as store:
        store.snapshot(at=1)
        stats = store.stats()
    assert (stats.unknown_units, stats.last_unknown) == (1, ())
    assert len(caplog.messages) == 1


# Journals of older versions, which did not count them for each producer.


def test_what_an_older_batch_does_not_tell_apart_is_counted_for_nobody(
    place: Path, full: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        steps = Entry.steps
        older.setattr(Entry, "steps", lambda self: steps(self) if self.account.producer else ())
        with Store(journal=place / "j", listen=place / "s") as store, Raw(place / "s") as raw:
            raw.hello("p")
            raw.send(STRAY).acked(1)
            stall(store, full)
            store.handle_event(unit_queued("a"))
            raw.send(STRAY)
            wait_until(lambda: store.stats().pending == 3)
            tries = full.tries
            wait_until(lambda: full.tries > tries + 2)  # so the writer has gathered both meanwhile
            full.now = False
            raw.acked(2)
    assert counted(place)["p"] == (2, 0, 1)
    with Store(journal=place / "j", listen=place / "s") as store, Raw(place / "s") as raw:
        raw.hello("p")
        assert raw.send(STRAY).acked(3)[-1] == {"ack": {"lines": 3, "unknown": 2}}
    assert counted(place)["p"] == (3, 0, 2)
    assert check(place) == 0


def test_a_journal_with_checkpoints_of_an_older_version_and_of_this_one_is_whole(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Writer, "wants_checkpoint", lambda self: not self._keeps)
    with monkeypatch.context() as older:
        older.setattr(
            compaction, "pack_counts", lambda counts: msgspec.msgpack.encode([each[:4] for each in counts])
        )
        feed_p(place, 0, 3)
    feed_p(place, 3, 6)
    assert check(place) == 0
    assert "is whole" in capsys.readouterr().out
    lines, _, unknown = counted(place)["p"]
    assert lines == 6
    assert 3 <= unknown <= 6  # those before the last checkpoint of the older version are lost


def test_a_checkpoint_that_counts_more_unknown_units_than_there_were_is_found(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Writer, "wants_checkpoint", lambda self: not self._keeps)
    real = compaction.pack_counts
    with monkeypatch.context() as lying:
        lying.setattr(
            compaction,
            "pack_counts",
            lambda counts: real([each._replace(unknown_units=each.unknown_units + 1) for each in counts]),
        )
        feed_p(place, 0, 3)
    assert check(place) == 74
    assert "is not what the batches before it make" in capsys.readouterr().err


def feed_p(place: Path, first: int, last: int) -> None:
    """Have a producer send events of unknown units, one a batch, with a checkpoint behind most."""
    with Store(journal=place / "j", listen=place / "s") as store, Raw(place / "s") as raw:
        raw.hello("p")
        for number in range(first, last):
            raw.send(STRAY).acked(number + 1)
            writer = store._writer
            assert writer is not None
            wait_until(lambda writer=writer: not writer._keeps)
