"""Journals that earlier versions wrote: every later one reads them, and says the same."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from actorstore.cli import main
from actorstore.journalfile import FORMAT
from tests.golden.make import FOLDER, said

ARCHIVES = sorted(FOLDER.glob("format-*.tar.gz"))


def test_there_are_journals_of_this_format() -> None:
    assert FOLDER / f"format-{FORMAT}.tar.gz" in ARCHIVES


@pytest.mark.parametrize("name", ["whole", "cut", "killed"])
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def test_a_journal_of_an_earlier_version_says_what_it_said_then(
    tmp_path: Path, archive: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    assert said(tmp_path, name) == json.loads((tmp_path / f"{name}.json").read_text())
    assert main(["journal", "check", str(tmp_path / name)]) == 0
    assert "is whole" in capsys.readouterr().out
