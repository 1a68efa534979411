# ruff: noqa: E501
"""Writes docs/reliability.md: what is promised, who checks it, how often that was done, and what came of it."""

from __future__ import annotations

import subprocess
from collections import Counter
from datetime import UTC, datetime
from typing import Final

from tests.chaos.checker import Verdict
from tests.threads import ROOT

PAGE: Final = ROOT / "docs" / "reliability.md"

PROMISES: Final = {
    "G1": ("an acked event is in every later state, and in the journal", "`tests/chaos/checker.py`"),
    "G2": ("an event counts at most once, whatever is resent", "`tests/chaos/checker.py`"),
    "G3": ("events of one producer apply in its order", "`tests/chaos/checker.py`"),
    "G4": ("versions grow by one an event, and no reader sees one go back", "`tests/chaos/checker.py`"),
    "G5": ("snapshot and updates give the later snapshot, byte for byte", "`tests/chaos/checker.py`"),
    "G6": ("a snapshot asked for after an ack holds the acked events", "`tests/chaos/checker.py`"),
    "G7": (
        "a journal that was killed again and again is whole, checkpoints included",
        "`tests/chaos/checker.py`",
    ),
    "G8": (
        "one bad peer does not stop or slow the others",
        "`tests/chaos/latency.py`, `tests/test_hostile.py`",
    ),
    "G9": ("memory is bounded", "`tests/chaos/latency.py`, `tests/chaos/scenarios.py`"),
    "G11": ("SIGTERM ends the store in time, with all that was accepted", "`tests/chaos/scenarios.py`"),
    "G12": ("the state is a pure function of the journal", "`tests/chaos/checker.py`"),
    "F10": ("frozen readers do not slow the others", "`tests/chaos/latency.py`"),
    "F16": ("of two stores at one socket one wins", "`tests/chaos/scenarios.py`"),
    "F19": ("a loss of power takes only the end, and the store starts", "`tests/test_power.py`"),
    "R": (
        "every bad line is rejected, no good one is, and the producer hears of it",
        "`tests/chaos/checker.py`",
    ),
}
"""Promise -> what it says, and who checks it."""

ELSEWHERE: Final = """
Promises and faults that are checked by `make test` alone, with what they are injected by:

| | what | where |
| --- | --- | --- |
| G7, F05 | damage is found, named, never applied: some 450 flipped bits in WAL and database, one in each byte of the first page, columns of another type, garbage and zeros at the WAL's start | `tests/test_journal.py`, `tests/test_cli_journal.py`, `tests/test_power.py` |
| G10, F16 | one owner a journal | `tests/test_journal.py`, `tests/test_cli_journal.py` |
| F03 | producers that are killed, with a spool | `tests/test_spool.py` |
| F04 | the WAL cut at every byte of its end | `tests/test_journal.py` |
| F06 | `fsync` fails on the n-th call, for each n until a run is clean (`strace`) | `tests/test_faults.py` |
| F07 | the disk is full, and freed, 20 times (a small tmpfs); a quota, a limit on the size of files, and writes that fail (`strace`) | `tests/test_faults.py` |
| F09 | directories and files that cannot be written, are foreign, newer, no files, another user's, or taken away from a running store | `tests/test_journal.py`, `tests/test_durable.py` |
| F14 | an event that can no longer be read, a rule that raises | `tests/test_journal.py`, `tests/test_state.py` |
| F18 | planted bugs: ack before commit, counts apart from events, resume off by one, a dropped update, a swallowed checksum | `tests/test_crash.py`, `tests/test_journal.py` |
"""


def write(verdict: Verdict, happened: Counter[str], minutes: float, seed: int) -> None:
    """Write the page."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = [
        "# Reliability",
        "",
        "Written by `make soak`; do not edit. What each crash can lose is said in [durability](durability.md).",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, commit `{commit or 'unknown'}`, "
        f"`make soak MINUTES={minutes:g} SEED={seed}`.",
        "",
        "With no failure in n checks, fewer than 3 in n fail, at 95 % confidence. The checker is a program of its own that",
        "reads what producers saw acked, what readers saw, and what the journal holds.",
        "",
        "| | promise | checker | checks | failures | fewer than, at 95 % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for promise, (says, checker) in PROMISES.items():
        count = verdict.checked[promise]
        failures = sum(text.startswith(f"{promise}:") for text in verdict.broken)
        bound = f"1 in {count // 3:,}" if count >= 6 and not failures else "-"
        lines.append(f"| {promise} | {says} | {checker} | {count:,} | {failures} | {bound} |")
    told = ", ".join(f"{name} {count:,}" for name, count in sorted(happened.items()))
    lines += ["", f"What happened meanwhile: {told}.", *ELSEWHERE.splitlines()]
    if verdict.broken:
        lines += ["", "What failed:", "", *[f"- {text.splitlines()[0]}" for text in verdict.broken]]
    PAGE.write_text("\n".join(lines) + "\n")
