"""`actorstore serve` as it is called: a process that listens, what it says, and how it ends."""

from __future__ import annotations

import io
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from actorstore import Event, Store, StoreFailedError, connect
from actorstore.cli import main, serve
from actorstore.cli.serve import Log
from tests.raw import folder
from tests.threads import ROOT, SECONDS, python, wait_until


@pytest.fixture
def path() -> Iterator[Path]:
    with folder() as made:
        yield made / "s"


@contextmanager
def serving(path: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A store in a process of its own, from the moment it listens; the process has said so."""
    with subprocess.Popen(
        [sys.executable, "-m", "actorstore", "serve", *options],
        cwd=ROOT,
        env=os.environ | {"ACTORSTORE_SOCKET": str(path)} | environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert re.fullmatch(rf"actorstore: listening at \S+ \(process {process.pid}\)\n", said), said
            assert ("no journal" in process.stderr.readline()) == ("--journal" not in options)
            yield process
        finally:
            process.kill()


def left_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_it_with_what_was_handed_over_acked_and_no_file_left(
    path: Path, number: int, code: int
) -> None:
    with serving(path) as process, connect(path) as store:
        for _ in range(1000):
            store.handle_event(Event("x"))
        link = store._link
        wait_until(lambda: not link.handover.items and link._ledger.to_send() is None)  # all is on its way
        process.send_signal(number)
        assert store.flush(SECONDS).accepted == 1000
        assert process.wait(SECONDS) == code
        assert process.stderr.read() == ""
    assert left_in(path.parent) == []


def test_further_signals_neither_break_nor_hasten_the_end(path: Path) -> None:
    with serving(path) as process:
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.001)  # signals come again and again, whatever it is about to do
        assert process.returncode in (0, 130)  # whichever came first
        assert process.stderr.read() == ""
    assert left_in(path.parent) == []


def test_one_that_is_to_outlive_its_terminal_does(path: Path) -> None:
    code = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "os.execv(sys.executable, [sys.executable, '-m', 'actorstore', 'serve', '--socket', sys.argv[1]])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            process.stderr.readline()
            process.send_signal(signal.SIGHUP)
            with connect(path) as store:
                assert store.stats().accepted == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def test_a_second_one_is_told_who_listens(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(path) as process:
        second = python("-m", "actorstore", "serve", "--socket", str(path))
        assert second.returncode == 75
        assert second.stderr == (
            f"actorstore: process {process.pid} listens at {path} already; stop it, or name another path\n"
        )


def test_a_path_that_cannot_be_a_socket_is_exit_code_2(path: Path) -> None:
    path.write_text("precious")
    ended = python("-m", "actorstore", "serve", "--socket", str(path))
    assert ended.returncode == 2
    assert "a file that is no socket is in the way" in ended.stderr
    assert path.read_text() == "precious"


def test_a_directory_that_is_named_must_be_there_for_socket_and_journal_alike(path: Path) -> None:
    none = path.parent / "none"
    for arguments in (["--socket", f"{none}/s"], ["--socket", str(path), "--journal", f"{none}/j"]):
        ended = python("-m", "actorstore", "serve", *arguments)
        assert ended.returncode == 2
        assert f"there is no directory {none}; make it first" in ended.stderr
    assert left_in(path.parent) == []


def test_a_usual_path_may_be_named_before_its_directory_is_there(path: Path) -> None:
    usual = path.parent / "actorstore" / "store.sock"
    with serving(usual, XDG_RUNTIME_DIR=str(path.parent)):
        assert usual.is_socket()


def test_a_path_with_terminal_escapes_is_said_harmlessly(path: Path) -> None:
    ended = python("-m", "actorstore", "serve", "--socket", f"{path}\x1b[2J/{'x' * 200}")
    assert ended.returncode == 2
    assert "\x1b" not in ended.stderr


def test_without_a_path_it_listens_where_clients_look(path: Path) -> None:
    usual = path.parent / "actorstore" / "store.sock"
    with serving(path, ACTORSTORE_SOCKET="", XDG_RUNTIME_DIR=str(path.parent)):
        assert usual.is_socket()


def test_what_is_rejected_is_logged_on_one_harmless_line(path: Path) -> None:
    with serving(path) as process, connect(path) as store:
        store.handle_lines(b"\x1b[2Jevil\r\n")
        assert store.flush(SECONDS).rejected == 1
        said = process.stderr.readline()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ WARNING rejected line 1: .*\\x1b\[2Jevil", said)


def test_a_store_that_dies_ends_it_and_it_says_so(path: Path) -> None:
    code = (
        "import sys; from actorstore.cli import main; from actorstore.state import State\n"
        "def fail(*_): raise MemoryError('out of memory')\n"
        "State.apply = fail\n"
        "sys.exit(main(['serve', '--socket', sys.argv[1]]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            process.stderr.readline()
            store = connect(path)
            store.handle_event(Event("x"))
            assert process.wait(SECONDS) == 1
            assert "actorstore: the store's actor has died" in process.stderr.read()
            store._link.abandon()  # nobody will ever take what it holds
        finally:
            process.kill()
    assert left_in(path.parent) == []


def test_a_store_that_dies_before_it_has_said_what_it_promises_is_closed_like_any_other(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Store) -> None:
        raise StoreFailedError

    monkeypatch.setattr(serve, "_signals", lambda: queue.SimpleQueue())
    monkeypatch.setattr(serve, "_ignore_signals", lambda: None)
    monkeypatch.setattr(Store, "stats", fail)
    assert main(["serve", "--socket", str(path)]) == 1
    assert "actorstore: the store's actor has died" in capsys.readouterr().err
    assert left_in(path.parent) == []


class Stuck(io.StringIO):
    """Where nobody reads: writing takes until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.go_on.wait(SECONDS)
        return super().write(text)


def test_a_log_that_nobody_reads_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck()
    monkeypatch.setattr(sys, "stderr", stuck)
    log = logging.getLogger("actorstore")
    with Log(logging.WARNING) as handler:
        for number in range(3000):
            log.warning("record %d", number)
        stuck.go_on.set()
        wait_until(lambda: handler._records.empty())
        log.warning("the last\x1b[2J\nof them")
        wait_until(lambda: "of them" in stuck.getvalue())
    said = stuck.getvalue()
    assert r"the last\x1b[2J\nof them" in said
    assert re.search(r"\d+ records before this were dropped", said)


def test_a_traceback_cannot_forge_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    with Log(logging.WARNING):
        try:
            raise ValueError("x\n2026-01-01 00:00:00,000 ERROR forged\x1b[2J")
        except ValueError:
            logging.getLogger("actorstore").exception("caught")
    err = capsys.readouterr().err
    assert "\n  2026-01-01 00:00:00,000 ERROR forged\\x1b[2J" in err
    assert "\x1b" not in err


def test_serving_in_vain_leaves_the_other_store_alone(path: Path) -> None:
    with Store(listen=path) as store:
        ended = python("-m", "actorstore", "serve", "--socket", str(path))
        assert ended.returncode == 75
        assert str(os.getpid()) in ended.stderr
        store.handle_event(Event("x"))
        with connect(path) as other:
            assert other.stats().accepted == 1


def test_help_ends_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("serve", "emit", "watch", "state", "graph", "runs", "stats"):
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"  actorstore {command}" in text.rpartition("examples:\n")[2]
        assert "exit codes:" in text
