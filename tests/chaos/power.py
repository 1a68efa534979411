"""Losses of power, simulated: what a disk may hold when a journal's process has written this much.

`strace` records what a process writes and syncs. What was synced is on the disk; of what was written to a
file since its last sync, each page of 4 KiB is there or not, on its own; so are the names of files that
were made or removed since their directory was synced. `Disk.image` draws one of these images.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.threads import ROOT

PAGE = 4096

CALLS = "openat,pwrite64,write,ftruncate,fsync,fdatasync,unlink,rename"

WRITER = """
import os, sys
from actorstore import journal as module
from actorstore.batch import Count, pack
module.SECOND = 0.02
module.FOLD_BYTES = 500_000
path, durability, batches = sys.argv[1:]
journal = module.Journal(path, module.Durability(durability))
os.write(1, b"open %s\\n" % journal.store.encode())
for number in range(int(batches)):
    lines = b'{"type":"unit.added","unit":"u%d"}\\n' % number
    if number % 5 == 4:
        text = b"x" * (number * 397 % 30_000)
        lines = b'{"type":"unit.failed","unit":"u%d","error":"%s"}\\n' % (number, text)
    place = journal.append(1, pack([Count("p", 1, 1, 0)]), lines)
    os.write(1, b"acked %d %d\\n" % (place.version, place.crc))
    if journal.sync_is_due_in() == 0.0:
        journal.sync()
    if number % 50 == 30:
        journal.begin_checkpoint(place.seq)
        for part in range(8):
            journal.add_part(place.seq, b"p" * 20_000)
    if journal.fold_is_due():
        journal.fold(shrinks=number % 3 == 0)
os._exit(0)
"""
"""Writes batches of many sizes, syncs, parts of a checkpoint, and folds; says what it has acked."""


class Op(NamedTuple):
    """One thing that a process has done to a file."""

    call: str
    path: str
    data: bytes = b""
    """What was written, or said."""
    number: int = 0
    """Where, or how long the file is from then on."""


def record(folder: Path, durability: str, batches: int, writer: str = WRITER) -> list[Op]:
    """Have a journal written in a folder, and return what was done to the files there."""
    log = folder.with_name(f"{folder.name}.trace")
    trace = ["strace", "-f", "-y", "-xx", "-s", "100000", "-qq", "-e", f"trace={CALLS}", "-o", str(log)]
    command = [sys.executable, "-c", writer, str(folder / "j"), durability, str(batches)]
    subprocess.run([*trace, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    try:
        with open(log, encoding="ascii") as lines:
            return list(_parsed(lines, str(folder)))
    finally:
        log.unlink()


def _parsed(lines: Iterator[str], folder: str) -> Iterator[Op]:
    for line in lines:
        match = re.match(r"\d+ +(\w+)\((.*)\) += (\d+)", line)
        if match is None:
            continue
        call, arguments, _ = match.groups()
        quoted = re.findall(r'[<"]((?:\\x..)*)[>"]', arguments)
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in quoted]
        numbers = [int(text) for text in re.findall(r", (\d+)", arguments)]
        if call == "write" and arguments.startswith("1<"):
            yield Op("say", "", texts[1])
        elif texts and texts[-1 if call == "openat" else 0].decode(errors="replace").startswith(folder):
            path = texts[0].decode()
            match call:
                case "openat" if "O_CREAT" in arguments:
                    yield Op("make", texts[-1].decode())
                case "pwrite64":
                    yield Op("write", path, texts[1], numbers[-1])
                case "ftruncate":
                    yield Op("cut", path, number=numbers[-1])
                case "fsync" | "fdatasync":
                    yield Op("sync", path)
                case "unlink":
                    yield Op("remove", path)
                case "rename":
                    yield Op("rename", path, texts[1])


class Disk:
    """A disk to which such things are done, and which may lose power after any of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.acked: list[tuple[int, int]] = []
        """Version and checksum of each batch that was acked."""
        self.synced = 0
        """Of those, how many a sync has followed."""
        self.is_open = False
        self._now: dict[str, bytearray] = {}
        self._kept: dict[str, bytes] = {}
        self._cut: dict[str, int] = {}  # how short each file was since it was last synced

    def do(self, op: Op) -> None:
        """Do one thing."""
        match op.call:
            case "say" if op.data.startswith(b"acked"):
                _, version, crc = op.data.split()
                self.acked.append((int(version), int(crc)))
            case "say":
                self.is_open = True
            case "make" if op.path not in self._now:
                self._now[op.path] = bytearray()
            case "write":
                file = self._now[op.path]
                file.extend(bytes(max(0, op.number + len(op.data) - len(file))))
                file[op.number : op.number + len(op.data)] = op.data
            case "cut":
                file = self._now[op.path]
                self._cut[op.path] = min(op.number, self._cut.get(op.path, op.number))
                file.extend(bytes(max(0, op.number - len(file))))
                del file[op.number :]
            case "sync" if op.path == self.folder:
                for path in self._now:
                    self._kept.setdefault(path, b"")
                for path in set(self._kept) - set(self._now):
                    del self._kept[path]
            case "sync":
                self._kept[op.path] = bytes(self._now[op.path])
                self._cut.pop(op.path, None)
                if op.path.endswith("-wal"):
                    self.synced = len(self.acked)
            case "remove":
                self._now.pop(op.path, None)
            case "rename":
                self._now[op.data.decode()] = self._now.pop(op.path)
                if op.path in self._kept:
                    self._kept[op.data.decode()] = self._kept.pop(op.path)

    def image(self, drawn: random.Random, into: Path) -> str:
        """Write what the disk may hold if power is lost now; say how it was drawn."""
        way = drawn.choice(("all", "none", "one missing", "few", "many", "many", "many"))
        for path in sorted({*self._now, *self._kept}):
            now, kept = self._now.get(path), self._kept.get(path)
            if (now is None or kept is None) and drawn.random() < 0.5:
                if kept is None:
                    continue
                now = bytearray(kept)
            data = _drawn(bytes(now if now is not None else kept or b""), kept or b"", way, drawn)
            (into / Path(path).name).write_bytes(data)
        return way


def _drawn(now: bytes, kept: bytes, way: str, drawn: random.Random) -> bytes:
    """Return one of the contents that a file may have: of each page what is there now, or was kept."""
    size = max(len(now), len(kept))
    pages = [at for at in range(0, size, PAGE) if now[at : at + PAGE] != kept[at : at + PAGE]]
    there = {"all": 1.0, "none": 0.0, "few": 0.1, "many": drawn.random()}.get(way, 1.0)
    written = {at for at in pages if drawn.random() < there}
    if way == "one missing" and pages:
        written.discard(drawn.choice(pages))
    data = bytearray(kept)
    for at in sorted(written):
        page = now[at : at + PAGE]
        data.extend(bytes(max(0, at + len(page) - len(data))))
        data[at : at + len(page)] = page
    if len(now) < len(kept) and written:
        del data[len(now) :]
    return bytes(data)
