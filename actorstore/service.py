"""What works behind a `Store`: its actor, and where asked for its journal and its server.

They are opened as a whole or not at all, in a thread that nothing interrupts
(`actorstore.shelter`), and closed in the order in which they lean on each other.
Closing goes on in the background whatever becomes of the caller, and a process
that ends in an orderly way waits for it (`actorstore.endings`).
"""

from __future__ import annotations

import os
import time
import warnings
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final

from actorstore import endings
from actorstore.address import Address
from actorstore.intake import Intake
from actorstore.mailbox import Mailbox
from actorstore.shelter import Latch, sheltered

if TYPE_CHECKING:
    from actorstore.past import Past
    from actorstore.server import Server
    from actorstore.writer import Writer

FORGOTTEN_SECONDS: Final = 1.0
"""How long a store that was not closed waits for its connections when it ends."""


class Service:
    """The threads and files of one store; none, until `open`.

    Args:
        intake: Where the store's events are handed over.
        listen: Path of the socket, where it listens.
        journal: Path of the journal, where it has one.
        durability: What a loss of power may lose.
    """

    mailbox: Mailbox
    """The way to the actor."""

    def __init__(
        self, intake: Intake, listen: Address | None, journal: Address | None, durability: str
    ) -> None:
        self._intake = intake
        self._listen = listen
        self._journal = journal
        self._durability = durability
        self.past: Past | None = None
        self.writer: Writer | None = None
        self.server: Server | None = None
        self._is_open = False
        self._is_closing = False
        self._over = Latch()

    # The beginning.

    def open(self) -> None:
        """Open all of it, or nothing.

        Raises:
            SocketInUseError, AddressError, JournalError, ValueError: See `Store`.
        """
        if self._journal is not None:  # importing sqlite3 costs 10 ms, so it is not done for every store;
            import_module("actorstore.opening")  # not in the other thread: a module may make a store
        if self._listen is not None:  # importing asyncio costs 30 ms
            import_module("actorstore.server")
        sheltered(self._open, self.close)

    def _open(self) -> None:
        self._wait_for_those_that_end()
        self._start()
        self._is_open = True
        endings.close_at_exit(self)
        self.mailbox.ended.call(self._look_whether_it_is_over)
        if self.server is not None:
            self.server.ended.call(self._look_whether_it_is_over)

    def _wait_for_those_that_end(self) -> None:
        """Wait for stores of this process that are closing the same files, such as one that was dropped."""
        end = time.monotonic() + endings.PATIENCE_SECONDS
        for other in endings.closing():
            if isinstance(other, Service) and other._is_closing and other._files() & self._files():
                other._close_behind(FORGOTTEN_SECONDS)  # which may have been interrupted
                other._over.wait(end - time.monotonic())

    def _files(self) -> set[str]:
        journal = set() if self._journal is None else {os.path.realpath(os.fspath(self._journal))}
        return journal if self._listen is None else journal | {os.path.abspath(os.fspath(self._listen))}

    def _start(self) -> None:
        if self._journal is None:
            self.mailbox = Mailbox(self._intake)
        else:
            self._start_from(self._journal)
        if self._listen is not None:
            from actorstore.server import Server

            try:
                self.server = Server(self._listen, self._intake, self.mailbox, self.past)
            except BaseException:
                self.mailbox.join(None)
                raise

    def _start_from(self, journal: Address) -> None:
        from actorstore.opening import open_journal

        opened = open_journal(journal, self._durability, partial(_is_busy, self._intake))
        try:
            self.mailbox = Mailbox(self._intake, opened.origin, opened.writer)
        except BaseException:
            opened.writer.finish()
            raise
        self.past, self.writer = opened.past, opened.writer

    # The end.

    def close(self, timeout: float | None = None) -> None:
        """Apply all that was handed over, stop, and wait for it; closing again does nothing.

        Raises:
            StoreTimeoutError: Not everything is applied yet; it goes on closing.
        """
        if not self._is_open:
            return
        until = None if timeout is None else time.monotonic() + timeout
        self._close_behind(timeout)
        if self.server is not None:
            self.server.join()
        self.mailbox.join(None if until is None else max(0.0, until - time.monotonic()))

    def _close_behind(self, timeout: float | None) -> None:
        """Close in the background: the server, within so many seconds, then the actor and its journal."""
        self._is_closing = True
        if self.server is None:
            self.mailbox.stop()
        else:
            self.server.end(timeout)
            self.server.ended.call(self.mailbox.stop)

    def _look_whether_it_is_over(self) -> None:
        if self.mailbox.has_ended() and (self.server is None or self.server.ended.is_set):
            self._over.set()
            endings.is_closed(self)

    def let_go(self) -> None:
        """Close what its owner forgot; for finalizers, which may find any lock taken, in any thread."""
        if self._intake.forked or not self._is_open or self._over.is_set:
            return
        was_told = self._is_closing
        self._close_behind(FORGOTTEN_SECONDS)
        if not was_told:
            warnings.warn(endings.FORGOTTEN, ResourceWarning, stacklevel=2)

    # The end of the process, as `actorstore.endings` wants it.

    def end(self) -> bool:
        """Take nothing more, and close in the background; return whether the owner has forgotten to."""
        was_told = self._is_closing
        self._close_behind(FORGOTTEN_SECONDS)
        return not was_told

    def join(self, timeout: float) -> None:
        """Wait until it is closed, where anything depends on that, or it is so late."""
        end = time.monotonic() + timeout
        if self.server is not None:
            self.server.ended.wait(min(timeout, 2 * FORGOTTEN_SECONDS))
            self.mailbox.stop()  # whatever keeps the server
        elif self.writer is None:
            return  # the state ends with its process
        self._over.wait(end - time.monotonic())

    def left(self) -> str | None:
        """Say what is lost if the process ends now."""
        if self.writer is None or self._over.is_set:
            return None
        events = self.mailbox.undurable()
        if not events:
            return None
        many, are = ("1 event", "is") if events == 1 else (f"{events:,} events", "are")
        why = self.writer.trouble or "the disk takes too long"
        return f"{many} {are} lost with this process: not in the journal {self.writer.path} yet ({why})"


def _is_busy(intake: Intake) -> bool:
    return not intake.asleep or intake.waiting > 0
