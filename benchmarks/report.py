"""Runs the scripts, prints their table, and writes it down with the machine that it is true for."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

from benchmarks.rounds import FULL, QUICK, ROOT, Scale
from benchmarks.table import Row, markdown, text

Measure: TypeAlias = Callable[[Scale], Iterable[Row]]

PAGE = ROOT / "docs" / "benchmarks.md"
_PACKAGES = ("msgspec", "pykka", "celery", "redis", "hiredis")


def script(measure: Measure) -> None:
    """Be one script: answer its question, and print the rows."""
    parser = argparse.ArgumentParser()
    _add_quick(parser)
    given = parser.parse_args()
    print(text(measure(QUICK if given.quick else FULL), judge=not given.quick))


def main(questions: Mapping[str, Measure], arguments: Sequence[str] | None = None) -> None:
    """Be `python -m benchmarks`: answer all questions, print one table, and write the page.

    The page is written only where all of it was measured, at full size.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the store beside what else one would use.",
        epilog="Writes docs/benchmarks.md, unless questions are named or --quick is given. "
        "Example: python -m benchmarks --quick throughput latency",
    )
    _add_quick(parser)
    parser.add_argument(
        "question", nargs="*", help=f"one of {', '.join(questions)}; all, where none is named"
    )
    given = parser.parse_args(arguments)
    unknown = set(given.question) - questions.keys()
    if unknown:
        parser.error(f"no such question: {sorted(unknown)[0]}; there are {', '.join(questions)}")

    scale = QUICK if given.quick else FULL
    began = datetime.now(UTC)
    measured: dict[str, list[Row]] = {}
    for name in given.question or questions:
        print(f"benchmarks: {name} ...", file=sys.stderr, flush=True)
        measured[name] = list(questions[name](scale))
    print(text((row for rows in measured.values() for row in rows), judge=not given.quick))
    if given.quick:
        print("benchmarks: --quick: these numbers only show that all of it runs", file=sys.stderr)
    elif not given.question:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(measured, began, scale))
        print(f"benchmarks: wrote {PAGE}", file=sys.stderr)


def page(measured: Mapping[str, Sequence[Row]], began: datetime, scale: Scale) -> str:
    """Return the page: where a peer wins first, then the table, then where it was measured."""
    rows = [row for rows in measured.values() for row in rows]
    lost = [f"- {row.what}: {row.cells()[1]} ({row.figures})" for row in rows if row.lost]
    missed = [
        f"- {row.what}: {row.cells()[1]}, where {row.bound} is the least ({row.figures})"
        for row in rows
        if row.missed
    ]
    parts = [
        "# Benchmarks",
        "Written by `make bench` (`python -m benchmarks`); do not edit. What is measured, how, and what is "
        "weak about it: [benchmarks/README.md](../benchmarks/README.md).",
        "## Where a peer wins",
        "\n".join(lost) or "Nowhere in this run.",
    ]
    if missed:
        parts += ["## What does not reach its bound", "\n".join(missed)]
    parts.append(
        "## All of it\n\n"
        f"Ratios of {scale.rounds} alternating rounds: the best turn of one over the best turn of the other, "
        'which is what "at least" is held against; the median of the rounds\' own ratios; and the best turns '
        "themselves."
    )
    for name, of_question in measured.items():
        parts += [f"### {name.capitalize()}", markdown(of_question)]
    parts += ["## Measured on", "\n".join(f"- {line}" for line in machine(began))]
    return "\n\n".join(parts) + "\n"


def machine(began: datetime) -> list[str]:
    """Return what the numbers are true for."""
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return [
        f"machine: {_processor()}, {os.cpu_count()} cores, {platform.platform()}{load}",
        f"Python {platform.python_version()} ({platform.python_implementation()}), {packages}",
        f"{_redis()}, {_go()}",
        f"date: {began:%Y-%m-%d %H:%M} UTC",
        "command: `python -m benchmarks`",
    ]


def _add_quick(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick", action="store_true", help="small, to see that it runs; the numbers say nothing"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _redis() -> str:
    try:
        said = subprocess.run(
            ["redis-server", "--version"], check=True, capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "redis-server not installed"
    return " ".join(["redis-server", *said.split()[2:3]])


def _go() -> str:
    try:
        said = subprocess.run(["go", "version"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "go not installed"
    return said.removeprefix("go version ").strip()
