"""What every store offers, however it is reached, written down once.

One contract suite runs against all that implement it (tests/test_contract.py).
What the methods promise is said at `actorstore.store.Store`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from actorstore.answers import Cursor, FlushResult, GraphData, RunInfo, StateSnapshot, StoreStats, Update
from actorstore.event import MAX_INT, Event


class StateStore(Protocol):
    """The live state of orchestration runs, as producers feed it and everybody else reads it."""

    def handle_event(self, event: Event) -> None:
        """Hand one event over."""

    def handle_lines(self, data: bytes) -> None:
        """Hand whole NDJSON lines over."""

    def unit(self, id: str, *, run: str = "") -> AbstractContextManager[None]:
        """Report a unit around a block."""

    def snapshot(
        self, run: str | None = None, *, at: int | None = None, timeout: float = 5.0
    ) -> StateSnapshot:
        """Return the run as it stands between two events, or as it stood at a version."""

    def graph(self, run: str | None = None, *, timeout: float = 5.0) -> GraphData | None:
        """Return the dependency graph of the run."""

    def runs(self, *, timeout: float = 5.0) -> tuple[RunInfo, ...]:
        """Return all runs."""

    def subscribe(self, run: str | None = None, *, since: Cursor | None = None) -> Iterator[Update]:
        """Follow a run."""

    def wait(self, run: str | None = None, *, timeout: float | None = None) -> StateSnapshot:
        """Wait until the run has ended."""

    def set_connected(self, connected: bool) -> None:
        """Say whether a producer is connected."""

    def reset(self, run: str = "") -> None:
        """Set a run back to waiting."""

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Wait until all that was handed over is applied."""

    def stats(self) -> StoreStats:
        """Return how the store is doing."""

    def close(self, timeout: float | None = None) -> None:
        """Apply all that was handed over, and stop."""


def check_version(at: int) -> None:
    """Check that a version can be one.

    Raises:
        ValueError: It has more than 53 bits.
    """
    if not -MAX_INT <= at <= MAX_INT:
        raise ValueError(f"at is a version of the store, of 53 bits at most; {at} cannot be one")
