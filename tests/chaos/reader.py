"""A reader in a process of its own: it follows a run, puts the updates together, and writes down what it saw.

Its record holds

    ["reads", name]
    ["welcome", store, 0]
    ["saw", version]                    an update, or a snapshot, at this version
    ["whole", version]                  the same, and it was the whole run
    ["end", version, digest, ...]       the run has ended: the digests of the updates put together, of its
                                        snapshot that was kept up to date, and of a new one
"""

from __future__ import annotations

import hashlib
import sys

import msgspec

from actorstore import RemoteStore, StateSnapshot
from tests.builders import Follower
from tests.chaos.producer import witnessed
from tests.chaos.record import Record

LOOKS_ONE_IN = 5
"""How often a reader asks for a snapshot besides."""


def digest(snapshot: StateSnapshot) -> str:
    """Return what is the same for equal snapshots only; who is connected lies outside of them."""
    return hashlib.sha256(msgspec.structs.replace(snapshot, connected=False).json()).hexdigest()


def main(socket: str, path: str, name: str) -> None:
    """Follow the default run until it ends."""
    record = Record(path)
    record.write("reads", name)
    remote = witnessed(RemoteStore(socket), record)
    follower = Follower()
    for number, update in enumerate(remote.subscribe("")):
        follower.take(update)
        record.write("whole" if update.since is None else "saw", update.version)
        if update.status == "completed":
            break
        if number % LOOKS_ONE_IN == 0:
            record.write("saw", remote.snapshot("").version)
    kept = remote.snapshot("")
    with RemoteStore(socket) as other:
        new = other.snapshot("")
    record.write("end", kept.version, *map(digest, (follower.snapshot(), kept, new)))
    remote.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
