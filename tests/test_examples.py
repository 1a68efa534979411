"""The examples of the documentation run as they stand, and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"

SECONDS = 60
"""How long an example may take, before its test fails."""


def test_the_pipeline_prints_the_state_of_every_unit() -> None:
    process = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "pipeline.py"],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parents[1])},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert [line.rstrip() for line in process.stdout.splitlines()] == [
        "<StateSnapshot of run '' at version 15: failed, 5 units (3 complete, 1 failed, 1 blocked), "
        "error='1 failed'>",
        "fetch    complete",
        "clean    complete",
        "train    failed    MemoryError: the model does not fit",
        "plot     complete",
        "publish  blocked",
    ]
