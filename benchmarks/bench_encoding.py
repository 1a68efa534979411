"""How long does it take to write a snapshot as JSON?

Measured: `snapshot.json()` of a snapshot that nobody has encoded, in a new store each turn, and of the same
one again; `json.Marshal` of Go's snapshot, in its own process; msgspec's encoder on the lock's copy. Taking
the snapshot is not in it.

Not equal: Go's encoder runs beside Go's garbage collector, which may use a second core; ours holds Python's
interpreter until it is done, so other threads of the process wait for the while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from actorstore import Store
from benchmarks.peers import go_store
from benchmarks.peers.lock import LockedStore
from benchmarks.report import script
from benchmarks.rounds import Scale, alternate, clock, median_of, streams
from benchmarks.table import Row, amount, faster, skipped

GO_ROUNDS = 3
"""In one process of Go's, the best of which counts."""


def measure(scale: Scale) -> Iterator[Row]:
    """Return the rows of this question."""
    for name, data in streams(scale).items():
        yield from _encoding(name, data, scale)


def _encoding(name: str, data: bytes, scale: Scale) -> Iterator[Row]:
    shares: list[float] = []
    size = 0

    def ours() -> float:
        nonlocal size
        with Store() as store:
            store.handle_lines(data)
            snapshot = store.snapshot()
        seconds = clock(snapshot.json)
        shares.append(100 * median_of(snapshot.json, scale.questions) / seconds)
        size = len(snapshot.json())
        return seconds

    def lock() -> float:
        store = LockedStore()
        store.handle_lines(data)
        snapshot = store.snapshot()
        return clock(lambda: msgspec.json.encode(snapshot))

    turns: dict[str, Callable[[], float]] = {"ours": ours, "the lock": lock}
    go = go_store.unavailable()
    if go is None:
        turns["Go"] = lambda: min(go_store.run(data, GO_ROUNDS).encode_seconds)
    times = alternate(scale.rounds, turns)

    def figures(*names: str) -> str:
        return (
            ", ".join(f"{name} {min(times[name]) * 1e3:,.2f}" for name in names) + f" ms for {size:,} bytes"
        )

    what = f"first JSON encoding of the snapshot, {name}: speed against"
    if go is None:
        yield faster(f"{what} Go", times["ours"], times["Go"], figures("ours", "Go"), 5, peer="Go")
    else:
        yield skipped(f"{what} Go", go, 5)
    yield faster(
        f"{what} msgspec on the lock's copy",
        times["ours"],
        times["the lock"],
        figures("ours", "the lock"),
        peer="the lock",
    )
    yield amount(f"the same again at the same version, {name}: share of the first", shares, "%", 1)


if __name__ == "__main__":
    script(measure)
