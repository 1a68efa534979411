"""The live state of an orchestration run, held by one actor.

Any process may feed it; everyone else gets copies. Start with the constructors of
`Event`.
"""

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
    "StateSummary",
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
