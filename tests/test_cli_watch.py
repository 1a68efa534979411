"""`actorstore watch` as it is called: a run in a store that listens, and may go away."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actorstore import AddressError, Store, StoreTimeoutError, connect
from actorstore.cli import main
from actorstore.cli.watch import Window
from tests.builders import (
    at,
    lines,
    orch_completed,
    orch_failed,
    orch_started,
    unit_completed,
    unit_failed,
    unit_started,
    units,
)
from tests.raw import folder
from tests.test_cli_replay import _read_until
from tests.threads import ROOT, SECONDS

EVIL = "ev\x1b[31mil"


@pytest.fixture
def path() -> Iterator[Path]:
    with folder() as made:
        yield made / "s"


@contextmanager
def watching(path: Path, *arguments: str, out: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """A process that watches the store."""
    with subprocess.Popen(
        [sys.executable, "-m", "actorstore", "watch", *arguments],
        cwd=ROOT,
        env=os.environ | {"ACTORSTORE_SOCKET": str(path), "TERM": "xterm", "COLUMNS": "60", "LINES": "24"},
        stdout=out,
        stderr=out if out != subprocess.PIPE else subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_run_is_told_in_lines_until_it_has_completed(path: Path) -> None:
    with Store(listen=path) as store:
        store.handle_lines(lines(orch_started(units("a", EVIL), run="r")))
        with watching(path) as process:
            assert process.stdout.readline() == "    0:00  run r started: 2 units\n"
            store.handle_lines(
                lines(unit_started(EVIL, run="r"), unit_failed(EVIL, EVIL, run="r", time=at(1)))
            )
            assert process.stdout.readline() == r"    0:01  r: unit ev\x1b[31mil failed: ev\x1b[31mil" + "\n"
            store.handle_lines(lines(unit_completed("a", run="r"), orch_completed(run="r", time=at(2))))
            out, err = process.communicate(timeout=SECONDS)
    assert out.splitlines() == [
        "    0:02  run r completed",
        "r completed in 2.00 s: 1 of 2 units complete, 1 failed",
    ]
    assert (process.returncode, err) == (0, "")


def test_a_run_that_failed_is_exit_code_1_also_where_it_has_ended_long_ago(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(listen=path) as store:
        store.handle_lines(
            lines(orch_started(units("a"), run="bad"), orch_failed("no", run="bad", time=at(4)))
        )
        store.handle_lines(
            lines(orch_started(units("a"), run="good"), orch_completed(run="good", time=at(5)))
        )
        store.flush()
        assert main(["watch", "bad", "--socket", str(path)]) == 1
        out = capsys.readouterr().out
        assert "    0:04  run bad failed: no" in out
        assert "good" not in out
        assert main(["watch", "--socket", str(path)]) == 0


def test_json_is_an_update_a_line_the_whole_run_first(path: Path) -> None:
    with Store(listen=path) as store:
        store.handle_lines(lines(orch_started(units("a", EVIL))))
        with watching(path, "--json") as process:
            whole = json.loads(process.stdout.readline())
            assert [unit["id"] for unit in whole["units"]] == ["a", EVIL]
            assert "since" not in whole
            store.handle_lines(lines(unit_failed(EVIL)))
            line = process.stdout.readline()
            assert "\x1b" not in line
            assert [unit["status"] for unit in json.loads(line)["units"]] == ["failed"]
            store.handle_lines(lines(orch_failed("no")))
            assert json.loads(process.stdout.readline())["status"] == "failed"
            assert process.wait(SECONDS) == 1
            assert process.stderr.read() == ""


def test_before_any_run_it_waits_for_one_and_says_so(path: Path) -> None:
    with Store(listen=path) as store, watching(path) as process:
        assert process.stderr.readline() == "actorstore: no run has started yet; waiting for one\n"
        store.handle_lines(lines(orch_started(units("a")), orch_completed(time=at(1))))
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_store_that_goes_away_is_said_and_watched_again_when_it_is_back(
    path: Path, arguments: list[str]
) -> None:
    with Store(listen=path) as store:
        store.handle_lines(lines(orch_started(units("a"))))
        process = watching(path, *arguments)
        running = process.__enter__()
        running.stdout.readline()
    try:
        said = running.stderr.readline()
        assert said.startswith("actorstore: the store does not answer")
        assert said.endswith("trying again\n")
        with Store(listen=path) as store:
            assert running.stderr.readline() == "actorstore: the store answers again\n"
            store.handle_lines(lines(orch_started(units("a")), orch_completed(time=at(1))))
            assert running.wait(SECONDS) == 0
    finally:
        process.__exit__(None, None, None)


def test_a_file_in_the_place_of_the_socket_is_said_and_waited_for() -> None:
    class Lost:
        def runs(self, **_: object) -> object:
            raise AddressError("/s", "a file that is no socket is there")

    told: list[tuple[str, bool]] = []
    window = Window(Lost(), lambda text, is_over: told.append((text, is_over)))  # type: ignore[arg-type]
    for _ in range(2):
        assert window.runs() == ()
        with pytest.raises(StoreTimeoutError):
            window.subscribe()
    assert told == [("the store does not answer (a file that is no socket is there); trying again", False)]


def test_a_run_that_ends_with_its_store_is_told_to_its_end(path: Path) -> None:
    with Store(listen=path) as store:
        store.handle_lines(lines(orch_started(units("a"))))
        process = watching(path)
        running = process.__enter__()
        running.stdout.readline()
        store.handle_lines(lines(unit_completed("a"), orch_completed(time=at(1))))
    try:
        out, err = running.communicate(timeout=SECONDS)
    finally:
        process.__exit__(None, None, None)
    assert out.splitlines()[-1] == "the run completed in 1.00 s: 1 of 1 unit complete"
    assert (running.returncode, err) == (0, "")


def test_the_end_of_a_run_is_seen_also_where_the_store_is_gone_by_then(path: Path) -> None:
    told: list[str] = []
    with Store(listen=path) as store:
        remote = connect(path)
        window = Window(remote, lambda text, _: told.append(text))
        store.handle_lines(lines(orch_started(units("a"), run="r")))
        before = next(window.subscribe("r"))
        store.handle_lines(lines(unit_completed("a", run="r"), orch_completed(run="r", time=at(1))))
        last = remote.wait("r")
    window.end(last)
    update = next(window.subscribe("r", since=before.cursor))
    assert (update.since, update.status, update.units) == (before.version, "completed", last.units)
    assert [(info.run, info.summary.complete) for info in window.runs()] == [("r", 1)]
    assert told == []
    remote.close(0)


def test_a_reader_that_goes_away_is_no_traceback(path: Path) -> None:
    with Store(listen=path) as store:
        store.handle_lines(lines(orch_started(units("a"))))
        with watching(path) as process:
            process.stdout.readline()
            process.stdout.close()
            store.handle_lines(lines(unit_failed("a")))
            assert process.wait(SECONDS) == 141
            assert process.stderr.read() == ""


def test_on_a_terminal_it_is_live_and_ctrl_c_gives_the_cursor_back(path: Path) -> None:
    master, slave = pty.openpty()
    try:
        with Store(listen=path) as store:
            store.handle_lines(lines(orch_started(units("a", EVIL)), unit_started(EVIL)))
            with watching(path, out=slave) as process:
                shown = _read_until(master, rb"ev\x1b[31mil")
                assert b"\x1b[?25l" in shown
                process.send_signal(signal.SIGINT)
                assert process.wait(SECONDS) == 130
                shown += _read_until(master, b"\x1b[?25h")
        assert b"Traceback" not in shown
    finally:
        os.close(slave)
        os.close(master)


def test_a_screen_says_that_the_store_does_not_answer(path: Path) -> None:
    master, slave = pty.openpty()
    try:
        with Store(listen=path) as store:
            store.handle_lines(lines(orch_started(units("a")), unit_started("a")))
            watched = watching(path, out=slave)
            process = watched.__enter__()
            _read_until(master, b"running")
        try:
            _read_until(master, b"the store does not answer")
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 130
        finally:
            watched.__exit__(None, None, None)
    finally:
        os.close(slave)
        os.close(master)


def test_an_unknown_run_is_exit_code_1(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(listen=path):
        assert main(["watch", "nope", "--socket", str(path)]) == 1
        assert main(["watch", "nope", "--json", "--socket", str(path)]) == 1
    assert (
        capsys.readouterr().err.count("actorstore: no such run: 'nope'; those there are: actorstore runs\n")
        == 2
    )


def test_where_nobody_listens_it_is_exit_code_69(path: Path) -> None:
    assert main(["watch", "--socket", str(path)]) == 69
    assert main(["watch", "--json", "--socket", str(path)]) == 69
