"""`actorstore state`, `graph`, `runs` and `stats` as they are called: questions to a store that listens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from time import tzset
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstore import Store
from actorstore.cli import listing, main, state
from actorstore.text import clean
from tests.builders import (
    at,
    diamond,
    fold,
    lines,
    orch_completed,
    orch_failed,
    orch_planned,
    orch_started,
    task_started,
    unit_completed,
    unit_failed,
    unit_started,
    units,
)
from tests.raw import folder
from tests.threads import ROOT, SECONDS

EVIL = "ev\x1b[31mil\x9b2J\u202e"
"""An id that would talk to the terminal."""

COMMANDS = ("state", "graph", "runs", "stats")


class Outcome(NamedTuple):
    """What a call left behind."""

    code: int
    out: str
    err: str


Ask = Callable[..., Outcome]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that listens where the environment says."""
    with folder() as made, Store(listen=made / "s") as store:
        monkeypatch.setenv("ACTORSTORE_SOCKET", str(store.address))
        yield store


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Call a command."""

    def call(*arguments: str) -> Outcome:
        return Outcome(main(list(arguments)), *capsys.readouterr())

    return call


def feed(store: Store) -> None:
    """A run that went well, and one that failed."""
    store.handle_lines(
        lines(
            orch_started(diamond(), run="good"),
            orch_completed(run="good", time=at(75)),
            orch_planned(*({"id": id, "tasks": 3} for id in "abc"), run="bad", parallelism=2),
            unit_started("a", run="bad"),
            task_started("a", run="bad"),
            unit_completed("a", run="bad", time=at(12)),
            unit_started("b", run="bad"),
            unit_started("b", run="bad"),
            unit_failed("b", "boom", run="bad", time=at(3)),
            orch_failed("b failed", run="bad", time=at(20)),
        )
    )
    store.flush()


# State.


def test_the_run_that_started_last_is_described_unit_by_unit(store: Store, ask: Ask) -> None:
    feed(store)
    code, out, err = ask("state")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "bad: failed after 20.0 s, 2 workers",
        "error: b failed",
        "1 of 3 units complete, 1 failed, 1 pending",
        "",
        "UNIT  STATUS      TASK  ATTEMPT  TIME  ERROR",
        "a     complete  1 of 3           0:12",
        "b     failed    0 of 3        2  0:03  boom",
        "c     pending   0 of 3",
    ]


def test_a_run_is_found_by_its_id(store: Store, ask: Ask) -> None:
    feed(store)
    assert ask("state", "good").out.startswith("good: completed in 1:15\n")
    assert json.loads(ask("state", "good", "--json").out) == json.loads(store.snapshot("good").json())


def test_before_any_run_there_is_little_to_say_and_nothing_wrong(store: Store, ask: Ask) -> None:
    assert ask("state") == (0, "run: waiting\nit has no units\n", "")
    assert ask("graph") == (0, "run: it has no graph\n", "")
    assert ask("runs") == (0, "no run has started\n", "")
    assert ask("runs", "--json") == (0, "[]\n", "")
    assert ask("graph", "--json") == (0, "null\n", "")


# Graph.


def test_a_graph_is_told_level_by_level_with_what_is_wrong_with_it(store: Store, ask: Ask) -> None:
    graph = {
        "nodes": [{"id": "a"}, {"id": "b"}, {"id": "c"}],
        "edges": [{"from": "b", "to": "a"}, {"from": "c", "to": "a"}, {"from": "c", "to": "gone"}],
    }
    store.handle_lines(json.dumps({"type": "orch.started", "run": "r", "payload": {"graph": graph}}).encode())
    code, out, _ = ask("graph")
    assert code == 0
    assert out.splitlines() == [
        "r: 3 units, 3 dependencies, 2 levels",
        "",
        "level 0",
        "  a",
        "",
        "level 1",
        "  b  after a",
        "  c  after a, gone",
        "",
        "1 problem",
        "  unit 'c' depends on 'gone', and one of the two is no unit of the graph",
    ]
    assert json.loads(ask("graph", "r", "--json").out) == json.loads(store.graph("r").json())
    assert '"a" -> "b"' in ask("graph", "--draw", "dot").out
    assert ask("graph", "--draw", "mermaid").out.startswith("flowchart TD\n")


# Runs.


def test_runs_are_listed_in_the_order_of_their_start(store: Store, ask: Ask) -> None:
    feed(store)
    head, good, bad = ask("runs").out.splitlines()
    assert head.split() == ["RUN", "STATUS", "STARTED", "TIME", "UNITS", "COMPLETE", "FAILED"]
    assert good.split()[:2] == ["good", "completed"]
    assert bad.split()[:2] == ["bad", "failed"]
    assert [info["run"] for info in json.loads(ask("runs", "--json").out)] == ["good", "bad"]


# Stats.


@pytest.mark.parametrize(
    ("time", "zone", "shown"),
    [
        ("2026-01-02T03:04:05.9Z", "UTC", "2026-01-02 03:04:05"),
        ("0001-01-01T00:00:00Z", "EST5", "0001-01-01 00:00:00+00:00"),  # which Go sends where it knows none
        ("0001-01-01T00:00:00+23:59", "UTC", "0001-01-01 00:00:00+23:59"),
        ("9999-12-31T23:59:59Z", "JST-9", "9999-12-31 23:59:59+00:00"),
    ],
)
def test_a_time_that_the_calendar_does_not_have_here_is_shown_as_it_came(
    monkeypatch: pytest.MonkeyPatch, time: str, zone: str, shown: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    tzset()
    try:
        assert listing.local(datetime.fromisoformat(time)) == shown
    finally:
        monkeypatch.undo()
        tzset()


def test_runs_that_began_outside_of_the_calendar_are_listed(store: Store, ask: Ask) -> None:
    store.handle_lines(b'{"type":"orch.started","run":"r","time":"0001-01-01T00:00:00+23:59"}\n')
    store.flush()
    code, out, _ = ask("runs")
    assert code == 0
    assert "0001-01-01 00:00:00+23:59" in out


def test_figures_come_with_the_reasons_of_what_was_rejected(store: Store, ask: Ask) -> None:
    store.handle_lines(b'{"type":"x"}\n\x1b[2J\n')
    store.flush()
    code, out, _ = ask("stats")
    assert code == 0
    figures = dict(line.split() for line in out.splitlines() if len(line.split()) == 2 and line[0] != " ")
    assert (figures["accepted"], figures["rejected"], figures["connections"]) == ("1", "1", "1")
    assert "  line 2: JSON is malformed" in out
    assert json.loads(ask("stats", "--json").out)["accepted"] == 1


def test_figures_come_with_the_last_events_of_unknown_units(store: Store, ask: Ask) -> None:
    store.handle_lines(lines(orch_started(units("a"), run="r"), unit_failed("b\x1b[2J", "boom", run="r")))
    store.flush()
    code, out, _ = ask("stats")
    assert code == 0
    assert out.endswith("\nlast of unknown units:\n  unit.failed: run 'r' has no unit 'b\\x1b[2J'\n")
    (named,) = json.loads(ask("stats", "--json").out)["lastUnknown"]
    assert (named["type"], named["run"], named["unit"]) == ("unit.failed", "r", "b\x1b[2J")


# All of them.


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_what_others_wrote_does_nothing_to_a_terminal(
    store: Store, ask: Ask, command: str, arguments: list[str]
) -> None:
    store.handle_lines(
        lines(
            orch_started(units(EVIL, "b"), run=EVIL),
            unit_failed(EVIL, f"{EVIL}\n", run=EVIL),
            orch_failed(EVIL, run=EVIL),
        )
        + EVIL.encode()
    )
    store.flush()
    code, out, err = ask(command, *arguments)
    assert (code, err) == (0, "")
    assert not any(character in out for character in "\x1b\x9b\u202e")
    if arguments:
        assert command == "stats" or json.dumps(EVIL) in json.dumps(json.loads(out))
    else:
        assert r"ev\x1b[31mil" in out


def test_an_unknown_run_is_exit_code_1_and_named_harmlessly(store: Store, ask: Ask) -> None:
    for command in ("state", "graph"):
        code, out, err = ask(command, EVIL)
        assert (code, out) == (1, "")
        assert err.startswith("actorstore: no such run: 'ev")
        assert "\x1b" not in err


@pytest.mark.parametrize("command", COMMANDS)
def test_where_nobody_listens_it_is_exit_code_69(ask: Ask, command: str) -> None:
    with folder() as made:
        code, out, err = ask(command, "--socket", str(made / "s\x1b[2J"))
    assert (code, out) == (69, "")
    assert "there is no such socket; start one with: actorstore serve" in err
    assert "\x1b" not in err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_that_no_socket_can_have_is_exit_code_2(ask: Ask, command: str) -> None:
    assert ask(command, "--socket", "/" + "x" * 200).code == 2


@pytest.mark.parametrize("command", [*COMMANDS, "watch", "emit"])
def test_where_a_file_is_no_socket_the_hint_is_not_to_start_a_store_there(ask: Ask, command: str) -> None:
    with folder() as made:
        (made / "file").write_text("precious")
        arguments = ["unit.queued", "--unit", "a"] if command == "emit" else []
        code, out, err = ask(command, *arguments, "--socket", str(made / "file"))
    assert (code, out) == (2, "")
    assert "a file that is no socket is there" in err
    assert "serve" not in err


@pytest.mark.parametrize("arguments", [["state"], ["runs", "--json"]])
def test_a_reader_that_goes_away_is_no_traceback(store: Store, arguments: list[str]) -> None:
    store.handle_lines(lines(orch_started(units(*(f"unit-{number}" for number in range(20_000))))))
    store.flush()
    with subprocess.Popen(
        [sys.executable, "-m", "actorstore", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.wait(SECONDS) == 141
        assert process.stderr.read() == b""


# Tables.


class Terminal:
    """Where a table is printed."""

    def isatty(self) -> bool:
        return True


def test_statuses_have_colours_on_a_terminal_unless_nobody_wants_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31mfailed\x1b[0m" in listing.table(("UNIT", "STATUS"), [("a", "failed")])[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert listing.table(("UNIT", "STATUS"), [("a", "failed")]) == ["UNIT  STATUS", "a     failed"]


def test_the_last_column_ends_where_the_terminal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    rows = listing.table(("UNIT", "ERROR"), [("a", "x" * 100), ("b", "漢" * 100)])
    assert all(listing.cells(row) <= 40 for row in rows)
    assert rows[1].endswith("…")


def test_wide_characters_and_accents_keep_columns_in_line() -> None:
    rows = listing.table(("UNIT", "STATUS"), [("漢字", "failed"), ("e\u0301", "failed")])
    assert [listing.cells(row.partition("failed")[0]) for row in rows[1:]] == [6, 6]


LONG = "CalledProcessError: Command 'gcc -O2 -c file.c' returned non-zero exit status 1."


def described(monkeypatch: pytest.MonkeyPatch, width: int, error: str) -> list[str]:
    """What `actorstore state` says on a terminal of a run in which one unit has failed."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    events = [orch_started(units("a", "b")), unit_failed("a", error), orch_failed(error, time=at(1))]
    return state.described(fold(*events).snapshot()).splitlines()


def test_an_error_that_does_not_fit_stands_whole_and_wrapped_below_its_unit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert described(monkeypatch, 40, LONG) == [
        "run: failed after 1.00 s",
        "error: CalledProcessError: Command 'gcc",
        "       -O2 -c file.c' returned non-zero",
        "       exit status 1.",
        "0 of 2 units complete, 1 failed, 1 pending",
        "",
        "UNIT  STATUS",
        "a     failed",
        "    CalledProcessError: Command 'gcc -O2",
        "    -c file.c' returned non-zero exit",
        "    status 1.",
        "b     pending",
    ]


def test_an_error_that_fits_is_a_column_and_one_of_many_lines_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert described(monkeypatch, 40, "boom")[-3:] == [
        "UNIT  STATUS   ERROR",
        "a     failed   boom",
        "b     pending",
    ]
    assert described(monkeypatch, 40, "boom\r\n  at \x1b[2Jx\n")[-5:] == [
        "UNIT  STATUS",
        "a     failed",
        "    boom",
        "      at \\x1b[2Jx",
        "b     pending",
    ]


def test_an_error_of_any_length_stays_on_its_row_where_no_terminal_is(store: Store, ask: Ask) -> None:
    error = f"{'x' * 2000}\n{LONG}"
    store.handle_lines(lines(orch_started(units("a", "b")), unit_failed("a", error)))
    rows = ask("state").out.splitlines()
    assert rows[-2:] == [f"a     failed   {error}".replace("\n", "\\n"), "b     pending"]


@given(st.text(), st.integers(10, 40))
def test_wrapping_loses_nothing_but_blanks_and_exceeds_no_row(text: str, room: int) -> None:
    rows = listing.wrapped(text, room)
    assert all(listing.cells(row) <= room for row in rows)
    assert "".join("".join(rows).split()) == "".join(
        "".join(clean(line.rstrip().expandtabs(4)) for line in text.rstrip().split("\n")).split()
    )
