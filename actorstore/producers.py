"""Producers of other processes: where each of them stands, and who is told what became of its lines.

Pure; called in the actor's thread. All that concerns one producer takes effect
in the order in which its connections said it, however long the journal is
stalled: what depends on lines waits for them, and nothing passes them by.

| phase | hello | lines | all of them are durable | bye | connection gone |
| --- | --- | --- | --- | --- | --- |
| unknown | welcome: settled | | | ignored | |
| settled | welcome | behind | | leaving | unknown, if it never sent a line |
| behind | put off | behind | settled; welcome the hello put off | leaving | |
| leaving | put off | | the same with its farewell: unknown; welcome the hello put off | ignored | |

The farewell is written once all lines are taken; one without a line to forget is
not. At most one hello of a producer is put off, the newest: it supersedes the one
before. Where no journal is kept, lines are durable as soon as they are applied,
and a farewell at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from actorstore.account import Account, Listener
from actorstore.batch import Count
from actorstore.reply import Receiver


class Phase(Enum):
    """Where a producer stands that has an account."""

    SETTLED = "settled"
    """All lines that it has handed over are durable."""
    BEHIND = "behind"
    """Some of them wait, in the intake or for the journal."""
    LEAVING = "leaving"
    """It has said bye, and its lines or its farewell wait."""


def phase(account: Account) -> Phase:
    """Return where a producer stands."""
    if account.has_said_bye:
        return Phase.LEAVING
    return Phase.SETTLED if account.lines == account.handed else Phase.BEHIND


class Claimant(NamedTuple):
    """A connection that has said hello, and waits for its welcome."""

    listener: Listener
    """What is told of acks from the welcome on."""
    receiver: Receiver
    """Where the welcome goes."""


class Producers:
    """The producers of one store, by their id.

    Args:
        accounts: The accounts that a journal holds.
    """

    def __init__(self, accounts: dict[str, Account]) -> None:
        self._accounts = accounts
        self._put_off: dict[str, Claimant] = {}  # the hello of a producer that is behind, or leaving
        self._welcome: list[tuple[Account, Claimant]] = []  # those whose turn has come
        self._leaving: list[Account] = []  # those whose farewell is not written yet

    def __iter__(self) -> Iterator[Account]:
        """Iterate over the accounts."""
        return iter(self._accounts.values())

    def __len__(self) -> int:
        """Count the accounts."""
        return len(self._accounts)

    def counts(self) -> list[Count]:
        """Return what is durable of the accounts: of producers with lines that are."""
        return [
            Count(account.producer, account.lines, account.accepted, account.rejected, account.unknown_units)
            for account in self
            if account.lines and account.producer is not None
        ]

    def hello(self, producer: str | None, claimant: Claimant) -> None:
        """Welcome a connection, once all lines are durable that the producer handed over before.

        Args:
            producer: Id of the producer; without one, nothing is remembered.
            claimant: The connection. It supersedes the one before, which is told nothing more.
        """
        if producer is None:
            self._welcome.append((Account(), claimant))
            return
        account = self._accounts.get(producer)
        if account is None:
            account = self._accounts[producer] = Account(producer)
        account.listener = None
        self._put_off[producer] = claimant
        self.settle(account)

    def bye(self, producer: str) -> None:
        """Forget a producer, once that is durable, and all its lines before."""
        account = self._accounts.get(producer)
        if account is not None and not account.has_said_bye:
            account.has_said_bye = True
            self._leaving.append(account)

    def release(self, account: Account, listener: Listener) -> None:
        """Tell the listener of an account nothing more; forget a producer that never sent a line."""
        if account.listener is not listener:
            return
        account.listener = None
        producer = account.producer
        if producer is not None and not account.handed and self._accounts.get(producer) is account:
            del self._accounts[producer]

    def farewells(self) -> list[Account]:
        """Return the accounts whose farewell is to be written now: all their lines are taken."""
        ready = [account for account in self._leaving if account.taken == account.handed]
        if ready:
            self._leaving = [account for account in self._leaving if account.taken != account.handed]
        return ready

    def forget(self, account: Account) -> None:
        """Forget a producer whose farewell is durable; a hello that was put off opens a new account."""
        producer = account.producer
        assert producer is not None
        self._accounts.pop(producer, None)
        claimant = self._put_off.pop(producer, None)
        if claimant is not None:
            self.hello(producer, claimant)

    def settle(self, account: Account) -> None:
        """Have the hello that was put off welcomed, where all lines of an account are durable now."""
        if self._put_off and account.producer in self._put_off and phase(account) is Phase.SETTLED:
            self._welcome.append((account, self._put_off.pop(account.producer)))

    def welcome(self) -> list[tuple[Account, Claimant]]:
        """Return the connections to be welcomed now; they are told of the acks that follow."""
        welcome, self._welcome = self._welcome, []
        for account, claimant in welcome:
            account.listener = claimant.listener
        return welcome
