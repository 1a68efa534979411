"""Calls that are wrong name the command or option that was meant; one without a command names the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actorstore import Store
from actorstore.cli import main
from tests.builders import lines, orch_completed, orch_started, unit_started, units
from tests.raw import folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--verison", "actorstore: error: unrecognized arguments: --verison; did you mean --version?"),
        ("-V", "actorstore: error: unrecognized arguments: -V"),
        ("repaly", "actorstore: error: unknown command 'repaly'; did you mean 'replay'?"),
        ("frobnicate", "actorstore: error: unknown command 'frobnicate'; choose from demo, replay, serve"),
        (
            "--socket x state",
            "actorstore: error: unrecognized arguments: --socket; "
            "the options of a command stand behind its name",
        ),
        ("emit --unti a", "actorstore emit: error: unrecognized arguments: --unti; did you mean --unit?"),
        ("emit x --version", "actorstore emit: error: unrecognized arguments: --version"),
        ("emit x y", "actorstore emit: error: unrecognized arguments: y"),
        ("state --jsno=1", "actorstore state: error: unrecognized arguments: --jsno=1; did you mean --json?"),
        ("replay --jsno", "actorstore replay: error: unrecognized arguments: --jsno; did you mean --json?"),
        ("replay", "actorstore replay: error: the following arguments are required: FILE"),
        ("replay -- --jsno --x", "actorstore: --jsno: no such file"),
        ("state \x1b[2J \x1b[2J", r"actorstore state: error: unrecognized arguments: \x1b[2J"),
        ("journal", "actorstore journal: error: the following arguments are required: WHAT"),
        ("journal chekc x", "actorstore journal: error: unknown command 'chekc'; did you mean 'check'?"),
        (
            "journal compact x --kep 3",
            "actorstore journal compact: error: unrecognized arguments: --kep; did you mean --keep?",
        ),
    ],
)
def test_what_was_meant_is_named(capsys: pytest.CaptureFixture[str], arguments: str, said: str) -> None:
    assert main(arguments.split(" ")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    if " error: " in said:
        assert err.splitlines()[-1].startswith(said)
        assert err.startswith(f"usage: {said.partition(':')[0]} [-h]")
    assert ("did you mean" in err) == ("did you mean" in said)


# No command.


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folders, with nothing in them."""
    with folder() as made:
        monkeypatch.delenv("ACTORSTORE_SOCKET", raising=False)
        monkeypatch.setenv("HOME", str(made))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(made / "runtime"))
        yield made


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Call it without a command, and return what stands below its help."""
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: actorstore ")
    assert "exit codes:" in out
    assert err == ""
    return out.splitlines()[-1]


def test_without_a_command_it_says_how_to_start_a_store(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "runtime" / "actorstore" / "store.sock"
    assert last_line(capsys) == (
        f"no store listens at {path} (there is no such socket); start one with: actorstore serve"
    )


def test_without_a_command_it_says_which_store_it_finds(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / ".actorstore" / "store.sock"
    with Store(listen=path) as store:
        assert last_line(capsys) == f"a store listens at {path}: version 0, 0 runs"
        store.handle_lines(
            lines(orch_started(run="a"), orch_completed(run="a"), orch_started(units("u"), run="b"))
        )
        store.handle_lines(lines(unit_started("u", run="b")))
        store.flush()
        assert last_line(capsys) == f"a store listens at {path}: version 4, 2 runs, 1 of them running"


def test_without_a_command_it_says_what_is_in_the_way_of_a_store(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("ACTORSTORE_SOCKET", str(home / "file"))
    assert "a file that is no socket is there" in last_line(capsys)
