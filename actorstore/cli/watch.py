"""`actorstore watch`: follow a run of a store that listens, until it has ended.

The store may go away and come back; what was last known of it stays in sight.

Reading order: `run`, `Window`.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from actorstore.answers import Cursor, RunInfo, RunStatus, StateSnapshot, Update
from actorstore.cli import FAILED, UNREACHABLE, access, view
from actorstore.cli.talk import Talk
from actorstore.errors import (
    ActorStoreError,
    AddressError,
    StoreClosedError,
    StoreTimeoutError,
    StoreUnreachableError,
    UnknownRunError,
)
from actorstore.remote import RemoteStore, connect

SILENT_SECONDS: Final = 2.0
"""A store that takes longer to answer counts as gone: far more than a long line takes to decode."""

LOOK_SECONDS: Final = 1.0
"""How often those who wait look whether the store still answers, and somebody still reads."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `actorstore watch`."""
    parser.description = (
        "Follow a run as it unfolds, until it has ended: live on a terminal, as plain lines elsewhere.\n"
        "Without RUN it follows the run that started last, also when another one starts, or waits for one."
    )
    parser.epilog = (
        "exit codes:\n"
        "  0 the run completed; 1 it failed, or there is no such run; 2 the call was wrong;\n"
        "  69 nobody listens; 130 Ctrl-C\n"
        "\n"
        "examples:\n"
        "  actorstore watch\n"
        "  actorstore watch nightly | tee nightly.log\n"
        "  actorstore watch --json | jq --unbuffered .summary"
    )
    access.add_run(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print what changes as JSON, one update a line, the whole run first",
    )
    access.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Run `actorstore watch`.

    Returns:
        0; 1 where the run failed or there is none such; 2 where the call was
        wrong; 69 where nobody listens.
    """
    talk = Talk()
    try:
        store = connect(args.socket)
        try:
            status = _print_updates(store, args.run, talk) if args.json else _show(store, args.run, talk)
        finally:
            store.close(0)  # nothing was handed over, so there is nothing to wait for
    except ActorStoreError as error:
        return access.refusal(error, talk)
    if status is None:
        talk.note("the store was closed before the run has ended")
        return UNREACHABLE
    return FAILED if status == RunStatus.FAILED else 0


def _show(store: RemoteStore, run: str | None, talk: Talk) -> RunStatus:
    first = store.snapshot(run)
    if first.status == RunStatus.WAITING:
        talk.note("no run has started yet; waiting for one")

    def tell(text: str, is_over: bool) -> None:
        shown.trouble = "" if is_over else text
        if not shown.is_live:
            talk.note(text)

    window = Window(store, tell)
    shown = view.open_view(window, run=run)
    with shown:
        try:
            last = _wait(store, run, shown)
        except BaseException:
            store.close(0)  # lets the view go, which may be waiting for an answer
            raise
        window.end(last)
    if not shown.is_live:
        print(view.summarize([_info(last)]))
    return last.status


def _wait(store: RemoteStore, run: str | None, shown: view.View) -> StateSnapshot:
    while True:
        try:
            return store.wait(run, timeout=LOOK_SECONDS)
        except (StoreTimeoutError, StoreUnreachableError, AddressError):
            shown.check()  # raises where nobody reads any more


def _print_updates(store: RemoteStore, run: str | None, talk: Talk) -> RunStatus | None:
    window = Window(store, lambda text, _: talk.note(text))
    updates = store.subscribe(run)
    with _looking(window):
        for update in updates:
            access.print_data(access.json_lines([update.json()]))
            if update.status.ended:
                return update.status
    return None


@contextmanager
def _looking(window: Window) -> Iterator[None]:
    """Have the window look now and then whether the store still answers."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            window.runs()

    threading.Thread(target=look, name="actorstore watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


class Window:
    """What is seen of a store: while it does not answer, what was last known of it.

    Args:
        store: Where to look.
        tell: Told that the store does not answer, and `False`; or that it does again, and `True`.
    """

    def __init__(self, store: RemoteStore, tell: Callable[[str, bool], object]) -> None:
        self._store = store
        self._tell = tell
        self._is_lost = False
        self._end: StateSnapshot | None = None
        self._runs: tuple[RunInfo, ...] = ()
        self._updates: dict[str | None, Update] = {}

    def end(self, last: StateSnapshot) -> None:
        """Show how the run has ended, whether the store is still there or not."""
        self._end = last

    def runs(self) -> tuple[RunInfo, ...]:
        """Return all runs, as they were last known."""
        last = self._end
        if last is not None:
            others = tuple(info for info in self._runs if info.run != last.run)
            return (*others, _info(last))
        try:
            self._runs = self._store.runs(timeout=SILENT_SECONDS)
        except (StoreUnreachableError, AddressError) as error:
            self._lose(f"the store does not answer ({error.reason}); trying again")
        except StoreTimeoutError:
            self._lose("the store does not answer; trying again")
        except StoreClosedError:
            pass  # this is at its end
        else:
            if self._is_lost:
                self._is_lost = False
                self._tell("the store answers again", True)
        return self._runs

    def subscribe(self, run: str | None = None, *, since: Cursor | None = None) -> Iterator[Update]:
        """Return what has changed in a run, as far as it is known; one update, which is what views ask for.

        Raises:
            StoreTimeoutError: Nothing is known of it yet.
        """
        self.runs()
        known = self._updates.get(run)
        if self._end is not None:
            return iter([_last_update(self._end, known)])
        if not self._is_lost:
            try:
                known = self._updates[run] = next(self._store.subscribe(run, since=since))
            except (
                StoreTimeoutError,
                StoreUnreachableError,
                AddressError,
                StoreClosedError,
                UnknownRunError,
            ):
                pass  # what was last known is shown, until the store answers again
            else:
                return iter([known])
        if known is None:
            raise StoreTimeoutError(SILENT_SECONDS, 0)
        return iter([msgspec.structs.replace(known, since=known.version, units=(), graph=None)])

    def _lose(self, text: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._tell(text, False)


def _info(last: StateSnapshot) -> RunInfo:
    return RunInfo(last.run, last.status, last.summary, last.started_at, last.finished_at)


def _last_update(last: StateSnapshot, known: Update | None) -> Update:
    """Return the update that leads to the end of a run, from whatever is known."""
    is_known = known is not None and known.run == last.run
    return Update(
        run=last.run,
        version=last.version,
        cursor=known.cursor if known is not None else Cursor(""),
        connected=last.connected,
        status=last.status,
        parallelism=last.parallelism,
        summary=last.summary,
        units=last.units,
        since=known.version if known is not None and is_known else None,
        started_at=last.started_at,
        finished_at=last.finished_at,
        error=last.error,
    )
