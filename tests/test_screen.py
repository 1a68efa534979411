"""The live screen: rows as they stand on a terminal of a given size, and a terminal left as it was."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.cells import cell_len
from rich.text import Text

from actorstore import Event, Store
from actorstore.cli.screen import ASCII, LiveView, draw, shorten
from actorstore.cli.view import open_view, recorded_clock
from tests.builders import (
    at,
    lines,
    orch_completed,
    orch_failed,
    orch_planned,
    orch_reset,
    orch_started,
    task_started,
    unit_blocked,
    unit_completed,
    unit_failed,
    unit_started,
    units,
)
from tests.test_view import picture


def rows(*events: Event, width: int = 60, height: int = 24, slots: int = 0, seconds: float = 0) -> list[Text]:
    """The rows after these events, so many seconds after noon: not too wide, and not too many."""
    drawn = draw(picture(*events), at(seconds), width, height, slots=slots)
    assert all(row.cell_len <= width for row in drawn)
    assert len(drawn) <= height
    return drawn


def screen(*events: Event, **size: int) -> list[str]:
    """The same as they are read."""
    return [row.plain.rstrip() for row in rows(*events, **size)]


def release() -> list[Event]:
    """A run of five units in the middle of its work."""
    nodes = [{"id": id, "tasks": 4} for id in ("build", "test", "lint", "docs", "deploy")]
    return [
        orch_planned(*nodes, run="release", parallelism=2),
        unit_started("build", run="release"),
        unit_completed("build", run="release", time=at(40)),
        unit_started("lint", run="release", time=at(40)),
        unit_failed("lint", "E501 line too long", run="release", time=at(45)),
        unit_started("test", run="release", time=at(50)),
        task_started("test", 3, run="release", time=at(80)),
        unit_started("docs", run="release", time=at(30)),
        unit_blocked("deploy", run="release", time=at(45)),
    ]


def test_a_run_shows_its_progress_what_runs_and_what_failed() -> None:
    assert screen(*release(), width=66, slots=3, seconds=100) == [
        "release                                          running      1:40",
        "units  ━━━━━━━━╍╍╍╍╍╍╍╍╍─────────────────────────   1 of  5   20 %",
        "tasks  ━━━━━━━━━━━━──────────────────────────────   6 of 20   30 %",
        "       2 running  0 ready  0 pending  1 failed  1 blocked",
        "",
        "running                                                task    for",
        "  docs                                               0 of 4   1:10",
        "  test                                               3 of 4   0:50",
        "",
        "",
        "failed",
        "  lint  E501 line too long",
    ]


LONG = "CalledProcessError: Command 'gcc -O2 -c file.c' returned non-zero exit status 1."


def last_picture(*events: Event, width: int = 40, height: int = 24) -> list[str]:
    """The rows that stay on the terminal."""
    drawn = draw(picture(*events), at(60), width, height, slots=0, whole=True)
    assert all(row.cell_len <= width for row in drawn)
    return [row.plain.rstrip() for row in drawn]


def test_the_last_picture_has_errors_whole_and_wrapped_below_their_units() -> None:
    events = [
        orch_started(units("compile", "link")),
        unit_failed("compile", LONG, time=at(1)),
        unit_failed("link", "ValueError:\n  no such \x1b[31mfile\n", time=at(2)),
        orch_failed("2 units failed, which is more than there may be", time=at(3)),
    ]
    drawn = last_picture(*events)
    assert drawn[1:3] == ["2 units failed, which is more than there", "may be"]
    assert drawn[drawn.index("failed") :] == [
        "failed",
        "  compile",
        "    CalledProcessError: Command 'gcc -O2",
        "    -c file.c' returned non-zero exit",
        "    status 1.",
        "  link",
        "    ValueError:",
        "      no such \\x1b[31mfile",
    ]
    assert last_picture(*events, height=5) == drawn


def test_the_last_picture_has_errors_beside_their_units_where_all_of_them_fit() -> None:
    drawn = last_picture(orch_started(units("a")), unit_failed("a", "boom"), orch_failed())
    assert drawn[-1] == "  a  boom"


def test_a_run_that_went_well_ends_on_a_full_bar() -> None:
    events = [orch_started(units("a", "b")), unit_completed("a"), unit_completed("b")]
    assert screen(*events, orch_completed(time=at(5)), seconds=99) == [
        "run                                      completed      0:05",
        "units  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  2 of 2  100 %",
    ]


def test_a_run_that_failed_says_why_and_how_many() -> None:
    events = [orch_started(units("a", "b")), unit_failed("a", "boom"), unit_blocked("b")]
    assert screen(*events, orch_failed("a failed")) == [
        "run                                         failed      0:00",
        "a failed",
        "units  ╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍───────────────────  0 of 2    0 %",
        "       1 failed  1 blocked",
        "",
        "failed",
        "  a  boom",
    ]


def test_a_run_without_units_is_one_row() -> None:
    assert screen(orch_started(run="bare"), seconds=3) == [
        "bare                                       running      0:03"
    ]


def test_a_bar_is_full_only_when_all_is_done() -> None:
    many = [f"u{number}" for number in range(1000)]
    almost = screen(orch_started(units(*many)), *map(unit_completed, many[1:]))
    assert " 99 %" in almost[1]
    assert "━─" in almost[1]


def test_the_smallest_failure_shows_on_a_bar() -> None:
    many = [f"u{number}" for number in range(1000)]
    assert "╍" in screen(orch_started(units(*many)), unit_failed("u0"))[1]


def test_rows_of_running_units_stay_where_they_are_while_others_end() -> None:
    started = [unit_started(id, time=at(number)) for number, id in enumerate("abc")]
    before = screen(orch_started(units(*"abcd")), *started, slots=3, seconds=9)
    after = screen(
        orch_started(units(*"abcd")), *started, unit_completed("c"), unit_failed("d"), slots=3, seconds=9
    )
    assert [row[:3] for row in before[2:]] == ["   ", "", "run", "  a", "  b", "  c"]
    assert [row[:3] for row in after[2:]] == ["   ", "", "run", "  a", "  b", "", "", "fai", "  d"]


def test_the_units_that_have_run_longest_come_first_and_the_others_are_counted() -> None:
    many = [f"u{number}" for number in range(9)]
    events = [unit_started(id, time=at(100 - number)) for number, id in enumerate(many)]
    shown = screen(orch_started(units(*many)), *events, height=10, slots=9, seconds=100)
    assert [row.split()[0] for row in shown[5:]] == ["u8", "u7", "u6", "u5", "and"]
    assert shown[-1] == "  and 5 more"


def test_of_many_failures_the_last_are_shown() -> None:
    many = [f"u{number}" for number in range(9)]
    events = [unit_failed(id, f"error {id}") for id in many]
    shown = screen(orch_started(units(*many)), *events, orch_failed(""), height=9)
    assert shown[4:] == ["failed", "  6 more before these", *(f"  {id}  error {id}" for id in many[6:])]


def test_failures_take_no_more_than_half_of_the_room_from_what_runs() -> None:
    many = [f"u{number}" for number in range(20)]
    events = [*map(unit_started, many[:10]), *map(unit_failed, many[10:])]
    shown = screen(orch_started(units(*many)), *events, height=23, slots=10)
    assert shown.index("failed") == 14
    assert len(shown) == 23


def test_a_retry_is_pointed_out() -> None:
    retry = [unit_started("a"), unit_failed("a"), unit_started("a")]
    shown = screen(orch_started(units("a", "b")), *retry, unit_started("b"), slots=2, width=40)
    assert shown[-2:] == [
        "  a                     attempt 2   0:00",
        "  b                                 0:00",
    ]


def test_tasks_have_a_column_where_a_unit_has_several() -> None:
    one = screen(orch_planned({"id": "a", "tasks": 1}), unit_started("a"), slots=1, width=40)
    two = screen(orch_planned({"id": "a", "tasks": 2}), unit_started("a"), slots=1, width=40)
    assert one[-2:] == [
        "running                              for",
        "  a                                 0:00",
    ]
    assert two[-2:] == [
        "running                      task    for",
        "  a                        0 of 2   0:00",
    ]


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60, 80, 120])
@pytest.mark.parametrize("height", [1, 2, 4, 5, 7, 9, 12, 24])
def test_the_screen_fits_any_terminal(width: int, height: int) -> None:
    ids = [f"{name}-{'x' * 60}" for name in ("ä", "漢字", "b", "c", "d")]
    events = [orch_started(units(*ids)), *map(unit_started, ids[:3]), *map(unit_failed, ids[3:])]
    assert rows(*events, width=width, height=height, slots=5)
    assert rows(*events, orch_failed("e" * 999), width=width, height=height, slots=5)


def test_ids_and_errors_are_text_and_nothing_else() -> None:
    evil = "\x1b[31m[red]\x9b2J\u202e\r\n"
    drawn = rows(
        orch_started(units(evil, evil + "b"), run=evil),
        unit_started(evil, run=evil),
        unit_failed(evil + "b", evil, run=evil),
        orch_failed(evil, run=evil),
        width=90,
        slots=2,
    )
    text = "\n".join(row.plain for row in drawn)
    assert not {"\x1b", "\x9b", "\u202e", "\r"} & set(text)
    assert text.count(r"\x1b[31m[red]\x9b2J\u202e\r\n") == 5


def test_a_long_text_is_cut_in_the_middle() -> None:
    assert shorten("short", 5) == "short"
    assert shorten("NFCORE.ALIGN.SORT_12", 11) == "NFCOR…RT_12"
    assert [shorten("abcdef", cells) for cells in range(4)] == ["", "…", "…f", "a…f"]


@pytest.mark.parametrize("cells", range(12))
def test_wide_characters_are_counted_by_the_cells_they_take(cells: int) -> None:
    assert cell_len(shorten("漢字かな交じり文", cells)) <= cells


# On a terminal.


class Terminal(io.StringIO):
    """Where a screen is drawn, as rich and `open_view` see it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def last_frame(self) -> list[str]:
        """The rows that were drawn last, without their colours."""
        return Text.from_ansi(self.getvalue().rpartition("\x1b[2K")[2]).plain.splitlines()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


def test_on_a_terminal_the_view_is_live(store: Store, terminal: Terminal) -> None:
    assert isinstance(open_view(store, out=terminal), LiveView)


def test_a_screen_ends_with_the_end_of_the_run_and_gives_the_cursor_back(
    store: Store, terminal: Terminal
) -> None:
    with LiveView(store, recorded_clock, terminal) as shown:
        store.handle_lines(lines(orch_started(units("a"), run="r"), unit_started("a", run="r")))
        shown.look()
        assert "\x1b[?25l" in terminal.getvalue()
        store.handle_lines(lines(unit_completed("a", run="r"), orch_completed(run="r", time=at(9))))
    assert terminal.last_frame() == [
        "r                                        completed      0:09",
        "units  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  1 of 1  100 %",
    ]
    assert terminal.getvalue().endswith("\x1b[?25h")
    assert "completed in" not in terminal.getvalue()


def test_a_new_run_keeps_no_rows_of_the_one_before(store: Store, terminal: Terminal) -> None:
    with LiveView(store, recorded_clock, terminal) as shown:
        store.handle_event(orch_started(units("a"), parallelism=9, run="wide"))
        shown.look()
        before = len(terminal.last_frame())
        store.handle_event(orch_started(units("a"), parallelism=2, run="narrow"))
        shown.look()
        assert before - len(terminal.last_frame()) == 7


def test_a_screen_that_is_left_by_an_error_gives_the_cursor_back(store: Store, terminal: Terminal) -> None:
    def interrupted() -> None:
        with LiveView(store, recorded_clock, terminal) as shown:
            store.handle_event(orch_started(units("a")))
            shown.look()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue().endswith("\x1b[?25h")


def test_nothing_is_drawn_before_there_is_a_run(store: Store, terminal: Terminal) -> None:
    with LiveView(store, recorded_clock, terminal) as shown:
        store.handle_event(Event("hello"))
        shown.look()
    assert terminal.getvalue() == ""


def test_a_frame_like_the_one_before_is_not_drawn(store: Store, terminal: Terminal) -> None:
    with LiveView(store, recorded_clock, terminal) as shown:
        store.handle_event(orch_started(units("a")))
        shown.look()
        drawn = terminal.getvalue()
        store.handle_event(Event("what.ever"))
        shown.look()
        assert terminal.getvalue() == drawn


def test_the_run_that_started_last_is_on_screen_and_those_that_ended_above_it(
    store: Store, terminal: Terminal
) -> None:
    with LiveView(store, recorded_clock, terminal) as shown:
        store.handle_lines(lines(orch_started(units("a"), run="one"), orch_started(units("b"), run="two")))
        shown.look()
        store.handle_lines(lines(unit_completed("a", run="one"), orch_completed(run="one", time=at(60))))
        shown.look()
        store.handle_lines(lines(orch_failed("bad", run="two"), orch_started(units("c"), run="three")))
    text = Text.from_ansi(terminal.getvalue()).plain
    assert text.count("one completed in 1:00: 1 of 1 unit complete") == 1
    assert text.count("two failed in 0.00 s: 0 of 1 unit complete") == 1
    assert terminal.last_frame()[0].split() == ["three", "running", "0:00"]


def test_a_run_that_was_reset_is_seen_waiting(store: Store, terminal: Terminal) -> None:
    with LiveView(store, recorded_clock, terminal) as shown:
        store.handle_event(orch_started(units("a")))
        shown.look()
        store.handle_event(orch_reset())
    assert terminal.last_frame()[0].split() == ["run", "waiting"]


def test_colours_are_left_out_where_nobody_wants_them(
    store: Store, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with LiveView(store, recorded_clock, terminal):
        store.handle_lines(lines(*release()))
    assert "\x1b[3" not in terminal.getvalue()
    assert "\x1b[9" not in terminal.getvalue()


def test_colours_are_there_otherwise(store: Store, terminal: Terminal) -> None:
    with LiveView(store, recorded_clock, terminal):
        store.handle_lines(lines(*release()))
    assert "\x1b[31mlint" in terminal.getvalue()


def test_a_terminal_without_utf8_gets_ascii(store: Store, terminal: Terminal) -> None:
    terminal.encoding = "ascii"
    with LiveView(store, recorded_clock, terminal):
        store.handle_lines(lines(*release()))
    assert terminal.getvalue().isascii()
    assert ASCII.done * 3 in terminal.getvalue()
