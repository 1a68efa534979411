"""Makes the golden journals of this format: `python -m tests.golden.make`; those of others stay.

`format-N.tar.gz` holds three journals, `whole`, `cut` (its past was cut off behind
a checkpoint) and `killed` (with the WAL that a killed store left), and what
each of them says, `NAME.json`.
"""

from __future__ import annotations

import json
import os
import signal
import tarfile
import tempfile
from pathlib import Path

from actorstore import Store
from actorstore.cli import main
from actorstore.journalfile import FORMAT
from tests.raw import Raw

FOLDER = Path(__file__).parent

LINES = (
    b'{"type":"orch.started","time":"2026-01-02T03:04:05Z","run":"r","payload":{"parallelism":2,"graph":{"nodes":'
    b'[{"id":"a","tasks":3},{"id":"b"}],"edges":[{"from":"b","to":"a"},{"from":"b","to":"x"}]}}}\n',
    b'{"type":"unit.started","time":"2026-01-02T03:04:06.5+05:30","run":"r","unit":"a","payload":{"total_tasks":4}}\n',
    b'{"type":"unit.failed","run":"r","unit":"a","error":"\xe2\x82\xac"}\n{"type":7}\n\n',
    b'{"type":"unit.added","run":"r","unit":"c","payload":{"depends_on":["b"]}}\n{"type":"note","payload":[1]}\n',
    b'{"type":"orch.failed","time":"2026-01-02T04:00:00Z","run":"r","error":"boom"}\n',
)


def feed(folder: Path, name: str) -> None:
    with Store(journal=folder / name, listen=folder / "s"), Raw(folder / "s") as raw:
        raw.hello("producer")
        count = 0
        for lines in LINES:
            count += lines.count(b"\n")
            raw.send(lines).acked(count)
        if name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)


def said(folder: Path, name: str) -> dict[str, object]:
    """What a journal says: its run, its graph, and the count of its producer."""
    with Store(journal=folder / name, listen=folder / "s") as store, Raw(folder / "s") as raw:
        welcome = raw.hello("producer")
        graph = store.graph("r")
        return {
            "snapshot": json.loads(store.snapshot("r").json()),
            "graph": graph and json.loads(graph.json()),
            "lines": welcome["lines"],
            "rejected": welcome["rejected"],
            "version": welcome["version"],
            "oldest": getattr(store.stats().journal, "oldest", None),
        }


def make() -> None:
    with (
        tempfile.TemporaryDirectory() as place,
        tarfile.open(FOLDER / f"format-{FORMAT}.tar.gz", "w:gz") as tar,
    ):
        folder = Path(place)
        for name in ("whole", "cut", "killed"):
            child = os.fork()
            if not child:
                feed(folder, name)
                os._exit(0)
            os.waitpid(child, 0)
            if name == "cut":
                main(["journal", "compact", str(folder / name), "--keep", "3"])
            for end in ("", "-wal"):
                if (folder / (name + end)).exists():
                    tar.add(folder / (name + end), name + end)
            (folder / f"{name}.lock").unlink(missing_ok=True)
            (folder / f"{name}.json").write_text(json.dumps(said(folder, name), indent=1))
            tar.add(folder / f"{name}.json", f"{name}.json")


if __name__ == "__main__":
    make()
