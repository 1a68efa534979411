"""The seed's own design in Go (`go/`), built with the `go` of this machine and run as a process of its own.

Measured, inside that process: bytes in memory to applied state, `encoding/json` line by line; a snapshot;
its first JSON encoding. Starting the process, reading the file and building are not. Its times can be
compared with ours where one producer feeds bytes; it has no answer for another process, as the seed leaves
sockets to a later task, and Go's garbage collector may use a second core.

`unavailable()` says why there is nothing to compare with: no `go`, or one that does not build this. The
build goes into the user's cache directory, under a name made of the sources and the compiler; never into
the tree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import msgspec

from .state import Totals

_SOURCES = Path(__file__).parent / "go"


class GoTimes(msgspec.Struct, frozen=True):
    """What the Go program printed: one figure a round, in seconds."""

    go: str
    feed_seconds: list[float]
    snapshot_seconds: list[float]
    encode_seconds: list[float]
    encoded_bytes: int
    rejected: int
    totals: Totals


def unavailable() -> str | None:
    """Return in a few words why the Go design cannot be run here; `None` where it can."""
    return _built()[1]


def run(data: bytes, rounds: int = 1) -> GoTimes:
    """Feed NDJSON to the Go store, `rounds` times, each into a new store.

    Raises:
        RuntimeError: There is no program to run; `unavailable()` says why.
    """
    binary, reason = _built()
    if binary is None:
        raise RuntimeError(f"the Go peer cannot be run: {reason}")
    with tempfile.NamedTemporaryFile(suffix=".ndjson") as file:
        file.write(data)
        file.flush()
        command = [str(binary), "-rounds", str(rounds), file.name]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return msgspec.json.decode(printed, type=GoTimes)


@cache
def _built() -> tuple[Path | None, str | None]:
    go = shutil.which("go")
    if go is None:
        return None, "go is not installed"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "actorstore-benchmarks"
    offline = {"GOENV": "off", "GOFLAGS": "", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    environment = {"GOCACHE": str(folder / "go-build")} | os.environ | offline
    try:
        version = subprocess.run([go, "version"], check=True, capture_output=True, env=environment).stdout
        digest = hashlib.sha256(version)
        for source in sorted(_SOURCES.iterdir()):
            digest.update(source.read_bytes())
        binary = folder / f"go-store-{digest.hexdigest()[:16]}"
        if not binary.exists():
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = binary.with_suffix(f".{os.getpid()}")
            command = [go, "build", "-buildvcs=false", "-o", str(unfinished), "."]
            subprocess.run(command, check=True, capture_output=True, cwd=_SOURCES, env=environment)
            unfinished.replace(binary)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        return None, f"go does not build it: {said[-1]}"
    except OSError as error:
        return None, f"go does not build it: {error}"
    return binary, None
