"""What producers get on top of `handle_event`, whichever store they feed, waited for or awaited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from actorstore.errors import noted
from actorstore.event import Event


class Reporter(ABC):
    """Takes events; the rest follows."""

    @abstractmethod
    def handle_event(self, event: Event) -> None:
        """Hand one event over."""

    @contextmanager
    def unit(self, id: str, *, run: str = "") -> Iterator[None]:
        """Report a unit around a block: started; then completed, or failed, and the error goes on."""
        self.handle_event(Event.unit_started(id, run=run))
        try:
            yield
        except BaseException as error:
            with noted(error):
                self.handle_event(Event.unit_failed(id, error, run=run))
            raise
        self.handle_event(Event.unit_completed(id, run=run))

    def reset(self, run: str = "") -> None:
        """Hand over `orch.reset`: the run goes back to waiting, with no units and no graph."""
        self.handle_event(Event.orch_reset(run=run))


class AsyncReporter(ABC):
    """Takes events from coroutines; the rest follows."""

    @abstractmethod
    async def handle_event(self, event: Event) -> None:
        """Hand one event over."""

    @abstractmethod
    def _put(self, event: Event) -> bool:
        """Hand one event over at once, whether there is room or not."""

    @asynccontextmanager
    async def unit(self, id: str, *, run: str = "") -> AsyncIterator[None]:
        """Report a unit around a block: started; then completed, or failed, and the error goes on."""
        await self.handle_event(Event.unit_started(id, run=run))
        try:
            yield
        except BaseException as error:
            with noted(error):
                self._put(Event.unit_failed(id, error, run=run))  # a cancelled task cannot await
            raise
        await self.handle_event(Event.unit_completed(id, run=run))

    async def reset(self, run: str = "") -> None:
        """Hand over `orch.reset`: the run goes back to waiting, with no units and no graph."""
        await self.handle_event(Event.orch_reset(run=run))
