"""Copies that keep up: an update put on top of a snapshot gives the next snapshot.

Pure. A client keeps the last snapshot that it was given and asks only for what
has changed, so that looking at a large run costs what changed in it.
"""

from __future__ import annotations

from actorstore.answers import Shared, StateSnapshot, UnitIndex, UnitState, Update, share, shared_by


def snapshot_of(update: Update, before: StateSnapshot | None = None) -> StateSnapshot:
    """Return the run as it is after an update.

    Args:
        update: The whole run, or what changed since `before`.
        before: The run as it was; needed where the update is not the whole run.

    Raises:
        ValueError: The update does not lead on from there.
    """
    units, index = update.units, UnitIndex()
    if update.since is not None:
        if before is None or before.version != update.since or before.run != update.run:
            raise ValueError(f"an update from version {update.since} does not fit {before!r}")
        units, index = _merged(before, update)
    snapshot = StateSnapshot(
        update.connected,
        update.run,
        update.version,
        update.status,
        update.parallelism,
        units,
        update.summary,
        update.started_at,
        update.finished_at,
        update.error,
    )
    if update.since is not None and before is not None and before.version == update.version:
        return share(snapshot, shared_by(before))
    return share(snapshot, Shared(index))


def _merged(before: StateSnapshot, update: Update) -> tuple[tuple[UnitState, ...], UnitIndex]:
    """Put changed units in their places, and new ones, which come last, at the end."""
    index = shared_by(before).index
    if not update.units:
        return before.units, index
    places = index.places(before.units)
    merged = list(before.units)
    for unit in update.units:
        place = places.get(unit.id)
        if place is None:
            merged.append(unit)
        else:
            merged[place] = unit
    return tuple(merged), index if len(merged) == len(before.units) else UnitIndex()
