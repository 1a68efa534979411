"""`actorstore journal`, and what other commands say of a journal."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from actorstore import Event, Store
from actorstore.cli import main
from actorstore.compaction import write as keep
from actorstore.errors import JournalDamagedError
from actorstore.journal import Journal
from actorstore.recovery import recover
from tests.test_journal import write
from tests.threads import ROOT, SECONDS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with one run, of six events."""
    path = tmp_path / "j"
    with Store(journal=path) as store:
        store.handle_event(Event.orch_started({"a": [], "b": ["a"]}))
        for _ in range(5):
            store.handle_event(Event.unit_started("a"))
            store.flush()
    return path


def damage(path: Path, word: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(word)] ^= 1  # a page is filled from its end, so that is one of the last batches
    path.write_bytes(content)


def test_a_whole_journal_is_said_to_be_whole(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "check", str(path)]) == 0
    assert "is whole: 6 events in" in capsys.readouterr().out


def test_damage_is_named_and_what_is_whole_can_be_saved(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(path, b"unit.started")
    before = path.read_bytes()
    assert main(["journal", "check", str(path)]) == 74
    assert "journal export" in capsys.readouterr().err
    assert main(["journal", "export", str(path)]) == 74
    said = capsys.readouterr()
    assert "is not as it was written" in said.err
    assert 1 <= said.out.count("\n") < 6
    assert path.read_bytes() == before


def test_what_is_exported_is_what_was_fed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "export", str(path)]) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["type"] for line in said.out.splitlines()] == ["orch.started"] + [
        "unit.started"
    ] * 5
    with Store() as store:
        store.handle_lines(said.out.encode())
        with Store(journal=path) as kept:
            assert store.snapshot().json() == kept.snapshot().json()


def test_figures_are_for_people_and_programs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "info", str(path)]) == 0
    assert "version          6" in capsys.readouterr().out
    assert main(["journal", "info", "--json", str(path)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["version"], figures["oldest"], figures["format"]) == (6, 0, 1)


def test_the_past_is_cut_off_to_the_version(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(journal=path) as store:
        before = store.snapshot().json()
    assert main(["journal", "compact", str(path), "--keep", "2"]) == 0
    assert "2 versions stay, from 4 on" in capsys.readouterr().err
    assert main(["journal", "check", str(path)]) == 0
    with Store(journal=path) as store:
        assert store.snapshot().json() == before
        assert store.snapshot(at=4).units[0].attempts == 3
    assert main(["journal", "compact", str(path), "--keep", "9"]) == 0
    assert "nothing to cut off" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["check", "info", "export"])
def test_a_journal_that_a_store_has_open_is_left_to_it(
    path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(journal=path):
        assert main(["journal", what, str(path)]) == 75
    assert "process" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["check", "info", "export"])
def test_a_file_that_is_none_is_refused(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").write_text("x")
    for name in ("x", "none"):
        assert main(["journal", what, str(tmp_path / name)]) == 2
    assert "cannot be opened" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def serve(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "actorstore", "serve", "--socket", str(tmp_path / "s2"), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_serve_says_what_is_wrong_with_its_journal(path: Path, tmp_path: Path) -> None:
    with Store(journal=path):
        taken = serve(tmp_path, "--journal", str(path))
        assert (taken.returncode, "has it open" in taken.stderr) == (75, True)
    assert serve(tmp_path, "--durability", "lose-a-second").returncode == 2
    missing = serve(tmp_path, "--journal", str(tmp_path / "none" / "j"))
    assert (missing.returncode, "make it first" in missing.stderr) == (2, True)
    damage(path, b"unit.started")
    damaged = serve(tmp_path, "--journal", str(path))
    assert (damaged.returncode, "batch" in damaged.stderr) == (74, True)


def test_a_run_is_shown_as_it_was(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    socket = str(tmp_path / "s")
    with Store(journal=path, listen=socket):
        assert main(["state", "--socket", socket, "--at", "3", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["units"][0]["attempts"] == 2
        assert main(["state", "--socket", socket, "--at", "99"]) == 1
        assert "has not come yet" in capsys.readouterr().err
        assert main(["stats", "--socket", socket]) == 0
        assert "lose-nothing" in capsys.readouterr().out
    with Store(listen=socket):
        assert main(["state", "--socket", socket, "--at", "3"]) == 1
        assert "--journal FILE" in capsys.readouterr().err


def test_of_two_stores_that_start_together_on_one_journal_one_wins(path: Path, tmp_path: Path) -> None:
    code = """
import sys, time
from actorstore import Store
from actorstore.errors import JournalInUseError
for line in sys.stdin:
    while time.monotonic() < float(line):
        pass
    try:
        store = Store(journal=sys.argv[1])
    except JournalInUseError as error:
        print(error.owner, flush=True)
    else:
        print("won", flush=True)
        sys.stdin.readline()
        store.close()
        print("closed", flush=True)
        continue
    sys.stdin.readline()
    print("closed", flush=True)
"""
    import time

    command = [sys.executable, "-c", code, str(path)]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    racers = [subprocess.Popen(command, **options) for _ in "ab"]  # type: ignore[call-overload]

    def tell(word: object) -> list[str]:
        for racer in racers:
            racer.stdin.write(f"{word}\n")
            racer.stdin.flush()
        return [racer.stdout.readline().strip() for racer in racers]

    try:
        for _ in range(50):
            said = tell(time.monotonic() + 0.01)
            pids = [str(racer.pid) for racer in racers]
            assert said in (["won", pids[0]], [pids[1], "won"])
            assert tell("close") == ["closed", "closed"]
    finally:
        for racer in racers:
            racer.stdin.close()
            racer.wait(SECONDS)
            racer.stdout.close()


COLUMNS = {
    "origin": ("store",),
    "head": ("seq", "version", "crc"),
    "batch": ("version", "events", "steps", "lines", "crc"),
    "checkpoint": ("version", "chain", "parts", "size", "crc"),
    "part": ("seq", "number", "data"),
}

VALUES = ("'text'", "NULL", "1.5", "x'ff00'", "CAST(x'ff' AS TEXT)", "-1", "1 << 62", "''")


@pytest.mark.parametrize("column", [f"{table}.{name}" for table, names in COLUMNS.items() for name in names])
def test_a_column_that_holds_something_else_is_damage_and_no_traceback(
    tmp_path: Path, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    for number in (6, 12, 18):
        write(journal, number)
        keep(journal, recover(journal))
    journal.close()
    good = path.read_bytes()
    table, name = column.split(".")
    for value in VALUES:
        path.write_bytes(good)
        connection = sqlite3.connect(path, isolation_level=None)
        with suppress(sqlite3.IntegrityError):
            connection.execute(f"UPDATE {table} SET {name} = {value} ")
        connection.close()
        bad = path.read_bytes()
        if bad == good:
            continue
        codes = {}
        for what in (["check"], ["info"], ["export"], ["compact", "--keep", "3"]):
            path.write_bytes(bad)
            codes[what[0]] = main(["journal", what[0], str(path), *what[1:]])
        assert codes.pop("check") == 74, value
        assert set(codes.values()) <= {0, 74}, (value, codes)
        path.write_bytes(bad)
        try:
            with Store(journal=path) as store:
                store.handle_event(Event.unit_started("a"))
                store.flush()
                with suppress(JournalDamagedError):
                    store.snapshot(at=7)
                store.compact(keep=1)
            assert Store(journal=path).close() is None
        except JournalDamagedError:
            pass
    capsys.readouterr()


def test_a_damaged_checkpoint_is_never_what_the_past_is_cut_off_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    for _ in range(3):
        write(journal, 6)
        keep(journal, recover(journal))
    write(journal, 6)
    journal.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE part SET data = x'5b5d' WHERE seq = 18")
    connection.close()
    with Store(journal=path) as store:
        before = store.snapshot().json()
        assert store.compact(keep=2) == 12
    with Store(journal=path) as store:
        assert store.snapshot().json() == before
    assert main(["journal", "compact", str(path), "--keep", "6"]) == 74
    assert "18" in capsys.readouterr().err
    with Store(journal=path) as store:
        assert store.snapshot().json() == before


@pytest.mark.parametrize("version", ["9007199254740992", "9" * 5000, "-1", "x"])
def test_a_version_that_cannot_be_one_is_a_usage_error(
    version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["state", "--at", version], ["journal", "compact", "j", f"--keep={version}"]):
        assert main(command) == 2
    assert "number of" in capsys.readouterr().err
