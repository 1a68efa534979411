"""What holds for every test: how examples are drawn, and that no thread of a store outlives its test.

Examples are the same in every run. `HYPOTHESIS_PROFILE=random` draws new ones, and
`HYPOTHESIS_PROFILE=thorough` many more; what fails is printed with what reproduces it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A shell's background job ignores the first, a job of nohup the second, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


pytest.register_assert_rewrite("tests.builders")

STOP_SECONDS = 5
"""How long a thread that is told to stop may take, before its test counts as leaving it behind."""

BASE = settings(
    deadline=None, max_examples=100, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fixed", BASE, derandomize=True, database=None)
settings.register_profile("random", BASE, derandomize=False)
settings.register_profile("thorough", BASE, derandomize=False, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


OURS = ("StoreActor", "StoreLink", "StoreServer")
"""How the names of threads begin that belong to stores, here and elsewhere."""


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(OURS)}


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = _threads()
    yield
    end = time.monotonic() + STOP_SECONDS
    for thread in _threads() - before:
        thread.join(max(0.0, end - time.monotonic()))
    left = sorted(thread.name for thread in _threads() - before)
    assert not left, f"the test left threads alive: {', '.join(left)}; close their store"
