"""What `actorstore replay` says on standard error: what is wrong with its input, and where."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

from actorstore.answers import Rejection
from actorstore.cli.view import counted
from actorstore.text import clean

SHOWN_COMPLAINTS: Final = 5
"""How many bad lines of a file are named."""

NEITHER: Final = "neither an event log nor a usable WfFormat instance"
"""What is said of a file that holds nothing to play, before the reason."""


class Report:
    """What was wrong with one file: the first few bad lines, and how many more.

    Nothing is said before a line was good: a file without one is no event log,
    and that is one sentence, however many lines it has.

    Args:
        name: What the file is called.
        talk: Where to say it.
    """

    def __init__(self, name: str, talk: Talk) -> None:
        self._name = name
        self._talk = talk
        self._lines = 0
        self._is_log = False
        self._bad = 0
        self._first: list[tuple[int, str]] = []

    def add(self, lines: int, accepted: int, rejections: Iterable[Rejection]) -> None:
        """Take note of some lines."""
        for rejection in rejections:
            self._bad += 1
            if self._bad <= SHOWN_COMPLAINTS:
                self._first.append((self._lines + (rejection.line or 0), rejection.reason))
        self._lines += lines
        self._is_log = self._is_log or accepted > 0
        if self._is_log:
            for line, reason in self._first:
                self._talk.complain(f"{self._name}:{line}", reason)
            self._first.clear()

    def end(self, *, is_whole: bool = False) -> None:
        """Say what is left to say."""
        if self._first:
            line, reason = self._first[0]
            self._talk.complain(f"{self._name}:{line}", f"{NEITHER}: {reason}")
        elif self._bad > SHOWN_COMPLAINTS:
            more = counted(self._bad - SHOWN_COMPLAINTS, "more line")
            self._talk.complain(self._name, f"{more} rejected")
        elif is_whole and not self._is_log:
            self._talk.complain(self._name, "holds no event and no workflow")


class Talk:
    """What goes to standard error; held back while a live screen is up, which it would tear."""

    def __init__(self) -> None:
        self.complaints = 0
        self.is_held = False
        self._held: list[str] = []

    def complain(self, place: str, reason: str) -> None:
        """Say what is wrong with the input or the call, and where."""
        self.complaints += 1
        self.note(f"{place}: {reason}")

    def note(self, text: str) -> None:
        """Say something that is worth knowing, and nobody's fault."""
        if self.is_held:
            self._held.append(text)
        else:
            print(f"actorstore: {clean(text)}", file=sys.stderr)

    def release(self) -> None:
        """Say what was held back, and hold nothing back from now on."""
        self.is_held = False
        for text in self._held:
            self.note(text)
        self._held.clear()
