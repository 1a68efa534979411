"""The examples of the documentation run as they stand, and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"

SECONDS = 60
"""How long an example may take, before its test fails."""


def output(example: str) -> list[str]:
    """Run an example, and return the lines that it prints."""
    process = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / example],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parents[1])},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    return [line.rstrip() for line in process.stdout.splitlines()]


def test_the_pipeline_prints_the_state_of_every_unit() -> None:
    assert output("pipeline.py") == [
        "<StateSnapshot of run '' at version 15: failed, 5 units (3 complete, 1 failed, 1 blocked), "
        "error='1 failed'>",
        "fetch    complete",
        "clean    complete",
        "train    failed    MemoryError: the model does not fit",
        "plot     complete",
        "publish  blocked",
    ]


def test_workers_of_a_pool_report_to_one_store() -> None:
    assert output("workers.py") == ["<StateSnapshot of run '' at version 6: completed, 2 units (2 complete)>"]
