"""What becomes of links when their process ends, or forks.

What is left is sent when a process ends in an orderly way. Children of
`multiprocessing` may end in `os._exit`, which runs its own finalizers and not
those of `atexit`. A forked child lets go of what is its parent's.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import weakref
from typing import Final, Protocol

from actorstore.logs import say

logger = logging.getLogger("actorstore")

PATIENCE_SECONDS: Final = 5.0
"""How long the end of a link, or of its process, waits for a store that cannot be reached."""


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


_known: weakref.WeakSet[Ending] = weakref.WeakSet()
_used: weakref.WeakSet[Ending] = weakref.WeakSet()
_seen_to: set[int] = set()  # this process, once it sends what is left when it ends


def register(link: Ending) -> None:
    """Have a link start anew in forked children."""
    _known.add(link)


def send_at_exit(link: Ending) -> None:
    """Have what is left in a link sent when this process ends."""
    _used.add(link)
    if os.getpid() in _seen_to:
        return
    _seen_to.clear()
    _seen_to.add(os.getpid())
    atexit.register(_send_what_is_left, os.getpid())
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _send_what_is_left, args=(os.getpid(),), exitpriority=0)


def _send_what_is_left(process: int) -> None:
    if process not in _seen_to or process != os.getpid():
        return
    _seen_to.clear()
    links = [link for link in _used if not link.is_over]
    for link in links:
        link.end()
    end = time.monotonic() + PATIENCE_SECONDS
    for link in links:
        if not link.join(max(0.0, end - time.monotonic())):
            lost = link.unacked()
            lines, them = ("1 line is", "it") if lost == 1 else (f"{lost} lines are", "them")
            text = "%s lost with this process: the store at %s has not acked %s"
            if link.outlives:
                text = "%s left in a spool by this process: the store at %s has not acked %s"
            say(logger.warning, text, lines, link.path, them)


def _leave_behind() -> None:
    _used.clear()
    for link in list(_known):
        link.leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)
