"""What holds for every test: how examples are drawn, and that no actor outlives its test.

Examples are the same in every run. `HYPOTHESIS_PROFILE=random` draws new ones, and
`HYPOTHESIS_PROFILE=thorough` many more; what fails is printed with what reproduces it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("tests.builders")

STOP_SECONDS = 5
"""How long an actor that is told to stop may take, before its test counts as leaving it behind."""

BASE = settings(
    deadline=None, max_examples=100, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fixed", BASE, derandomize=True, database=None)
settings.register_profile("random", BASE, derandomize=False)
settings.register_profile("thorough", BASE, derandomize=False, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def _actors() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("StoreActor")}


@pytest.fixture(autouse=True)
def _no_actor_is_left_behind() -> Iterator[None]:
    before = _actors()
    yield
    end = time.monotonic() + STOP_SECONDS
    for thread in _actors() - before:
        thread.join(max(0.0, end - time.monotonic()))
    left = sorted(thread.name for thread in _actors() - before)
    assert not left, f"the test left actors alive: {', '.join(left)}; close their store or stop them"
