"""Standard streams that are full, closed, or have no reader: one line and an exit code for all commands."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from actorstore import Store
from actorstore.cli import streams
from tests.builders import diamond, lines, orch_completed, orch_started, unit_failed
from tests.raw import folder
from tests.threads import ROOT, SECONDS

Arguments = tuple[str, ...]

EVENTS = lines(orch_started(diamond()), unit_failed("a", "boom"), orch_completed())

FULL = Path("/dev/full")

ACTORSTORE = (sys.executable, "-m", "actorstore")

CALLS: tuple[Arguments, ...] = (
    ("--help",),
    ("--version",),
    ("watch", "--help"),
    ("state",),
    ("state", "--json"),
    ("graph",),
    ("graph", "--draw", "dot"),
    ("runs",),
    ("stats",),
    ("emit", "--json", "unit.queued", "--unit", "a"),
    ("watch",),
    ("watch", "--json"),
    ("replay", "EVENTS"),
    ("replay", "--json", "EVENTS"),
    ("replay", "--graph", "dot", "EVENTS"),
    ("replay", "--to", "SOCKET", "EVENTS"),
    ("journal", "check", "JOURNAL"),
    ("journal", "info", "JOURNAL"),
    ("journal", "info", "--json", "JOURNAL"),
    ("journal", "export", "JOURNAL"),
)

SOME = (
    ("--help",),
    ("--version",),
    ("state",),
    ("replay", "--json", "EVENTS"),
    ("journal", "export", "JOURNAL"),
)


class Place(NamedTuple):
    """What commands are called on."""

    socket: str
    events: str
    journal: str


@pytest.fixture
def place() -> Iterator[Place]:
    """A store that listens, a log of events, and a journal that no store has open."""
    with folder() as made:
        (made / "events").write_bytes(EVENTS)
        with Store(journal=made / "journal") as store:
            store.handle_lines(EVENTS)
        with Store(listen=made / "s") as store:
            store.handle_lines(EVENTS)
            yield Place(str(made / "s"), str(made / "events"), str(made / "journal"))


def call(
    place: Place, arguments: Arguments, out: int | IO[bytes] | None, **environment: str
) -> tuple[int, str]:
    """Call a command, and return its exit code and what it says; `out=None` has standard output closed."""
    named = {"SOCKET": place.socket, "EVENTS": place.events, "JOURNAL": place.journal}
    command = [*ACTORSTORE, *[named.get(word, word) for word in arguments]]
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command] if out is None else command,
        cwd=ROOT,
        env=os.environ | {"ACTORSTORE_SOCKET": place.socket} | environment,
        stdout=out,
        stderr=subprocess.PIPE,
        timeout=SECONDS,
        check=False,
    )
    return ended.returncode, ended.stderr.decode()


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", CALLS, ids=" ".join)
def test_a_full_disk_is_exit_code_74_and_one_line(place: Place, arguments: Arguments) -> None:
    with FULL.open("wb") as out:
        code, said = call(place, arguments, out)
    assert (code, said) == (74, "actorstore: standard output cannot be written: no space left on device\n")


@pytest.mark.parametrize("arguments", CALLS, ids=" ".join)
def test_a_closed_output_is_exit_code_74_and_one_line(place: Place, arguments: Arguments) -> None:
    assert call(place, arguments, None) == (
        74,
        "actorstore: standard output cannot be written: it is not open for writing\n",
    )


@pytest.mark.parametrize("arguments", CALLS, ids=" ".join)
def test_a_pipe_without_a_reader_is_exit_code_141_and_silence(place: Place, arguments: Arguments) -> None:
    with unread() as out:
        assert call(place, arguments, out) == (141, "")


@pytest.mark.parametrize("arguments", SOME, ids=" ".join)
def test_all_of_that_holds_where_python_does_not_buffer(place: Place, arguments: Arguments) -> None:
    with unread() as out:
        assert call(place, arguments, out, PYTHONUNBUFFERED="1") == (141, "")
    assert call(place, arguments, None, PYTHONUNBUFFERED="1")[0] == 74
    if FULL.exists():
        with FULL.open("wb") as full:
            assert call(place, arguments, full, PYTHONUNBUFFERED="1")[0] == 74


def test_a_command_without_output_does_not_need_one(place: Place) -> None:
    assert call(place, ("emit", "unit.queued", "--unit", "a"), None) == (0, "")


@contextmanager
def unread() -> Iterator[int]:
    """A pipe that has no reader."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


@pytest.mark.parametrize("err", ["2>&-", "2>/dev/full"])
def test_what_standard_error_does_not_take_is_dropped_and_changes_nothing(place: Place, err: str) -> None:
    ended = subprocess.run(
        [
            "sh",
            "-c",
            f'exec "$@" {err}',
            "sh",
            sys.executable,
            "-m",
            "actorstore",
            "replay",
            place.events,
            "none",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 2  # one of the files is not there, which nobody can be told
    assert b"no such file" not in ended.stdout
    assert b"replayed" in ended.stdout


def test_an_output_that_does_not_block_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = b"x" * (1 << 20)  # more than a pipe holds
    read: list[bytes] = []
    with open(reader, "rb") as file, streams._Output(writer, "wb") as raw:
        thread = threading.Thread(target=lambda: read.append(file.read()))
        thread.start()
        with io.BufferedWriter(raw) as out:
            out.write(text)
        thread.join(SECONDS)
    assert read == [text]


@pytest.mark.parametrize(("number", "is_unread"), [(errno.EPIPE, True), (errno.ENOSPC, False)])
def test_a_reader_that_is_gone_is_told_from_every_other_failure(number: int, is_unread: bool) -> None:
    error = streams.UnwritableError(OSError(number, os.strerror(number)))
    assert error.is_unread == is_unread
    assert not isinstance(error, OSError)  # which argparse swallows
