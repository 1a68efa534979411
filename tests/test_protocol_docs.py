"""The page of the protocol is what the code does: its tables, its transcript, and its two producers."""

from __future__ import annotations

import ast
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actorstore import Store
from actorstore.address import MAX_PATH_BYTES
from actorstore.asking import MAX_OPEN_QUESTIONS, PLACES
from actorstore.connection import LINE_BYTES, WARY_LINES
from actorstore.event import MAX_ID_BYTES
from actorstore.handover import MAX_BYTES, MAX_ITEMS
from actorstore.handshake import RETRIED
from actorstore.protocol import MAX_CONTROL_BYTES, PROTOCOL, Ask, Hello, Welcome
from actorstore.questions import KINDS
from actorstore.wire import MAX_LINE_BYTES
from tests.builders import line, lines, orch_started, unit_completed, unit_started, units
from tests.raw import Raw, folder
from tests.threads import ROOT, SECONDS, in_actor, spawn, wait_until

PAGE = (ROOT / "docs/protocol.md").read_text()
EXAMPLES = ROOT / "docs/examples"
STORE = "5ca1ab1e5ca1ab1e"
"""What the page takes for the id of a store."""

Message = dict[str, Any]


@pytest.fixture
def path() -> Iterator[Path]:
    with folder() as made:
        yield made / "s"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(listen=path) as store:
        yield store


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def tables(text: str) -> list[dict[str, list[str]]]:
    """The tables of a text: the other cells of each row, by its first one, which is code."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in row.strip("|").split(" |")] for row in table.splitlines()[2:]]
        found.append({row[0].strip(" `"): row[1:] for row in rows})
    return found


# The tables.


@pytest.mark.parametrize(
    ("heading", "number", "struct"),
    [("hello, welcome", 0, Hello), ("hello, welcome", 1, Welcome), ("ask, answer", 0, Ask)],
)
def test_a_table_of_fields_has_every_field_and_says_which_are_required(
    heading: str, number: int, struct: type[msgspec.Struct]
):
    documented = tables(section(heading))[number]
    assert list(documented) == list(struct.__struct_fields__)
    if struct is Welcome:
        return  # nobody but the store writes it
    required = {field.encode_name for field in msgspec.structs.fields(struct) if field.required}
    assert {name for name, cells in documented.items() if "required" in cells[0]} == required


def test_the_table_of_questions_has_every_question():
    assert list(tables(section("ask, answer"))[1]) == [*KINDS, "forget"]


def test_the_table_of_questions_names_the_parts_of_each_answer(store: Store, path: Path):
    store.handle_lines(line(orch_started(units("a"))))
    store.handle_lines(b'{"type":"orch.completed"}\n')
    documented = tables(section("ask, answer"))[1]
    with Raw(path) as client:
        client.hello()
        cursor = client.asked(0, "snapshot")["cursor"]
        for number, what in enumerate(KINDS, 1):
            asked = client.asked(number, what)
            named = set(re.findall(r"`(\w+)`", documented[what][2].split(";")[0].split(",")[0]))
            assert set(asked) == {"id"} | named, what
        assert set(client.asked(99, "snapshot", since=cursor)) == {"id", "update"}
        assert "graph" in client.asked(100, "update")["update"]


def test_the_table_of_questions_names_the_fields_that_make_a_difference():
    documented = {
        what: set(re.findall(r"`(\w+)`", cells[1]))
        for what, cells in tables(section("ask, answer"))[1].items()
    }
    read = {what: set(re.findall(r"ask\.(\w+)", _source(what))) for what in KINDS}
    read["snapshot"].add("at")  # which is answered beside the actor
    assert documented == {**read, "forget": set()}


def _source(what: str) -> str:
    """What a question looks at: `_cursor` reads `since`, and `_is_unheard_of` that and `run`."""
    source = (ROOT / "actorstore/questions.py").read_text()
    [entry] = re.findall(rf'"{what}": Kind\((.*?)\),\n', source, re.DOTALL)
    for name in re.findall(r"\b_(?:next|connect|wait)\b", entry):
        entry += source.split(f"def {name}(")[1].split("\n\n\n")[0]
    return entry.replace("_cursor(ask)", "ask.since").replace("_is_unheard_of(", "ask.since, ask.run (")


def codes(kind: str, *modules: str) -> set[str]:
    """The codes that are written in the source, as the first argument of a `Violation` or `Refusal`."""
    found = set()
    for module in modules:
        for node in ast.walk(ast.parse((ROOT / f"actorstore/{module}.py").read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == kind:
                match node.args[0]:
                    case ast.Constant(str(code)):
                        found.add(code)
                    case ast.JoinedStr([ast.Constant("bad_"), ast.FormattedValue()]):
                        found |= {"bad_hello", "bad_ask", "bad_bye"}
                    case other:
                        raise AssertionError(f"a code that is not plainly written: {ast.dump(other)}")
    return found


def test_the_table_of_errors_of_questions_has_every_code():
    assert set(tables(section("Errors"))[0]) == codes("Refusal", "questions", "asking")


def test_the_table_of_errors_of_connections_has_every_code_and_says_which_may_be_tried_again():
    documented = tables(section("Errors"))[1]
    refused = {
        "closed",
        "failed",
        "journal_failed",
    }  # what a connection hears of `refused`, besides violations
    assert set(documented) == codes("Violation", "protocol", "connection", "server") | refused
    assert {code for code, cells in documented.items() if cells[0] == "yes"} == set(RETRIED)


def test_the_table_of_limits_has_the_limits():
    documented = list(tables(section("Limits"))[0].values())
    assert f"{MAX_LINE_BYTES >> 20} MiB" in documented[0][0]
    assert f"{MAX_CONTROL_BYTES:,} bytes" in documented[1][0]
    assert f"{MAX_ID_BYTES:,} bytes" in documented[2][0]
    assert documented[4][0] == f"{MAX_OPEN_QUESTIONS:,}"
    assert f"{MAX_ITEMS:,} chunks or {MAX_BYTES >> 10} KiB" in documented[5][0]
    assert f"counts as {LINE_BYTES} bytes at least" in documented[5][0]
    assert documented[6][0] == f"{WARY_LINES}"
    assert documented[7][0] == f"{PLACES}; of the past 1"
    assert f"at most {MAX_PATH_BYTES} bytes" in section("Transport")
    assert f"version {PROTOCOL}." in PAGE


def test_the_lines_on_the_page_are_json():
    found = [
        row
        for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
        for row in block.splitlines()
    ]
    assert len(found) == 8
    assert all(len(json.loads(row)) == 1 for row in found)


# The transcript.


class Side:
    """One connection of the transcript: what is to be written together, and what is to be heard then."""

    def __init__(self, path: Path) -> None:
        self.raw = Raw(path)
        self.said = b""
        self.is_done = False  # whether nothing is said after that
        self.expected: list[str] = []

    def settle(self, real: str) -> None:
        """Write what was said, and compare what is heard; acks and answers may pass each other."""
        if self.said:
            self.raw.send(self.said.replace(STORE.encode(), real.encode()))
            self.said = b""
        if self.is_done:
            self.raw.half_close()
        expected, self.expected = self.expected, []
        closes = expected[-1:] == ["(closes)"]
        texts = [text.replace(STORE, real) for text in expected if text != "(closes)"]
        heard = self.raw.rest() if closes else [self.raw.read() for _ in texts]
        assert _sorted(heard) == _sorted([json.loads(text) for text in texts])

    def close(self) -> None:
        self.raw.close()


def _sorted(messages: list[Message]) -> list[Message]:
    """Acks and rejections in their order, then answers."""
    return sorted(messages, key=lambda message: (message.get("answer") or {"id": -1})["id"])


def transcript() -> list[list[tuple[str, str, str]]]:
    """The blocks: who (C or S), which connection, what."""
    blocks = re.findall(r"^```transcript\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    parsed = [
        [re.fullmatch(r"([CS])(\d?):(?: (.*))?", row) for row in block.splitlines()] for block in blocks
    ]
    assert all(row for block in parsed for row in block)
    return [[(row[1], row[2], row[3] or "") for row in block if row] for block in parsed]


def replay(block: list[tuple[str, str, str]], path: Path, real: str) -> None:
    """Say what the clients say, and compare what the store says whenever a client goes on."""
    sides: dict[str, Side] = {}
    with ExitStack() as stack:
        for who, number, what in block:
            if number not in sides:
                sides[number] = Side(path)
                stack.callback(sides[number].close)
            if who == "S":
                sides[number].expected.append(what)
                continue
            if any(side.expected for side in sides.values()):
                settle(sides, real)
            if what == "(closes its half)":
                sides[number].is_done = True
            else:
                sides[number].said += what.encode() + b"\n"
        settle(sides, real)


def settle(sides: Mapping[str, Side], real: str) -> None:
    """Those first who speak, because the others may hear of it."""
    for side in sorted(sides.values(), key=lambda side: not side.said):
        side.settle(real)


def test_the_transcript_is_what_happens(store: Store, path: Path):
    real = in_actor(store, lambda actor: actor.store_id)
    blocks = transcript()
    assert len(blocks) == 6
    for block in blocks:
        replay(block, path, real)
        wait_until(lambda: store.stats().connections == 0 and not store.snapshot().connected)


def test_the_transcript_shows_every_line_that_there_is():
    said = {
        next(iter(json.loads(what)))
        for block in transcript()
        for who, _, what in block
        if who == "S" and what[0] == "{"
    }
    assert said == {"welcome", "ack", "reject", "answer", "error"}
    asked = "".join(what for block in transcript() for who, _, what in block if who == "C")
    assert all(f'{{"{control}":' in asked for control in ("hello", "ask", "bye"))


def test_a_wrong_word_in_the_transcript_is_noticed(store: Store, path: Path):
    real = in_actor(store, lambda actor: actor.store_id)
    first = transcript()[0]
    wrong = [(who, number, what.replace('"lines":2', '"lines":3')) for who, number, what in first]
    assert wrong != first
    with pytest.raises(AssertionError):
        replay(wrong, path, real)


# The producers.


def run(*args: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        list(map(str, args)), input=stdin, capture_output=True, timeout=2 * SECONDS, check=False
    )


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.mark.parametrize(
    ("heading", "name"), [("A producer in shell", "producer.sh"), ("A producer in Node.js", "producer.mjs")]
)
def test_the_page_shows_the_producers_that_are_run(heading: str, name: str):
    [code] = re.findall(r"^```\w+\n(.*?)^```", section(heading), re.DOTALL | re.MULTILINE)
    assert code == (EXAMPLES / name).read_text()


@needs("nc")
def test_the_line_of_shell_feeds_a_store(store: Store, path: Path):
    [code] = re.findall(
        r"^```sh\n(.*?)^```", section("A producer that just writes"), re.DOTALL | re.MULTILINE
    )
    store.handle_lines(line(orch_started(units("compile"))))
    done = run("sh", "-c", code.replace('"$XDG_RUNTIME_DIR/actorstore/store.sock"', f"'{path}'"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    wait_until(lambda: store.snapshot().unit("compile").status == "in_progress")


@needs("nc")
def test_the_producer_in_shell_feeds_a_store(store: Store, path: Path):
    done = run("sh", EXAMPLES / "producer.sh", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"6 events accepted\n", b"")
    snapshot = store.snapshot()
    assert (snapshot.status, snapshot.summary.complete, snapshot.version) == ("completed", 2, 6)


@needs("nc")
def test_the_producer_in_shell_fails_where_nobody_listens(path: Path):
    done = run("sh", EXAMPLES / "producer.sh", path)
    assert done.returncode == 1
    assert b"the store was gone" in done.stderr


@needs("node")
def test_the_producer_in_node_feeds_a_store_and_says_what_was_rejected(store: Store, path: Path):
    events = (
        lines(orch_started(units("a")), unit_started("a")) + b'\n{"type":7}\n' + line(unit_completed("a"))
    )
    done = run("node", EXAMPLES / "producer.mjs", path, stdin=events)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"line 4: type: expected `str`, got `int`\n"
    assert (store.snapshot().unit("a").status, store.stats().version) == ("complete", 3)
    assert in_actor(store, lambda actor: list(actor._producers)) == []


class Cutter:
    """A proxy that loses the first acks of each of the first connections, and the connection with them.

    Args:
        path: Where it listens.
        store: The socket of the store.
        cuts: How many connections are lost.
    """

    def __init__(self, path: Path, store: Path, cuts: int) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(SECONDS)
        self._store = store
        self.cuts = cuts
        self.served = 0
        self._is_done = threading.Event()

    def serve(self) -> None:
        """Serve one connection after the other, until `close`."""
        while True:
            client, _ = self._listener.accept()
            if self._is_done.is_set():
                client.close()
                self._listener.close()
                return
            with client, socket.socket(socket.AF_UNIX) as store:
                store.connect(str(self._store))
                self._exchange(client, store)
            self.served += 1

    def _exchange(self, client: socket.socket, store: socket.socket) -> None:
        forth = spawn(_forward, client, store, lambda _: True)
        _forward(store, client, lambda data: self.served >= self.cuts or b'"ack"' not in data)
        for end in (client, store):
            _shut(end)
        forth.result(SECONDS)

    def close(self) -> None:
        self._is_done.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self._listener.getsockname())


def _forward(source: socket.socket, target: socket.socket, goes_on: Callable[[bytes], bool]) -> None:
    try:
        while (data := source.recv(1 << 16)) and goes_on(data):
            target.sendall(data)
    except OSError:
        return  # the other direction was cut


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was closed by the other end


@needs("node")
def test_the_producer_in_node_sends_each_line_once_though_connections_and_acks_are_lost(
    store: Store, path: Path
):
    events = lines(orch_started(units("a")), *(unit_started("a") for _ in range(5000)))
    cutter = Cutter(path.with_name("p"), path, cuts=3)
    serving = spawn(cutter.serve)
    done = run("node", EXAMPLES / "producer.mjs", path.with_name("p"), stdin=events)
    cutter.close()
    serving.result(SECONDS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert cutter.served >= 3
    assert store.snapshot().unit("a").attempts == 5000
    assert store.stats().version == 5001


@needs("node")
def test_the_producer_in_node_gives_up_where_the_store_refuses_it(store: Store, path: Path):
    listener = path.with_name("other")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listener))
        server.listen()
        server.settimeout(SECONDS)

        def refuse() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1 << 16)
                client.sendall(b'{"error":{"code":"wrong_protocol","message":"no, thank you"}}\n')

        refusing = spawn(refuse)
        done = run("node", EXAMPLES / "producer.mjs", listener, stdin=line(orch_started()))
        refusing.result(SECONDS)
    assert done.returncode == 1
    assert b"no, thank you" in done.stderr
