"""What becomes of links and stores when their process ends, or forks.

When a process ends in an orderly way, what is left in its links is sent, and
then its stores are closed: a link may lead to one of them. Children of
`multiprocessing` end in `os._exit`, which runs finalizers of their own and not
those of `atexit`. A forked child lets go of what is its parent's.

Nothing runs in a process that dies of a signal, or in `os._exit`.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from actorstore.logs import say

logger = logging.getLogger("actorstore")

PATIENCE_SECONDS: Final = 5.0
"""How long the end of a link, or of its process, waits for a store that cannot be reached.

The end of a process waits as long for the disk under its journals."""

FORGOTTEN: Final = "a Store was not closed; use `with Store() as store:` or call close()"
"""What a developer is told of a store that was dropped, or open at the end."""


class Ending(Protocol):
    """What may be left unsent."""

    path: str

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and whoever used it was told."""

    @property
    def outlives(self) -> bool:
        """Whether what is not acked is kept for the next producer."""

    def end(self) -> None:
        """Take nothing more, and send what there is in the background."""

    def join(self, timeout: float | None) -> bool:
        """Wait until it is sent."""

    def unacked(self) -> int:
        """Count what is not."""

    def leave_behind(self) -> None:
        """In a forked child: start anew."""


class Closing(Protocol):
    """A store that is open."""

    def end(self) -> bool:
        """Take nothing more, and close in the background; return whether its owner has forgotten to."""

    def join(self, timeout: float) -> None:
        """Wait until it is closed, where anything depends on that, or it is so late."""

    def left(self) -> str | None:
        """Say what is lost if the process ends now."""


_known: weakref.WeakSet[Ending] = weakref.WeakSet()
_used: weakref.WeakSet[Ending] = weakref.WeakSet()
_open: set[Closing] = set()  # also those that their owners have dropped, until they are closed
_last: list[Callable[[], None]] = []  # what is done after all that
_seen_to: set[int] = set()  # this process, once its finalizers come here


def register(link: Ending) -> None:
    """Have a link start anew in forked children."""
    _known.add(link)


def send_at_exit(link: Ending) -> None:
    """Have what is left in a link sent when this process ends."""
    _used.add(link)
    _see_to_the_end()


def close_at_exit(store: Closing) -> None:
    """Have a store closed when this process ends, and wait until it is."""
    _open.add(store)
    _see_to_the_end()


def is_closed(store: Closing) -> None:
    """Take note that a store is closed."""
    _open.discard(store)


def closing() -> list[Closing]:
    """Return the stores of this process that are not closed."""
    return list(_open)


def do_last(do: Callable[[], None]) -> None:
    """Have something done at the end of a process, once links are sent and stores closed."""
    _last.append(do)


def _see_to_the_end() -> None:
    """Have a child of `multiprocessing` come here when it ends; once a process."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and os.getpid() not in _seen_to:
        _seen_to.clear()
        _seen_to.add(os.getpid())
        util.Finalize(None, _end, exitpriority=0)


def _end() -> None:
    _seen_to.clear()
    try:
        _send_what_is_left()
    finally:
        try:
            _close_what_is_open()
        finally:
            for do in _last:
                do()


def _send_what_is_left() -> None:
    links = [link for link in _used if not link.is_over]
    _used.clear()
    for link in links:
        link.end()
    end = time.monotonic() + PATIENCE_SECONDS
    try:
        for link in links:
            link.join(max(0.0, end - time.monotonic()))
    finally:  # also where somebody would not wait
        for link in links:
            _say_what_is_left(link)


def _say_what_is_left(link: Ending) -> None:
    lost = link.unacked()
    if lost:
        lines, them = ("1 line is", "it") if lost == 1 else (f"{lost} lines are", "them")
        text = "%s lost with this process: the store at %s has not acked %s"
        if link.outlives:
            text = "%s left in a spool by this process: the store at %s has not acked %s"
        say(logger.warning, text, lines, link.path, them)


def _close_what_is_open() -> None:
    stores = closing()
    _open.clear()
    forgotten = [store for store in stores if store.end()]
    end = time.monotonic() + PATIENCE_SECONDS
    try:
        for store in stores:
            store.join(max(0.0, end - time.monotonic()))
    finally:  # also where somebody would not wait
        for left in filter(None, [store.left() for store in stores]):
            say(logger.error, "%s", left)
    if forgotten:  # last: where warnings are errors, nothing else is done
        warnings.warn(FORGOTTEN, ResourceWarning, stacklevel=2)


def _leave_behind() -> None:
    _used.clear()
    _open.clear()
    for link in list(_known):
        link.leave_behind()


atexit.register(_end)  # early: what others register from now on runs before, and may use stores still
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)
