"""Where events come from: whole lines out of whatever is read, and documents told from logs."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstore.cli.eventlog import InputError, cut, is_document, whole_lines


class Trickle:
    """A stream that gives its pieces one by one, as a pipe does."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read1(self, size: int, /) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


@given(st.lists(st.sampled_from([b"a", b"\n", b"bc\n", b"\n\nd", b"\r\n"]), max_size=12))
def test_what_is_read_in_any_pieces_comes_out_as_the_same_whole_lines(pieces: list[bytes]) -> None:
    got = list(cut(Trickle(*pieces)))
    assert all(lines.endswith(b"\n") for lines in got)
    data = b"".join(pieces)
    assert b"".join(got) == (data if data.endswith(b"\n") or not data else data + b"\n")


def test_lines_are_given_out_as_soon_as_they_are_whole() -> None:
    lines = cut(Trickle(b"one\ntw", b"o\nthree\n"))
    assert next(lines) == b"one\n"
    assert next(lines) == b"two\nthree\n"


def test_a_line_without_end_is_not_kept_in_memory() -> None:
    (line,) = cut(Trickle(*[b"x" * 100] * 1000), max_line_bytes=1000)
    assert 1000 < len(line) <= 1200


def test_lines_after_one_that_is_too_long_are_read() -> None:
    got = b"".join(cut(Trickle(b"a\n" + b"x" * 50, b"x" * 50, b"x" * 50, b"x\nb\n"), max_line_bytes=60))
    first, long, last = got.splitlines()
    assert (first, last) == (b"a", b"b")
    assert len(long) > 60


def test_a_packed_file_is_unpacked_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("log.gz", "log.ndjson"):
        (tmp_path / name).write_bytes(gzip.compress(b"a\nb"))
        assert b"".join(whole_lines(str(tmp_path / name))) == b"a\nb\n"


def test_files_that_were_packed_one_after_the_other_are_one(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert b"".join(whole_lines(str(path))) == b"a\nb\n"


def test_standard_input_is_read_packed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"a\n", gzip.compress(b"a\n")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
        assert list(whole_lines("-")) == [b"a\n"]


def test_a_closed_standard_input_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="is closed"):
        list(whole_lines("-"))


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert list(whole_lines(str(tmp_path / "empty"))) == []


def test_what_cannot_be_read_is_said_in_a_word(tmp_path: Path) -> None:
    (tmp_path / "plain.gz").write_bytes(b"a\n")
    for name, reason in [
        ("missing", "no such file or directory"),
        (".", "is a directory"),
        ("plain.gz", "is no gzip file"),
        ("a" * 300, "file name too long"),
    ]:
        with pytest.raises(InputError) as error:
            list(whole_lines(str(tmp_path / name)))
        assert reason in error.value.reason


@pytest.mark.parametrize("damage", ["truncated", "flipped", "checksum"])
def test_the_lines_before_the_damage_of_a_packed_file_are_read(tmp_path: Path, damage: str) -> None:
    text = b"".join(b"line %d\n" % number for number in range(300_000))
    data = bytearray(gzip.compress(text, 1))
    if damage == "truncated":
        del data[-100:]
    elif damage == "flipped":
        data[-1000:-900] = b"\xff" * 100
    else:
        data[-8] ^= 1
    path = tmp_path / "log.gz"
    path.write_bytes(data)
    pieces = whole_lines(str(path))
    read: list[bytes] = []
    with pytest.raises(InputError, match="damaged gzip data"):
        read.extend(pieces)
    got = b"".join(read)
    assert got.endswith(b"\n")
    assert text.startswith(got)
    assert len(got) > 1_000_000


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"", None),
        (b"\n \n", None),
        (b'{"type":"orch.started"}\n', False),
        (b'{"workflow":{},"name":"w"}\n', True),
        (b'\n  {"workflow":{}}\n', True),
        (b'{"type":"x","workflow":{}}\n', False),
        (b'{"name":"w"}\n', False),
        (b"[1]\n", False),
        (b"[\n1]\n", False),
        (b"hello\n", False),
        (b"\xff\xfe\n", False),
        (b'{"a":"\xff"}\n', False),
        (b"[" * 100_000 + b"\n", False),
        (b'{"a":' * 100_000 + b"\n1\n", False),
        (b"{\n", None),
        (b"{\n\n", None),
        (b'{\n  "name": "w",\n', True),
        (b'{"name": "w",\n "workflow":\n', True),
        (b'{"type":"unit.sta\n{"type":"unit.started"}\n', False),
    ],
)
def test_a_document_is_told_from_a_log_by_its_first_lines(lines: bytes, expected: bool | None) -> None:
    assert is_document(lines) is expected
