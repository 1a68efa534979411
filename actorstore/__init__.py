"""The live state of an orchestration run, held by one actor.

Any process may feed it; everyone else gets copies. Start with `Store` here, or
`connect` to one elsewhere, and with the constructors of `Event`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from actorstore.answers import (
    Cursor,
    FlushResult,
    GraphData,
    GraphEdge,
    GraphNode,
    GraphProblem,
    Rejection,
    RunInfo,
    RunStatus,
    StateSnapshot,
    StateSummary,
    StoreStats,
    UnitState,
    UnitStatus,
    UnknownUnit,
    Update,
)
from actorstore.api import StateStore
from actorstore.errors import (
    ActorStoreError,
    ActorThreadError,
    AddressError,
    ForkedStoreError,
    InvalidEventError,
    JournalRegressionError,
    ProducerConflictError,
    ProducerSupersededError,
    QuestionRefusedError,
    RefusedError,
    SocketInUseError,
    StoreClosedError,
    StoreFailedError,
    StoreTimeoutError,
    StoreUnreachableError,
    UnknownRunError,
    UnknownUnitError,
)
from actorstore.event import Event

if TYPE_CHECKING:
    from actorstore.actor import StoreActor
    from actorstore.process import StoreProcess
    from actorstore.remote import RemoteStore, connect
    from actorstore.store import Store

__version__ = "0.1.0"

__all__ = [
    "ActorStoreError",
    "ActorThreadError",
    "AddressError",
    "Cursor",
    "Event",
    "FlushResult",
    "ForkedStoreError",
    "GraphData",
    "GraphEdge",
    "GraphNode",
    "GraphProblem",
    "InvalidEventError",
    "JournalRegressionError",
    "ProducerConflictError",
    "ProducerSupersededError",
    "QuestionRefusedError",
    "RefusedError",
    "Rejection",
    "RemoteStore",
    "RunInfo",
    "RunStatus",
    "SocketInUseError",
    "StateSnapshot",
    "StateStore",
    "StateSummary",
    "Store",
    "StoreActor",
    "StoreClosedError",
    "StoreFailedError",
    "StoreProcess",
    "StoreStats",
    "StoreTimeoutError",
    "StoreUnreachableError",
    "UnitState",
    "UnitStatus",
    "UnknownRunError",
    "UnknownUnit",
    "UnknownUnitError",
    "Update",
    "connect",
]

_HOMES = {
    "RemoteStore": "actorstore.remote",
    "Store": "actorstore.store",
    "StoreActor": "actorstore.actor",
    "StoreProcess": "actorstore.process",
    "connect": "actorstore.remote",
}
"""Where those are that import what not everybody needs: pykka, sockets, multiprocessing."""


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
