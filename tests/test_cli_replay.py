"""`actorstore replay` as it is called: files in, words, numbers and an exit code out."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from actorstore import Event, Store
from actorstore.cli import eventlog, main, pace, replay
from tests.builders import (
    at,
    chain,
    diamond,
    line,
    lines,
    orch_completed,
    orch_failed,
    orch_planned,
    orch_started,
    unit_completed,
    unit_failed,
    unit_started,
    units,
    whole_run,
)
from tests.raw import folder
from tests.test_screen import Terminal
from tests.test_wfformat import INSTANCES, document

SECONDS = 20
"""How long a test waits for another process, before it fails."""


class Outcome(NamedTuple):
    """What a call left behind."""

    code: int
    out: str
    err: str


Replay = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Replay:
    """Call `actorstore replay` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        code = main(["replay", *arguments])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def good(tmp_path: Path) -> str:
    """A log of a run that went well."""
    (tmp_path / "good.ndjson").write_bytes(lines(*whole_run(diamond(), tasks=2)))
    return "good.ndjson"


@pytest.fixture
def bad(tmp_path: Path) -> str:
    """A log of a run that failed."""
    events = [
        orch_started(units("a", "b"), run="bad"),
        unit_started("a", run="bad"),
        unit_failed("a", "boom", run="bad", time=at(5)),
        orch_failed("a failed", run="bad", time=at(6)),
    ]
    (tmp_path / "bad.ndjson").write_bytes(lines(*events))
    return "bad.ndjson"


def snapshot(*events: Event) -> dict[str, object]:
    """What a store makes of these events, as JSON has it."""
    with Store() as store:
        store.handle_lines(lines(*events))
        return json.loads(store.snapshot().json())


# What is shown.


def test_a_log_is_told_in_lines_and_ends_with_a_summary(run: Replay, good: str) -> None:
    code, out, err = run(good)
    *said, summary = out.splitlines()
    assert said == ["    0:00  run started: 4 units", "    0:00  run completed"]
    assert summary.startswith("the run completed in 0.00 s: 4 of 4 units complete; 22 events replayed in ")
    assert (code, err) == (0, "")


def test_a_run_that_failed_is_exit_code_1(run: Replay, bad: str) -> None:
    code, out, _ = run(bad)
    assert out.splitlines()[:3] == [
        "    0:00  run bad started: 2 units",
        "    0:05  bad: unit a failed: boom",
        "    0:06  run bad failed: a failed",
    ]
    assert code == 1


def test_every_failure_is_told_also_where_a_retry_follows_at_once(run: Replay, tmp_path: Path) -> None:
    attempts = [event for n in range(50) for event in (unit_started("a"), unit_failed("a", f"error {n}"))]
    events = [orch_started(units("a")), *attempts, unit_started("a"), unit_completed("a"), orch_completed()]
    (tmp_path / "log").write_bytes(lines(*events))
    code, out, _ = run("log")
    assert [text.rpartition(": ")[2] for text in out.splitlines() if " failed" in text] == [
        f"error {n}" for n in range(50)
    ]
    assert "unit a failed (attempt 50): error 49" in out
    assert code == 0


def test_json_is_the_final_snapshot_and_nothing_else(run: Replay, bad: str) -> None:
    code, out, err = run("--json", bad)
    assert (code, err, out.count("\n")) == (1, "", 1)
    assert json.loads(out) == snapshot(
        orch_started(units("a", "b"), run="bad"),
        unit_started("a", run="bad"),
        unit_failed("a", "boom", run="bad", time=at(5)),
        orch_failed("a failed", run="bad", time=at(6)),
    )


def test_json_of_several_runs_is_a_line_each(run: Replay, good: str, bad: str) -> None:
    _, out, _ = run("--json", good, bad)
    assert [json.loads(text)["run"] for text in out.splitlines()] == ["", "bad"]


def test_json_of_no_run_is_one_that_waits(run: Replay) -> None:
    code, out, _ = run("--json", "-", stdin=line(Event("hello")))
    assert json.loads(out)["status"] == "waiting"
    assert code == 0


def test_the_graph_is_printed_and_nothing_else(run: Replay, good: str, bad: str) -> None:
    code, out, err = run("--graph", "dot", good)
    assert (code, err) == (0, "")
    assert out.startswith("digraph")
    assert '"a" -> "b"' in out
    assert run("--graph", "mermaid", good).out.startswith("flowchart TD\n")
    _, out, _ = run("--graph", "json", good, bad)
    assert [len(json.loads(text)["nodes"]) for text in out.splitlines()] == [4, 2]


def test_what_is_wrong_with_a_graph_is_said_beside_it(run: Replay) -> None:
    log = line(orch_planned({"id": "a"}, {"id": "a"}, edges=[("a", "a")], run="r"))
    code, _, err = run("--graph", "dot", "-", stdin=log)
    assert err.splitlines() == [
        "actorstore: graph of run 'r': two nodes have the id 'a'; the first one counts",
        "actorstore: graph of run 'r': unit 'a' depends on itself",
    ]
    assert code == 0


def test_a_log_without_a_graph_has_none_to_print(run: Replay) -> None:
    assert run("--graph", "dot", "-", stdin=line(orch_started())) == (
        2,
        "",
        "actorstore: --graph: no run has a graph\n",
    )


def test_events_of_units_that_are_not_there_are_counted(run: Replay) -> None:
    code, _, err = run("-", stdin=lines(orch_started(units("a")), unit_started("x"), unit_started("y")))
    assert err == "actorstore: 2 events named a unit that the run does not have, and changed nothing\n"
    assert code == 0


def test_what_others_wrote_is_harmless_wherever_it_is_shown(run: Replay, tmp_path: Path) -> None:
    evil = "\x1b[2J\x9b31m\u202e"
    events = [
        orch_started({evil: [evil]}, run=evil),
        unit_failed(evil, evil, run=evil),
        orch_failed(evil, run=evil),
    ]
    (tmp_path / evil).write_bytes(lines(*events) + b'\x1b[2J\n{"type":"\\u009b","run":7}\n')
    for arguments in ([], ["--json"], ["--graph", "dot"], ["--graph", "mermaid"], ["--graph", "json"]):
        _, out, err = run(*arguments, evil)
        assert out
        assert err.count("\n") >= 2
        assert not {"\x1b", "\x9b", "\u202e"} & set(out + err), arguments


# What is read.


def test_packed_logs_and_standard_input_are_read_like_any_file(
    run: Replay, good: str, tmp_path: Path
) -> None:
    data = (tmp_path / good).read_bytes()
    (tmp_path / "good.gz").write_bytes(gzip.compress(data))
    expected = run("--json", good)
    assert run("--json", "good.gz") == expected
    assert run("--json", "-", stdin=data) == expected
    assert run("--json", "-", stdin=gzip.compress(data)) == expected
    assert run("--json", "-", stdin=data.rstrip(b"\n")) == expected


def test_a_log_cut_into_two_files_is_one_run(run: Replay, tmp_path: Path) -> None:
    events = whole_run(chain(3))
    (tmp_path / "1").write_bytes(lines(*events[:5]))
    (tmp_path / "2").write_bytes(lines(*events[5:]))
    assert json.loads(run("--json", "1", "2").out) == snapshot(*events)


def test_recorded_workflows_are_runs_of_their_own_under_names_of_their_own(
    run: Replay, tmp_path: Path
) -> None:
    for file, name in {"1": "w", "2": "w", "3": "v", "4": "w"}.items():
        (tmp_path / file).write_bytes(document({"a": (1, []), "b": (2, ["a"])}, name=name))
    pretty = json.dumps(json.loads((tmp_path / "4").read_bytes()), indent=2)
    (tmp_path / "4").write_text(pretty)
    code, out, _ = run("--json", "1", "2", "3", "4")
    snapshots = [json.loads(text) for text in out.splitlines()]
    assert [found["run"] for found in snapshots] == ["w", "w-2", "v", "w-3"]
    assert {found["summary"]["complete"] for found in snapshots} == {2}
    assert code == 0


def test_a_recorded_workflow_is_carried_out_by_as_many_workers_as_asked_for(
    run: Replay, tmp_path: Path
) -> None:
    (tmp_path / "w").write_bytes(document({f"t{number}": (60, []) for number in range(12)}))
    summaries = {n: run("--machines", n, "w").out.splitlines()[-1] for n in ("1", "12")}
    assert summaries["1"].startswith("w completed in 12:00: 12 of 12 units complete")
    assert summaries["12"].startswith("w completed in 1:00: 12 of 12 units complete")
    assert json.loads(run("--json", "w").out)["parallelism"] == replay.MACHINES


@pytest.mark.skipif(not INSTANCES.is_dir(), reason=f"no recorded workflows in {INSTANCES}")
def test_eight_real_workflows_are_replayed_in_one_go(run: Replay) -> None:
    code, out, err = run(*map(str, sorted(INSTANCES.glob("*.json"))))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith(
        "8 runs completed: 6,010 of 6,010 units complete; 24,056 events replayed in "
    )


# What is wrong.


def test_bad_lines_are_named_and_the_good_ones_applied(run: Replay, tmp_path: Path) -> None:
    first, *others = whole_run(chain(2))
    wrong = b'nope\n\n{"type":""}\n{"type":"x"}{"type":"y"}\n'
    (tmp_path / "log").write_bytes(line(first) + wrong + lines(*others))
    code, out, err = run("--json", "log")
    assert err.splitlines() == [
        "actorstore: log:2: JSON is malformed: invalid character (byte 4)",
        "actorstore: log:4: type: expected `str` of length >= 1",
        "actorstore: log:5: JSON is malformed: trailing characters (byte 13)",
    ]
    assert json.loads(out) == snapshot(first, *others)
    assert code == 2


BLANK_PIECES = b"\n" * (12 << 20)
"""Blank lines, more than are read at a time."""


@pytest.mark.parametrize("first", [b"", b"{\n"])
def test_blank_lines_are_looked_at_once_however_many_there_are(
    run: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    seen: list[int] = []
    look = eventlog.is_document

    def is_document(lines: bytes) -> bool | None:
        seen.append(len(lines))
        return look(lines)

    monkeypatch.setattr(eventlog, "is_document", is_document)
    (tmp_path / "blank.gz").write_bytes(gzip.compress(first + BLANK_PIECES))
    assert run("blank.gz").code == 2
    assert sum(seen) <= len(first + BLANK_PIECES)


def test_what_follows_many_blank_lines_is_found_and_lines_are_counted(run: Replay, tmp_path: Path) -> None:
    blank = len(BLANK_PIECES)
    events = whole_run(chain(2))
    (tmp_path / "log").write_bytes(BLANK_PIECES + lines(*events) + BLANK_PIECES + b"nope\n")
    code, out, err = run("--json", "log")
    assert (
        err
        == f"actorstore: log:{2 * blank + len(events) + 1}: JSON is malformed: invalid character (byte 4)\n"
    )
    assert json.loads(out) == snapshot(*events)
    (tmp_path / "workflow").write_bytes(BLANK_PIECES + document({"a": (1, [])}))
    code, out, err = run("--json", "workflow")
    assert (code, json.loads(out)["summary"]["complete"]) == (0, 1)
    (tmp_path / "cut").write_bytes(BLANK_PIECES + b'{\n"workflow":\n')
    assert run("cut").err.startswith(f"actorstore: cut:{blank + 2}: ")


def test_a_file_of_blank_lines_overwrites_nothing(run: Replay, tmp_path: Path) -> None:
    (tmp_path / "blank").write_bytes(b"\n\n")
    (tmp_path / "kept").write_bytes(b"precious")
    assert run("blank", "--write", "kept").code == 2
    assert (tmp_path / "kept").read_bytes() == b"precious"


def test_a_byte_order_mark_is_left_out_with_a_word(run: Replay, good: str, tmp_path: Path) -> None:
    text = (tmp_path / good).read_bytes()
    plain = run("--json", good)
    (tmp_path / "marked").write_bytes(codecs.BOM_UTF8 + text)
    (tmp_path / "marked.gz").write_bytes(gzip.compress(codecs.BOM_UTF8 + text))
    (tmp_path / "workflow").write_bytes(codecs.BOM_UTF8 + document({"a": (1, [])}))
    for name in ("marked", "marked.gz", "workflow"):
        code, out, err = run("--json", name)
        assert (code, err) == (
            0,
            f"actorstore: {name}: begins with a byte order mark (BOM), which is left out\n",
        )
        assert name == "workflow" or out == plain.out


def test_of_many_bad_lines_the_first_few_are_named_and_more_are_counted(run: Replay, tmp_path: Path) -> None:
    lasts = {5: "log:6: ", 6: "log: 1 more line rejected", 1300: "log: 1,295 more lines rejected"}
    for count, last in lasts.items():
        (tmp_path / "log").write_bytes(line(orch_started()) + b"[]\n" * count)
        _, _, err = run("log")
        said = err.splitlines()
        assert [text.split(": ")[1] for text in said[:5]] == [f"log:{number}" for number in range(2, 7)]
        assert said[-1].startswith(f"actorstore: {last}")
        assert len(said) == (5 if count == 5 else 6)


def test_lines_are_counted_in_each_file_from_1(run: Replay, good: str, tmp_path: Path) -> None:
    big = b"".join(line(Event("x" * 100)) for _ in range(20_000)) + b"oops\n"  # more than is read at a time
    (tmp_path / "big").write_bytes(big)
    (tmp_path / "small").write_bytes(line(orch_started()) + b"oops\n")
    _, _, err = run(good, "big", "small")
    assert [text.split(": ")[1] for text in err.splitlines()] == ["big:20001", "small:2"]


def test_a_failed_run_told_by_bad_input_is_exit_code_2(run: Replay, bad: str, tmp_path: Path) -> None:
    with (tmp_path / bad).open("ab") as file:
        file.write(b"oops\n")
    assert run(bad).code == 2


NEITHER = "neither an event log nor a usable WfFormat instance: "


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty", b"", "empty: holds no event and no workflow"),
        ("blank", b"\n \n\r\n", "blank: holds no event and no workflow"),
        ("fake.gz", b"hello\n", "fake.gz: is no gzip file, although its name ends in .gz"),
        ("text", b"hello\nworld\n" * 100, f"text:1: {NEITHER}JSON is malformed: invalid character (byte 0)"),
        ("late", b"\n\nhello\n", f"late:3: {NEITHER}JSON is malformed: invalid character (byte 0)"),
        ("binary", b"\xff\x00" * 5000, f"binary:1: {NEITHER}not valid UTF-8"),
        ("list.json", b"[1]", f"list.json:1: {NEITHER}Expected `object`, got `array`"),
        ("object.json", b'{"a":1}', f"object.json:1: {NEITHER}Object missing required field `type`"),
        ("pretty.json", b'{\n  "a": 1\n}', f"pretty.json: {NEITHER}Object missing required field `workflow`"),
        ("cut.json", b'{\n  "workflow":\n', f"cut.json:2: {NEITHER}Input data was truncated"),
        ("old.json", b'{"workflow":{"jobs":[]}}', f"old.json: {NEITHER}workflow: object missing required"),
        (
            "circle.json",
            document({"a": (1, ["a"])}),
            f"circle.json: {NEITHER}the tasks are no sound graph: unit",
        ),
        ("long.json", document({"x" * 2000: (1, [])}), "long.json: unit: expected `str` of length <= 1024"),
        ("deep", b'{"a":' * 50_000, f"deep:1: {NEITHER}nested too deeply"),
    ],
)
def test_a_file_with_nothing_to_play_is_refused_in_one_line(
    run: Replay, tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)
    for arguments in ([], ["--json"], ["--graph", "dot"]):
        code, out, err = run(*arguments, name)
        assert err.startswith(f"actorstore: {said}")
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_what_cannot_be_opened_is_refused_in_one_line(run: Replay, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert run("folder") == (2, "", "actorstore: folder: is a directory\n")
    assert run("missing") == (2, "", "actorstore: missing: no such file or directory\n")
    assert run("-") == (2, "", "actorstore: <stdin>: holds no event and no workflow\n")


def test_files_after_a_wrong_one_are_played(run: Replay, good: str) -> None:
    code, out, err = run("missing", good)
    assert "4 of 4 units complete" in out
    assert (code, err.count("\n")) == (2, 1)


def test_a_damaged_file_is_played_as_far_as_it_goes(run: Replay, tmp_path: Path) -> None:
    log = lines(orch_started(chain(5)), *(Event(f"note.{os.urandom(30).hex()}") for _ in range(50_000)))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(log)[:-5000])
    code, out, err = run("cut.gz")
    assert out.splitlines()[0] == "    0:00  run started: 5 units"
    assert err.startswith("actorstore: cut.gz: damaged gzip data: ")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: FILE"),
        (["--speed", "0", "x"], "argument --speed: '0' is not a number above 0"),
        (["--speed", "nan", "x"], "argument --speed: 'nan' is not a number above 0"),
        (["--speed", "fast", "x"], "argument --speed: 'fast' is not a number above 0"),
        (["--machines", "0", "x"], "argument --machines: '0' is not a number of workers, 1 or more"),
        (["--machines", "2.5", "x"], "argument --machines: '2.5' is not a number of workers, 1 or more"),
        (["--graph", "svg", "x"], "argument --graph: invalid choice: 'svg'"),
        (["--json", "--graph", "dot", "x"], "not allowed with argument"),
        (["--frobnicate", "x"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_a_wrong_call_is_exit_code_2(run: Replay, arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)
    assert said in err
    assert (code, out) == (2, "")


def test_help_ends_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.rstrip().splitlines()[-1].strip().startswith("actorstore replay ")
    assert "exit codes:" in text
    assert main(["--help"]) == 0
    assert "examples:\n" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("actorstore ")


def test_a_command_is_one_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frobnicate"]) == 2
    assert "choose from" in capsys.readouterr().err


# --write.


def test_the_events_that_are_kept_tell_the_same_again(run: Replay, tmp_path: Path) -> None:
    (tmp_path / "w.json").write_bytes(document({"a": (1, []), "b": (2, ["a"])}))
    expected = run("--json", "w.json", "--write", "kept.ndjson")
    assert run("--json", "kept.ndjson") == expected
    assert (tmp_path / "kept.ndjson").read_bytes().count(b"\n") == 10


def test_packed_events_are_the_same_bytes_every_time(run: Replay, good: str, tmp_path: Path) -> None:
    for name in ("1.gz", "2.gz"):
        run(good, "--write", name)
    assert (tmp_path / "1.gz").read_bytes() == (tmp_path / "2.gz").read_bytes()
    assert gzip.decompress((tmp_path / "1.gz").read_bytes()) == (tmp_path / good).read_bytes()


def test_lines_are_kept_as_they_came_and_rejected_ones_are_not(run: Replay, tmp_path: Path) -> None:
    first = b'{"type": "orch.started", "mine": [1]}\n'
    last = b'{"type":"orch.completed"}'
    (tmp_path / "log").write_bytes(first + b"oops\n" + last)
    assert run("log", "--write", "kept").code == 2
    assert (tmp_path / "kept").read_bytes() == first + last + b"\n"


def test_a_file_that_is_read_is_not_written(run: Replay, good: str, tmp_path: Path) -> None:
    before = (tmp_path / good).read_bytes()
    os.link(tmp_path / good, tmp_path / "same")
    for name in (good, "same"):
        code, out, err = run(good, "--write", name)
        assert err == f"actorstore: {name}: is read, so the events cannot be written to it\n"
        assert (code, out) == (2, "")
    assert (tmp_path / good).read_bytes() == before


def test_nothing_is_overwritten_where_there_is_nothing_to_keep(run: Replay, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"precious")
    assert run("missing", "--write", "kept").code == 2
    assert (tmp_path / "kept").read_bytes() == b"precious"


def test_what_cannot_be_written_is_refused_in_one_line(run: Replay, good: str) -> None:
    for name, said in {
        "no/such": "no such file or directory",
        "-": "--write needs the name of a file",
    }.items():
        assert run("--json", good, "--write", name) == (2, "", f"actorstore: {name}: {said}\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("packed", [False, True])
def test_a_full_disk_is_refused_in_one_line(run: Replay, good: str, tmp_path: Path, packed: bool) -> None:
    name = "full.gz" if packed else "full"
    (tmp_path / name).symlink_to("/dev/full")
    assert run("--json", good, "--write", name) == (2, "", f"actorstore: {name}: no space left on device\n")


# --speed.


class FakeTime:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    for module in (pace, replay):
        monkeypatch.setattr(module, "time", fake)
    return fake


def events_at(*seconds: float) -> bytes:
    """A line for each time."""
    return lines(*(Event("x", time=at(second)) for second in seconds))


def test_events_are_handed_over_when_they_are_due(fake_time: FakeTime) -> None:
    clock = pace.Pace(10)
    data = events_at(0, 0, 5, 5, 20)
    parts = [(round(fake_time.now - 1000, 6), part.count(b"\n")) for part in clock.parts(data)]
    assert parts == [(0.0, 2), (0.5, 2), (2.0, 1)]


def test_the_pace_is_kept_from_piece_to_piece_and_begins_anew_with_each_file(fake_time: FakeTime) -> None:
    clock = pace.Pace(1)
    for data in (events_at(0, 3), events_at(4), events_at(9)):
        list(clock.parts(data))
    assert fake_time.slept == [3, 1, 5]
    clock.begin()
    list(clock.parts(events_at(500, 501)))
    assert fake_time.slept == [3, 1, 5, 1]


def test_nobody_waits_for_a_line_without_a_time_or_for_one_from_the_past(fake_time: FakeTime) -> None:
    clock = pace.Pace(1)
    data = events_at(10) + b'{"type":"x"}\noops\n{"time":7}\n\n' + events_at(3, 11)
    assert b"".join(clock.parts(data)) == data
    assert fake_time.slept == [1]


def test_a_gap_of_years_is_slept_through_in_pieces(fake_time: FakeTime) -> None:
    list(pace.Pace(1e6).parts(lines(Event("x", time=at(0)), Event("x", time=at(1e9)))))
    assert sum(fake_time.slept) == pytest.approx(1000)
    assert max(fake_time.slept) <= 60


def test_the_recorded_clock_goes_on_between_events_and_not_past_the_next(fake_time: FakeTime) -> None:
    clock = pace.Pace(10)
    assert clock.now() is None
    parts = clock.parts(events_at(0, 50))
    next(parts)
    assert clock.now() == at(0)
    next(parts)  # five seconds later
    assert clock.now() == at(50)
    fake_time.now += 3
    assert clock.now() == at(50)


def test_speed_plays_recorded_workflows_so_many_times_faster(
    run: Replay, tmp_path: Path, fake_time: FakeTime
) -> None:
    (tmp_path / "w").write_bytes(document({"a": (60, []), "b": (120, ["a"])}))
    (tmp_path / "years-later").write_bytes(document({"a": (30, [])}, executed_at="2030-01-01T00:00:00Z"))
    code, out, _ = run("--speed", "60", "w")
    assert fake_time.slept == [1, 2]
    assert out.splitlines()[-1] == "w completed in 3:00: 2 of 2 units complete; 10 events replayed in 3.00 s"
    assert code == 0
    run("--speed", "60", "w", "years-later")
    assert fake_time.slept[2:] == [1, 2, 0.5]


# On a terminal, and as a process.


def test_on_a_terminal_complaints_wait_for_the_screen_to_be_done(
    good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / good).open("ab") as file:
        file.write(b"oops\n")
    terminal = Terminal()
    for name, value in {"TERM": "xterm", "COLUMNS": "60", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["replay", str(tmp_path / good)]) == 2
    screen, _, rest = terminal.getvalue().rpartition("\x1b[?25h")
    assert "4 of 4  100 %" in screen
    assert "oops" not in screen
    assert "good.ndjson:23: JSON is malformed" in rest
    assert "22 events replayed in" in rest.splitlines()[-1]


def python(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    """Start Python with this package, in a process of its own."""
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "TERM": "xterm", "COLUMNS": "60", "LINES": "24"}
    environment.pop("PYTHONUNBUFFERED", None)  # what is left in a buffer is part of the tests
    return subprocess.Popen([sys.executable, *arguments], env=environment, **options)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process ended, whatever happens."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()


def test_without_a_screen_rich_is_not_even_imported(good: str, tmp_path: Path) -> None:
    code = (
        "import sys; from actorstore.cli import main; main(['replay', sys.argv[1]]);"
        "main(['replay', '--json', sys.argv[1]]); assert 'rich' not in sys.modules"
    )
    arguments = "-c", code, str(tmp_path / good)
    with ended(python(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, b"")
    assert b"4 of 4 units complete" in out


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_traceback(arguments: list[str]) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ended(python("-m", "actorstore", "replay", *arguments, "-", **pipes)) as process:
        process.stdin.write(line(orch_started(units("a"))))
        process.stdin.flush()
        if not arguments:
            assert process.stdout.readline() == b"    0:00  run started: 1 unit\n"
        process.stdout.close()
        process.stdin.write(lines(unit_failed("a"), orch_completed()))
        process.stdin.close()
        assert process.wait(SECONDS) == 141
        assert process.stderr.read() == b""


def test_a_bad_line_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(line(orch_started()) + b"oops\n")
    arguments = "-m", "actorstore", "replay", "--json", str(tmp_path / "log")
    with ended(python(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)) as process:
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert err.count(b"\n") == 1


def test_ctrl_c_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(lines(orch_started(units("a")), unit_started("a"), Event("x", time=at(9999))))
    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(slave)
        arguments = "-m", "actorstore", "replay", "--speed", "1", str(log)
        with ended(python(*arguments, stdout=slave, stderr=slave)) as process:
            shown = _read_until(master, b"for")
            assert b"\x1b[?25l" in shown  # the cursor is hidden while the screen is up
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 130
            shown += _read_until(master, b"\x1b[?25h")
        assert b"Traceback" not in shown
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(slave)
        os.close(master)


def _read_until(descriptor: int, expected: bytes) -> bytes:
    """Read from a terminal until something stands there."""
    end = time.monotonic() + SECONDS
    shown = b""
    while expected not in shown:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{expected!r} did not come; there was {shown!r}"
        shown += os.read(descriptor, 65536)
    return shown


# To another store.


def test_a_log_feeds_a_store_that_listens(run: Replay, good: str) -> None:
    with folder() as made, Store(listen=made / "s") as store:
        code, out, err = run("--to", str(store.address), good)
        assert re.fullmatch(rf"22 events replayed to {store.address} in \S+ s\n", out)
        assert (code, err) == (0, "")
        assert store.snapshot().status == "completed"
        assert store.stats().accepted == 22


def test_bad_lines_are_named_as_ever_and_the_good_ones_sent(run: Replay, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(line(orch_started()) + b"oops\n" + line(orch_completed()))
    with folder() as made, Store(listen=made / "s") as store:
        code, _, err = run("--to", str(store.address), "log")
        assert code == 2
        assert err.startswith("actorstore: log:2: ")
        assert store.snapshot().status == "completed"


def test_events_of_units_that_are_not_there_are_counted_for_another_store_too(run: Replay) -> None:
    with folder() as made, Store(listen=made / "s") as store:
        store.handle_event(unit_started("theirs"))
        given = lines(orch_started(units("a")), unit_started("x"), unit_started("y"))
        code, _, err = run("--to", str(store.address), "-", stdin=given)
    assert err == "actorstore: 2 events named a unit that the run does not have, and changed nothing\n"
    assert code == 0


def test_the_recorded_clock_holds_for_another_store_too(
    run: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").write_bytes(lines(orch_started(time=at(0)), orch_completed(time=at(30))))
    slept: list[float] = []
    monkeypatch.setattr(pace, "time", Clock(slept))
    with folder() as made, Store(listen=made / "s") as store:
        assert run("--to", str(store.address), "--speed", "10", "log").code == 0
    assert sum(slept) == pytest.approx(3)


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self, slept: list[float]) -> None:
        self._slept = slept

    def monotonic(self) -> float:
        return sum(self._slept)

    def sleep(self, seconds: float) -> None:
        self._slept.append(seconds)


def test_where_no_store_listens_it_is_exit_code_69(run: Replay, good: str, tmp_path: Path) -> None:
    code, out, err = run("--to", str(tmp_path / "s"), good)
    assert (code, out) == (69, "")
    assert "no store answers at" in err
