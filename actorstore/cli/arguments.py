"""The parser of arguments: argparse, whose errors name the option or command that was meant."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, Final

from actorstore.text import clean

NEAR: Final = 0.6
"""How much alike a word and the one that was meant are at least, as difflib counts."""


class Parser(argparse.ArgumentParser):
    """A parser of a command, or of one of its commands.

    What it does not know is an error of this command, with its usage, and not of
    the one above it; and it is named before anything that is missing, which may
    be missing because of it.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and end with an error where something is not known."""
        self._given = list(args or ())
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._not_recognized(unknown))
        return parsed, []

    def error(self, message: str) -> Any:
        """Say what is wrong, and end with exit code 2."""
        unknown = self._unknown_option(self._given)
        if unknown is not None and message.startswith("the following arguments are required"):
            message = self._not_recognized([unknown])
        super().error(clean(message))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if not isinstance(action, argparse._SubParsersAction) or value in action.choices:
            super()._check_value(action, value)
            return
        unknown = self._unknown_option(self._given[: self._given.index(value)])
        if unknown is not None:  # whose value looks like a command
            place = "the options of a command stand behind its name"
            raise argparse.ArgumentError(None, self._not_recognized([unknown], place))
        near = _near(value, action.choices)
        hint = f"did you mean {near!r}?" if near else f"choose from {', '.join(action.choices)}"
        raise argparse.ArgumentError(None, f"unknown command {value!r}; {hint}")

    def _not_recognized(self, unknown: Sequence[str], otherwise: str = "") -> str:
        option = unknown[0].partition("=")[0]
        near = _near(option, self._option_string_actions) if option.startswith("-") else None
        hint = f"did you mean {near}?" if near else otherwise
        return f"unrecognized arguments: {' '.join(unknown)}" + (f"; {hint}" if hint else "")

    def _unknown_option(self, given: Iterable[str]) -> str | None:
        """Return the first option that is not known, nor the beginning of one."""
        for word in given:
            if word == "--":
                return None
            option = word.partition("=")[0]
            if not option.startswith("-") or option == "-" or option[1:2].isdecimal():
                continue
            known = self._option_string_actions
            if option.startswith("--") and not any(name.startswith(option) for name in known):
                return word
            if not option.startswith("--") and option[:2] not in known:
                return word
        return None


def _near(word: str, known: Iterable[str]) -> str | None:
    import difflib  # which a call without an error does not need

    names = {name.lstrip("-"): name for name in known}  # dashes are alike in all of them
    near = difflib.get_close_matches(word.lstrip("-"), names, n=1, cutoff=NEAR)
    return names[near[0]] if near else None
