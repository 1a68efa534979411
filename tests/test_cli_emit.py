"""`actorstore emit` as it is called: events from arguments and lines, and what became of them."""

from __future__ import annotations

import codecs
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, NoReturn

import pytest

from actorstore import RemoteStore, Store, StoreTimeoutError
from actorstore.cli import access, main
from tests.builders import line, lines, orch_started, unit_started, units
from tests.raw import folder
from tests.threads import ROOT, SECONDS, python, wait_until


class Outcome(NamedTuple):
    """What a call left behind."""

    code: int
    out: str
    err: str


Emit = Callable[..., Outcome]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that listens where the environment says."""
    with folder() as made, Store(listen=made / "s") as store:
        monkeypatch.setenv("ACTORSTORE_SOCKET", str(store.address))
        yield store


@pytest.fixture
def emit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Emit:
    """Call `actorstore emit`."""

    def call(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        code = main(["emit", *arguments])
        return Outcome(code, *capsys.readouterr())

    return call


OK = Outcome(0, "", "")


# One event.


def test_arguments_make_an_event(store: Store, emit: Emit) -> None:
    graph = '{"graph": {"nodes": [{"id": "a", "tasks": 3}]}}'
    assert emit("orch.started", "--run", "r", "--payload", graph, "--time", "2026-01-02T03:04:05Z") == OK
    assert emit("unit.started", "--run", "r", "--unit", "a", "--pr", "-7") == OK
    assert emit("task.started", "--run", "r", "--unit", "a", "--task", "2") == OK
    assert emit("unit.failed", "--run", "r", "--unit", "a", "--error", "exit code 3") == OK
    snapshot = store.snapshot("r")
    unit = snapshot.unit("a")
    assert (unit.status, unit.current_task, unit.total_tasks, unit.error) == ("failed", 2, 3, "exit code 3")
    assert snapshot.started_at.isoformat() == "2026-01-02T03:04:05+00:00"


def test_an_event_happens_now_unless_told_otherwise(store: Store, emit: Emit) -> None:
    assert emit("orch.started") == OK
    assert store.snapshot().started_at is not None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["unit.started", "--task", "0"], "task: expected `int` >= 1"),
        (["unit.started", "--task", "one"], "invalid int value: 'one'"),
        (["x", "--time", "yesterday"], "time: invalid RFC3339"),
        (["x", "--payload", '{"a":'], "payload: cannot be written as JSON"),
        (["x", "--payload", ""], "payload: expected JSON, got nothing"),
        (["orch.started", "--payload", '{"graph": 3}'], "graph: expected `object | null`, got `int`"),
        (["x", "--unit", "\udcff"], "unit holds half of a surrogate pair"),
        (["", "--unit", "a"], "type: expected `str` of length >= 1"),
        (["unit.started", "--run", "r"], "unit.started is about a unit: say which with --unit ID"),
        (["task.started", "--task", "1"], "task.started is about a unit: say which with --unit ID"),
        (["unit.danced", "--strict"], "unit.danced is about a unit: say which with --unit ID"),
        (["--unit", "a"], "--unit describes one event, whose type must stand before it"),
        (["-", "--task", "1"], "--task describes one event"),
    ],
)
def test_what_would_be_rejected_is_not_even_sent(
    store: Store, emit: Emit, arguments: list[str], reason: str
) -> None:
    code, out, err = emit(*arguments)
    assert (code, out) == (2, "")
    assert reason in err
    assert (store.stats().version, store.stats().rejected) == (0, 0)


def test_an_event_of_an_unknown_unit_is_accepted_and_named_with_its_cure(store: Store, emit: Emit) -> None:
    said = "actorstore: emit: unit.started changed nothing: "
    code, out, err = emit("unit.started", "--run", "r", "--unit", "a")
    assert (code, out) == (0, "")
    assert err == f"{said}no run 'r' has started that could have unit 'a': send orch.started first\n"
    assert emit("orch.started", "--run", "r") == OK
    code, _, err = emit("unit.started", "--run", "r", "--unit", "a\x1b[2J")
    assert (code, err) == (0, f"{said}run 'r' has no unit 'a\\x1b[2J'\n")
    assert store.stats().unknown_units == 2


def test_where_the_store_does_not_say_which_changed_nothing_they_are_counted(
    store: Store, emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_busy(_: RemoteStore) -> NoReturn:
        raise StoreTimeoutError(5, 0)

    monkeypatch.setattr(RemoteStore, "stats", too_busy)
    said = "changed nothing: no such run or unit\n"
    code, _, err = emit("unit.started", "--unit", "a", "--strict")
    assert (code, err) == (1, f"actorstore: emit: 1 event {said}")
    code, _, err = emit("--strict", stdin=line(unit_started("a")) * 2)
    assert (code, err) == (1, f"actorstore: <stdin>: 2 more events {said}")


def test_an_event_that_names_no_unit_where_that_was_meant_is_sent(store: Store, emit: Emit) -> None:
    assert emit("orch.started", "--payload", '{"graph": {"nodes": [{"id": ""}]}}') == OK
    assert emit("unit.started", "--unit", "") == OK
    assert store.snapshot().unit("").status == "in_progress"


@pytest.mark.parametrize("type", ["unit.started", "unit.added"])
def test_strict_fails_where_an_event_changes_nothing(store: Store, emit: Emit, type: str) -> None:
    code, _, err = emit(type, "--unit", "a", "--strict")
    assert code == 1
    assert "no run '' has started" in err
    assert emit("orch.started", "--strict", "--payload", '{"graph": {"nodes": [{"id": "a"}]}}') == OK
    assert emit(type, "--unit", "a", "--strict") == OK
    assert store.stats().accepted == 3


def test_a_type_without_a_rule_is_named_to_a_person_and_fails_where_that_is_strict(
    store: Store, emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "actorstore: 'foo.bar' counts, and changes nothing; what changes something is orch.started, "
    assert emit("foo.bar") == OK
    code, _, err = emit("foo.bar", "--strict")
    assert code == 1
    assert err.startswith(said)
    assert emit("unit.strated", "--unit", "a", "--strict").code == 1
    assert "did you mean unit.started?" in emit("unit.strated", "--unit", "a").err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    code, _, err = emit("foo.bar")
    assert code == 0
    assert err.startswith(said)
    assert store.stats().accepted == 5


# Lines.


def test_lines_of_standard_input_are_sent_the_last_one_without_its_end_too(store: Store, emit: Emit) -> None:
    events = lines(orch_started(units("a")), unit_started("a"))
    assert emit(stdin=events[:-1]) == OK
    assert emit("-", stdin=b"") == OK
    assert store.snapshot().unit("a").status == "in_progress"


def test_bad_lines_are_named_and_the_good_ones_around_them_count(store: Store, emit: Emit) -> None:
    code, _, err = emit(
        stdin=line(orch_started(units("a"))) + b"\x1b[2J\n\n" + line(unit_started("a")) + b"[]\n"
    )
    assert code == 1
    first, second = err.splitlines()
    assert first.startswith("actorstore: <stdin>:2: ")
    assert second.startswith("actorstore: <stdin>:5: ")
    assert "\x1b" not in err
    assert store.snapshot().unit("a").status == "in_progress"


def test_a_byte_order_mark_is_left_out_with_a_word(store: Store, emit: Emit) -> None:
    text = codecs.BOM_UTF8 + line(orch_started(units("a"))) + line(unit_started("a"))
    assert emit(stdin=text) == (
        0,
        "",
        "actorstore: <stdin>: begins with a byte order mark (BOM), which is left out\n",
    )
    assert store.snapshot().unit("a").status == "in_progress"


def test_a_byte_order_mark_between_two_files_is_named_with_its_line(store: Store, emit: Emit) -> None:
    code, _, err = emit(stdin=line(orch_started()) + codecs.BOM_UTF8 + line(unit_started("a")))
    assert code == 1
    reason = "JSON is malformed: a byte order mark (BOM) stands before it; write UTF-8 without one"
    assert err == f"actorstore: <stdin>:2: {reason}\n"


def test_of_many_bad_lines_the_first_few_are_named_and_the_rest_counted(store: Store, emit: Emit) -> None:
    code, _, err = emit(stdin=b"bad\n" * 100)
    assert code == 1
    said = err.splitlines()
    assert len(said) == 6
    assert said[-1] == "actorstore: <stdin>: 95 more lines rejected"


def test_lines_that_change_nothing_are_named_and_fail_where_that_is_strict(store: Store, emit: Emit) -> None:
    given = lines(orch_started(units("a")), unit_started("b"), unit_started("a")) + b"\n"
    given += b'{"type":"foo.bar"}\n{"type":"unit.strated","unit":"a"}\n{"type":"unit.queued"}\n'
    unknown = [
        "actorstore: <stdin>: unit.started changed nothing: run '' has no unit 'b'",
        "actorstore: <stdin>: unit.queued changed nothing: it names no unit of run ''",
    ]
    code, _, err = emit(stdin=given)
    assert (code, err.splitlines()) == (0, unknown)
    code, _, err = emit("--strict", stdin=given)
    assert code == 1
    said = err.splitlines()
    assert said[:2] == unknown
    assert said[2].startswith("actorstore: <stdin>:5: 'foo.bar' counts, and changes nothing; what changes")
    assert (
        said[3]
        == "actorstore: <stdin>:6: 'unit.strated' counts, and changes nothing; did you mean unit.started?"
    )
    assert emit("--strict", stdin=lines(orch_started(units("a")), unit_started("a"))) == OK


def test_of_many_that_change_nothing_the_first_few_are_named_and_the_rest_counted(
    store: Store, emit: Emit
) -> None:
    given = b"".join([line(unit_started(f"u{number}")) for number in range(100)]) + b'{"type":"x"}\n' * 50
    code, _, err = emit("--strict", stdin=given)
    said = err.splitlines()
    assert (code, len(said)) == (1, 12)
    assert said[-2] == "actorstore: <stdin>: 95 more events changed nothing: no such run or unit"
    assert said[-1] == "actorstore: <stdin>: 45 more events changed nothing: no rule has the type"


def test_what_others_send_for_unknown_units_is_not_named_here(store: Store, emit: Emit) -> None:
    store.handle_lines(lines(orch_started(units("a")), unit_started("theirs")))
    assert emit("unit.started", "--unit", "a", "--strict") == OK
    assert emit("--strict", stdin=line(unit_started("a"))) == OK
    code, _, err = emit("--strict", stdin=line(unit_started("mine")))
    assert (code, err.count("\n"), "theirs" in err) == (1, 1, False)


def test_lines_are_sent_as_they_come(store: Store) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "actorstore", "emit"], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        for number in range(1, 4):
            process.stdin.write(b'{"type":"x"}\n{"type":')
            process.stdin.flush()
            wait_until(lambda number=number: store.stats().accepted == number)
            process.stdin.write(b'"y"\n')
            process.stdin.flush()
            wait_until(lambda number=number: store.stats().rejected == number)
        process.stdin.close()
        assert process.wait(SECONDS) == 1
        assert process.stderr.read().count(b"\n") == 3


# Who listens.


@pytest.mark.parametrize("arguments", [["x"], []])
def test_where_nobody_listens_it_is_exit_code_69(emit: Emit, arguments: list[str]) -> None:
    with folder() as made:
        code, out, err = emit(*arguments, "--socket", str(made / "s"), stdin=b'{"type":"x"}\n')
    assert (code, out) == (69, "")
    assert err.startswith("actorstore: no store answers at ")
    assert err.count("\n") == 1


def test_a_store_that_goes_away_leaves_a_word_about_what_is_acked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "PATIENCE_SECONDS", 0.1)
    with folder() as made:
        store = Store(listen=made / "s")

        class Leaving(io.BytesIO):
            def peek(self, _: int = 0) -> bytes:
                return b"{"

            def read1(self, _: int | None = -1) -> bytes:
                if store.stats().accepted == 2:
                    store.close()
                return b'{"type":"x"}\n'

        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Leaving(), isatty=lambda: False))
        code = main(["emit", "--socket", str(store.address)])
    assert code == 69
    err = capsys.readouterr().err
    assert "(1 line is not acked)" in err
    assert "actorstore: the first 2 lines are acked, and those after them may not be\n" in err


def test_it_imports_neither_pykka_nor_asyncio_nor_anything_as_heavy(store: Store) -> None:
    code = (
        "import sys; from actorstore.cli import main; code = main(['emit', 'x']);"
        "print(code, *sorted({'asyncio', 'concurrent.futures', 'gzip', 'multiprocessing', 'pykka', 'rich',"
        " 'sqlite3', 'subprocess'} & set(sys.modules)))"
    )
    ended = python(code=code)
    assert (ended.stdout, ended.stderr) == ("0\n", "")
    assert store.stats().accepted == 1
    assert Path(str(store.address)).exists()


def test_json_says_how_many_were_accepted_and_rejected(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["emit", "unit.queued", "--unit", "a", "--json", "--socket", str(store.address)]) == 0
    assert json.loads(capsys.readouterr().out) == {"accepted": 1, "rejected": 0, "unknownUnits": 1}
    given = io.BytesIO(b'{"type":"x"}\n\nbad\n{"type":"y"}\n')
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(given), isatty=lambda: False))
    assert main(["emit", "--json", "--socket", str(store.address)]) == 1
    assert json.loads(capsys.readouterr().out) == {"accepted": 2, "rejected": 1, "unknownUnits": 0}
