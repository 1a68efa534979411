"""How long does `import actorstore` take, beyond what it stands on?

Measured: inside fresh processes, one after the other, how long `import actorstore` takes and how long `import
msgspec, pykka` does; the difference is the row. Their bytecode is compiled before the first round. Starting
Python is not in it.

Not measured: a first import from a cold disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial

from benchmarks.report import script
from benchmarks.rounds import Scale, alternate, child
from benchmarks.table import Row, amount

_TIMED = "import time; began = time.perf_counter(); import {}; print([time.perf_counter() - began])"


def measure(scale: Scale) -> Iterator[Row]:
    """Return the rows of this question."""
    with tempfile.TemporaryDirectory() as bytecode:
        turns = {
            names: partial(child, "-c", _TIMED.format(names), bytecode=bytecode)
            for names in ("actorstore", "msgspec, pykka")
        }
        for turn in turns.values():
            turn()
        times = alternate(3 * scale.processes, turns)
    ours, below = ([1e3 * seconds for (seconds,) in of_one] for of_one in times.values())
    yield amount(
        "import actorstore: more than import msgspec, pykka",
        [a - b for a, b in zip(ours, below, strict=True)],
        "ms",
        60,
        best=min(ours) - min(below),
        figures=f"actorstore {min(ours):.1f}, msgspec and pykka {min(below):.1f} ms",
    )


if __name__ == "__main__":
    script(measure)
