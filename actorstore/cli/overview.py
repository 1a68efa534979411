"""What `actorstore` says without a command, below its help: which store it finds."""

from __future__ import annotations

from typing import Final

from actorstore.address import find
from actorstore.cli.view import counted
from actorstore.errors import ActorStoreError, StoreUnreachableError
from actorstore.remote import connect
from actorstore.text import clean

PATIENCE_SECONDS: Final = 2.0
"""How long an answer is waited for."""


def found_store() -> str:
    """Say in one line which store the commands find, or how to start one."""
    address = clean(find())
    try:
        with connect() as store:
            runs = store.runs(timeout=PATIENCE_SECONDS)
            stats = store.stats()
    except StoreUnreachableError as error:
        if error.is_there:
            return clean(str(error))
        return f"no store listens at {address} ({clean(error.reason)}); start one with: actorstore serve"
    except ActorStoreError as error:
        return clean(str(error))
    running = sum(run.status == "running" for run in runs)
    of_them = f", {running:,} of them running" if running else ""
    return f"a store listens at {address}: version {stats.version:,}, {counted(len(runs), 'run')}{of_them}"
