"""The demo: where its graph comes from, how it orchestrates, and how it ends."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from actorstore import Store, cli
from actorstore.answers import StateSnapshot
from actorstore.cli import demo as demo_command
from actorstore.cli.orchestrator import Orchestrator, compile_file
from actorstore.cli.stdlib import Library, find_imports, find_modules
from actorstore.cli.streams import UnwritableError
from actorstore.event import Event
from tests.builders import check_snapshot, fold

REPOSITORY = Path(__file__).parents[1]

SECONDS = 60
"""How long anything that involves processes may take, before its test fails."""

OPEN = "print("
"""A file that does not compile."""


@pytest.fixture
def pool() -> Iterator[Executor]:
    """Threads in place of worker processes: the same interface, and nothing to start."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def write(root: Path, **modules: str | dict[str, str]) -> dict[str, list[Path]]:
    """Write modules, and packages where there is more than one file; return what is found again."""
    for name, source in modules.items():
        files = {f"{name}.py": source} if isinstance(source, str) else source
        for file, text in files.items():
            path = root / file if isinstance(source, str) else root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return find_modules(root, frozenset(modules))


def edges(library: Library) -> set[tuple[str, str]]:
    """The graph of a library, as pairs."""
    return {(edge.from_, edge.to) for edge in library.graph.edges}


def orchestrate(library: Library, pool: Executor, workers: int = 2) -> list[Event]:
    """Run a library to its end; return what was reported."""
    events: list[Event] = []

    def compile_task(unit: str, task: int, file: Path, name: str) -> str:
        events.append(Event.task_started(unit, task))
        return compile_file(file, name)

    Orchestrator(events.append, compile_task, library, pool, workers).run()
    return events


def told(events: list[Event], unit: str) -> list[str]:
    """What was reported about a unit: types, with the number of a task."""
    return [event.type + (f" {event.task}" if event.task else "") for event in events if event.unit == unit]


def result(events: list[Event]) -> StateSnapshot:
    """What a store makes of the events."""
    return check_snapshot(fold(*events).snapshot())


# Where the graph comes from.


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a, b.c as d", {"a", "b"}),
        ("from a.b import c", {"a"}),
        ("from . import a\nfrom .b import c", set()),
        ("if x:\n import a\nelif y:\n import b\nelse:\n import c", {"a", "b", "c"}),
        (
            "try:\n import a\nexcept E:\n import b\nelse:\n import c\nfinally:\n import d",
            {"a", "b", "c", "d"},
        ),
        ("class A:\n import a\nwith x:\n import b\nfor i in x:\n import c", {"a", "b", "c"}),
        ("def f():\n import a\nasync def g():\n import b\nclass A:\n def f(self):\n  import c", set()),
        ("if TYPE_CHECKING:\n import a\nelse:\n import b", {"b"}),
        ("if typing.TYPE_CHECKING:\n import a", set()),
        ("if __name__ == '__main__':\n import a", set()),
        (OPEN, set()),
        ("\0", set()),
    ],
)
def test_an_import_counts_where_importing_the_file_executes_it(
    tmp_path: Path, source: str, names: set[str]
) -> None:
    file = tmp_path / "file.py"
    file.write_text(source)
    assert find_imports(file) == names


def test_modules_and_packages_are_found_without_their_tests(tmp_path: Path) -> None:
    found = write(
        tmp_path,
        module="",
        package={"__init__.py": "", "sub/deep.py": "", "test/test_it.py": "", "sub/tests/more.py": ""},
        only_tests={"test/test_it.py": ""},
        no_source={"library.so": ""},
    )
    assert found == {
        "module": [Path("module.py")],
        "package": [Path("package/__init__.py"), Path("package/sub/deep.py")],
    }


def test_a_unit_depends_on_what_any_of_its_files_imports(tmp_path: Path, pool: Executor) -> None:
    modules = write(
        tmp_path,
        a={"__init__.py": "import a, elsewhere", "x.py": "import b", "y.py": "from c import d"},
        b="",
        c="import b",
    )
    library = Library(tmp_path, modules, pool)
    assert edges(library) == {("a", "b"), ("a", "c"), ("c", "b")}
    assert [(node.id, node.tasks) for node in library.graph.nodes] == [("a", 3), ("b", 1), ("c", 1)]


def test_modules_that_import_each_other_in_a_circle_are_one_unit(tmp_path: Path, pool: Executor) -> None:
    modules = write(tmp_path, z="import a", a="import c", c="import b", b="import a, y", y="", x="import c")
    library = Library(tmp_path, modules, pool)
    assert library.files == {
        "a": [Path("a.py"), Path("b.py"), Path("c.py")],
        "x": [Path("x.py")],
        "y": [Path("y.py")],
        "z": [Path("z.py")],
    }
    assert edges(library) == {("a", "y"), ("x", "a"), ("z", "a")}
    assert library.graph.problems == ()


# How it orchestrates.


def test_every_unit_is_compiled_after_what_it_imports(tmp_path: Path, pool: Executor) -> None:
    modules = write(tmp_path, a="import b", b="import c, d", c="", d={"__init__.py": "", "x.py": ""}, e="")
    events = orchestrate(Library(tmp_path, modules, pool), pool)
    assert told(events, "d") == [
        "unit.queued",
        "unit.started",
        "task.started 1",
        "task.started 2",
        "unit.completed",
    ]
    order = [(event.type, event.unit) for event in events]
    for importer, imported in [("a", "b"), ("b", "c"), ("b", "d")]:
        assert order.index(("unit.completed", imported)) < order.index(("unit.queued", importer))
    snapshot = result(events)
    assert (snapshot.status, snapshot.parallelism) == ("completed", 2)
    assert [(unit.id, unit.status, unit.current_task, unit.total_tasks) for unit in snapshot.units] == [
        ("a", "complete", 1, 1),
        ("b", "complete", 1, 1),
        ("c", "complete", 1, 1),
        ("d", "complete", 2, 2),
        ("e", "complete", 1, 1),
    ]


def test_no_more_units_are_under_way_than_there_are_workers(tmp_path: Path, pool: Executor) -> None:
    modules = write(tmp_path, **{f"m{number}": "" for number in range(9)})
    events = orchestrate(Library(tmp_path, modules, pool), pool, workers=3)
    under_way = [fold(*events[:end]).snapshot().summary.in_progress for end in range(len(events))]
    assert max(under_way) == 3


def test_a_broken_module_fails_holds_up_its_dependants_and_is_retried(tmp_path: Path, pool: Executor) -> None:
    root, folder = tmp_path / "root", tmp_path / "copies"
    folder.mkdir()
    modules = write(root, a="import b", b="import c", c="x = 1\n", d="")
    library = Library(root, modules, pool)
    library.plant(Path("c.py"), folder)
    events = orchestrate(library, pool)
    assert told(events, "c") == [
        "unit.queued",
        "unit.started",
        "task.started 1",
        "unit.failed",
        "unit.queued",
        "unit.started",
        "task.started 1",
        "unit.completed",
    ]
    for unit in ("a", "b"):
        assert told(events, unit) == [
            "unit.blocked",
            "unit.queued",
            "unit.started",
            "task.started 1",
            "unit.completed",
        ]
    [failure] = [event for event in events if event.type == "unit.failed"]
    assert failure.error == "SyntaxError: '(' was never closed (c.py, line 3)"
    order = [(event.type, event.unit) for event in events]
    retry = len(order) - order[::-1].index(("unit.queued", "c"))
    assert order.index(("unit.completed", "d")) < retry, "a retry waits until nothing else can go on"
    snapshot = result(events)
    assert (snapshot.status, snapshot.summary.complete) == ("completed", 4)
    assert snapshot.unit("c").attempts == 2
    assert (root / "c.py").read_text() == "x = 1\n"


def test_what_cannot_be_mended_fails_the_run(tmp_path: Path, pool: Executor) -> None:
    modules = write(tmp_path, a="import b", b=OPEN, c="", d=OPEN)
    snapshot = result(orchestrate(Library(tmp_path, modules, pool), pool))
    assert (snapshot.status, snapshot.error) == ("failed", "2 of 4 units did not compile")
    assert [unit.status for unit in snapshot.units] == ["blocked", "failed", "complete", "failed"]


def test_the_other_files_of_a_failed_unit_are_not_begun(tmp_path: Path, pool: Executor) -> None:
    modules = write(tmp_path, a={f"{name}.py": OPEN if name == "b" else "" for name in "abcdef"}, z="")
    events = orchestrate(Library(tmp_path, modules, pool), pool, workers=1)
    assert told(events, "a")[-3:] == ["task.started 1", "task.started 2", "unit.failed"]
    assert told(events, "z")[-1] == "unit.completed"


def test_files_under_way_when_their_unit_fails_change_nothing_afterwards(
    tmp_path: Path, pool: Executor
) -> None:
    modules = write(tmp_path, a={f"{name}.py": OPEN for name in "abcd"})
    events = orchestrate(Library(tmp_path, modules, pool), pool, workers=4)
    assert [type for type in told(events, "a") if type.startswith("unit.")] == [
        "unit.queued",
        "unit.started",
        "unit.failed",
    ]


def test_a_file_that_cannot_be_read_is_a_failure_like_any_other(tmp_path: Path) -> None:
    assert compile_file(tmp_path / "gone.py", "gone.py").startswith("FileNotFoundError: ")
    (tmp_path / "null.py").write_text("\0")
    assert "null bytes" in compile_file(tmp_path / "null.py", "null.py")
    (tmp_path / "good.py").write_text("x = 1")
    assert compile_file(tmp_path / "good.py", "good.py") == ""


# The command.


Demo = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Start the command in a group of its own, as a shell does; no process and no file of it may stay."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "actorstore", "demo", "--workers", "2", *arguments],
                cwd=REPOSITORY,
                env={**os.environ, "TMPDIR": str(temporary)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    try:
        for process in started:
            wait_until(lambda: not is_alive(process), "the demo has left processes behind")
        assert list(temporary.iterdir()) == []
    finally:
        for process in started:
            if is_alive(process):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def is_alive(leader: subprocess.Popen[str]) -> bool:
    """Whether a process, or any other of its group, is alive."""
    leader.poll()
    try:
        os.killpg(leader.pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for something that nobody announces."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)  # processes come and go without telling us


def test_the_standard_library_is_compiled_and_a_broken_module_is_retried(demo: Demo) -> None:
    process = demo("--json", "--break", "typing")
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "")
    assert out.count("\n") == 1
    snapshot = check_snapshot(msgspec.json.decode(out, type=StateSnapshot))
    assert (snapshot.status, snapshot.parallelism) == ("completed", 2)
    assert snapshot.summary.complete == snapshot.summary.total > 100
    assert {unit.id: unit.attempts for unit in snapshot.units if unit.attempts != 1} == {"typing": 2}
    assert all(unit.current_task == unit.total_tasks > 0 for unit in snapshot.units)


def test_ctrl_c_ends_the_run_and_its_workers(demo: Demo) -> None:
    process = demo("--break", "typing")
    assert process.stdout is not None
    assert "run started" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of them
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == cli.INTERRUPTED
    assert "run failed: interrupted" in out
    assert "Traceback" not in err


def test_workers_leave_when_the_demo_is_killed(demo: Demo, tmp_path: Path) -> None:
    process = demo()
    assert process.stdout is not None
    assert "run started" in process.stdout.readline()
    process.kill()
    wait_until(lambda: not is_alive(process), "the demo has left processes behind")
    (folder,) = (tmp_path / "temporary").iterdir()  # a killed store cannot remove its socket
    assert {path.name for path in folder.iterdir()} == {"store.sock", "store.sock.lock"}
    shutil.rmtree(folder)


@pytest.fixture
def small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of three modules in place of the standard one."""
    root = tmp_path / "library"
    write(root, a="import b", b="", c="")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(root))
    monkeypatch.setattr("sys.stdlib_module_names", frozenset("abc"))
    return root


@pytest.mark.usefixtures("small_library")
def test_a_run_ends_with_its_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--workers", "1", "--break", "b"]) == 0
    out, err = capfd.readouterr()
    assert "unit b failed: SyntaxError: '(' was never closed (b.py, line 2)\n" in out
    assert re.fullmatch(
        "reading the 3 files of the standard library of Python .*\n"
        "to look in from elsewhere: actorstore state --socket .*/store.sock\n"
        "compiled 3 units, 3 files in .* s; b failed once and held up 1\n",
        err,
    )


def test_a_library_that_does_not_compile_fails_the_run(
    small_library: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(small_library, c=OPEN)
    assert cli.main(["demo", "--workers", "1"]) == 1
    out, err = capfd.readouterr()
    assert "run failed: 1 of 3 units did not compile\n" in out
    assert "compiled 2 of 3 units, 2 files in " in err


def die(*_: object) -> None:
    """What a worker does that is killed."""
    os._exit(9)


class Broken(io.StringIO):
    """An output whose reader has gone away."""

    def write(self, _: str) -> int:
        raise UnwritableError(BrokenPipeError(errno.EPIPE, "broken pipe"))


@pytest.mark.usefixtures("small_library")
def test_a_run_ends_early_where_its_output_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def report_for_long(_: Store, report: Callable[[Event], None], *__: object) -> None:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            report(Event.orch_started())
        pytest.fail("it went on for as long as it had something to do")

    monkeypatch.setattr(demo_command, "orchestrate", report_for_long)
    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(UnwritableError):
        demo_command.run(argparse.Namespace(json=False, workers=1, broken=None))


@pytest.mark.usefixtures("small_library")
def test_a_worker_that_dies_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("actorstore.cli.demo.compile_task", die)
    assert cli.main(["demo", "--workers", "1"]) == 1
    assert "run failed: a worker process died\n" in capfd.readouterr().out


def test_a_python_without_sources_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdlib_module_names", frozenset())
    assert cli.main(["demo"]) == 1
    assert "has no source files in " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("typng", "did you mean typing?"),
        ("sys", "try typing"),
        ("no\x1b[31m", "try typing"),
        ("", "try typing"),
    ],
)
def test_a_module_that_cannot_be_broken_is_refused(
    name: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--break", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("actorstore demo: --break: no module ")
    assert err.endswith(f"; {hint}\n")
    assert "\x1b" not in err


@pytest.mark.parametrize("count", ["0", "-1", "65", "two", "1.5", "²", ""])
def test_a_number_of_workers_that_makes_no_sense_is_refused(
    count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--workers", count]) == 2
    assert "is not a number from 1 to 64" in capsys.readouterr().err
