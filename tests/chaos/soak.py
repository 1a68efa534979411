"""All of it at random, for long: `make soak MINUTES=5 SEED=1`.

Plays scenario after scenario, each with a seed of its own, and the tests with
hostile peers among them; then judges times, and says how often each promise was
checked, there and in docs/reliability.md. With no failure in n checks, fewer than
3 in n fail, at 95 % confidence. Stops at the first failure, with what repeats it, and exits with 1.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections import Counter
from typing import Final

from tests.chaos import report
from tests.chaos.checker import Verdict
from tests.chaos.latency import judge_times
from tests.chaos.scenarios import SCENARIOS, scene
from tests.threads import ROOT

HOSTILE: Final = "tests/test_hostile.py"
POWER: Final = "tests/test_power.py"
TESTS: Final = {HOSTILE: "G8", POWER: "F19"}
"""Tests that are played among the scenarios, and what they check."""

IMAGES: Final = 100
"""How many losses of power are drawn each time, of each of six kinds."""


def main() -> int:
    """Play for as long as it was told to, and return the exit code."""
    parser = argparse.ArgumentParser(description="Play scenarios at random, and judge them.")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--only", choices=[*SCENARIOS, "times"], help="play this one once, with this seed")
    args = parser.parse_args()
    if args.only:
        verdict = judge_times() if args.only == "times" else _play(args.only, args.seed, Counter())
        print(verdict)
        return 1 if verdict.broken else 0
    return _soak(args.minutes, args.seed)


def _soak(minutes: float, seed: int) -> int:
    print(f"seed {seed}: make soak MINUTES={minutes:g} SEED={seed} repeats it", flush=True)
    drawn = random.Random(seed)
    end = time.monotonic() + 60 * minutes
    played: Counter[str] = Counter()
    happened: Counter[str] = Counter()
    verdict = Verdict()
    while time.monotonic() < end and not verdict.broken:
        names = [*SCENARIOS, *TESTS]
        drawn.shuffle(names)  # all of them before any comes again
        for name in names:
            number = drawn.randrange(1 << 30)
            verdict.add(_test(name, number) if name in TESTS else _play(name, number, happened))
            played[name] += 1
            if verdict.broken or time.monotonic() >= end:
                break
    if not verdict.broken:
        verdict.add(judge_times())
    print("played:", ", ".join(f"{name} {count}" for name, count in sorted(played.items())))
    print("happened:", ", ".join(f"{name} {count}" for name, count in sorted(happened.items())))
    print(verdict)
    report.write(verdict, happened, minutes, seed)
    return 1 if verdict.broken else 0


def _play(name: str, seed: int, happened: Counter[str]) -> Verdict:
    """Play one scenario; what it raises is a failure like any other."""
    repeat = f"python -m tests.chaos.soak --only {name} --seed {seed}"
    began = time.monotonic()
    with scene(seed, is_quiet=True) as made:
        try:
            verdict = SCENARIOS[name](made)
        except Exception as error:
            verdict = Verdict(broken=[f"{name}: {type(error).__name__}: {error}"])
        happened.update(made.happened)
        log = made.socket.with_name("s.log")
        if verdict.broken and log.exists():
            print(log.read_text()[-2000:], file=sys.stderr)
    if verdict.broken:
        verdict.broken.append(f"{repeat} plays it again")
    print(
        f"{name} {seed}: {time.monotonic() - began:.1f} s, {'BROKEN' if verdict.broken else 'ok'}", flush=True
    )
    return verdict


def _test(name: str, seed: int) -> Verdict:
    """Run tests that draw what they do, with another seed."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", name]
    environment = {**os.environ, "CHAOS_SEED": str(seed), "POWER_IMAGES": str(IMAGES)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    verdict = Verdict()
    repeat = f"CHAOS_SEED={seed} POWER_IMAGES={IMAGES} python -m pytest {name} runs it again"
    for _ in range(6 * IMAGES if name == POWER and not done.returncode else 1):
        verdict.check(TESTS[name], done.returncode == 0, f"{done.stdout.decode()}\n{repeat}")
    took = time.monotonic() - began
    print(f"{name} {seed}: {'BROKEN' if verdict.broken else 'ok'}, {took:.1f} s", flush=True)
    return verdict


if __name__ == "__main__":
    raise SystemExit(main())
