"""Logging from threads that must not die of somebody else's handler."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress


def say(log: Callable[..., None], *args: object, **more: object) -> None:
    """Log something; a handler that fails is its owner's affair."""
    with suppress(Exception):
        log(*args, **more)
