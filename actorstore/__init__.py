"""The live state of an orchestration run, held by one actor.

Any process may feed it; everyone else gets copies. Start with `Store`, and with
the constructors of `Event`.
"""

from actorstore.actor import StoreActor
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
    Update,
)
from actorstore.api import StateStore
from actorstore.errors import (
    ActorStoreError,
    ActorThreadError,
    ForkedStoreError,
    InvalidEventError,
    StoreClosedError,
    StoreFailedError,
    StoreTimeoutError,
    UnknownRunError,
    UnknownUnitError,
)
from actorstore.event import Event
from actorstore.store import Store

__version__ = "0.1.0"

__all__ = [
    "ActorStoreError",
    "ActorThreadError",
    "Cursor",
    "Event",
    "FlushResult",
    "ForkedStoreError",
    "GraphData",
    "GraphEdge",
    "GraphNode",
    "GraphProblem",
    "InvalidEventError",
    "Rejection",
    "RunInfo",
    "RunStatus",
    "StateSnapshot",
    "StateStore",
    "StateSummary",
    "Store",
    "StoreActor",
    "StoreClosedError",
    "StoreFailedError",
    "StoreStats",
    "StoreTimeoutError",
    "UnitState",
    "UnitStatus",
    "UnknownRunError",
    "UnknownUnitError",
    "Update",
]
