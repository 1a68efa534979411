"""Questions that wait for a change: each is asked again only when what it waits for may have happened.

Pure. Ten thousand open questions about one run cost nothing while another one is fed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Generic, Literal, NamedTuple, TypeVar

from actorstore.reply import Receiver

Q = TypeVar("Q")


class Later(NamedTuple):
    """What a question returns that is to be asked again: after which change."""

    run: str | None
    """Of this run; `None`: of the one that started last."""
    change: Literal["news", "turn"]
    """News: what an update would hold; turn: more than a change of units."""


class Waiting(Generic[Q]):
    """The questions that wait, by what they wait for."""

    def __init__(self) -> None:
        self._places: dict[Receiver, Later] = {}
        self._questions: dict[Later, dict[Receiver, Q]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Receiver]:
        return iter(self._places)

    def add(self, later: Later, receiver: Receiver, question: Q) -> None:
        """Have a question wait; a receiver has one question."""
        self._places[receiver] = later
        self._questions.setdefault(later, {})[receiver] = question

    def forget(self, receiver: Receiver) -> None:
        """Forget a question, where it waits."""
        later = self._places.pop(receiver, None)
        if later is not None:
            questions = self._questions[later]
            del questions[receiver]
            if not questions:
                del self._questions[later]

    def take(self, changed: Collection[str], turned: Collection[str], latest: str | None) -> list[Q]:
        """Return the questions that may have an answer now; they do not wait any more.

        Args:
            changed: Runs whose units have changed.
            turned: Runs that have changed beyond that, or are new.
            latest: The run that started last.
        """
        due = [Later(run, "news") for run in {*changed, *turned}]
        due += [Later(run, "turn") for run in turned]
        if turned or latest in changed:
            due.append(Later(None, "news"))
        if turned:
            due.append(Later(None, "turn"))
        return self._take(due)

    def take_followers(self) -> list[Q]:
        """Return the questions to which it matters who is connected; they do not wait any more."""
        return self._take([later for later in self._questions if later.change != "turn"])

    def take_all(self) -> list[Q]:
        """Return all questions; none of them waits any more."""
        return self._take(list(self._questions))

    def _take(self, due: Iterable[Later]) -> list[Q]:
        taken: list[Q] = []
        for later in due:
            for receiver, question in self._questions.pop(later, {}).items():
                del self._places[receiver]
                taken.append(question)
        return taken
