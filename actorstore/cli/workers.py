"""Worker processes: they tell the store themselves what they do, and end well.

That is silent, deaf to Ctrl-C, and gone when their parent is.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from actorstore.cli.orchestrator import compile_file
from actorstore.event import Event

if TYPE_CHECKING:
    from actorstore.remote import RemoteStore
    from actorstore.store import Store

_store: RemoteStore | None = None  # where this worker reports


@contextmanager
def workers(count: int, store: Store) -> Iterator[Executor]:
    """Have worker processes that feed a store; none is left afterwards, whatever happens."""
    spawn = multiprocessing.get_context("spawn")  # a store has threads, and threads do not survive a fork
    prepare = cast(Callable[[], object], prepare_worker)
    pool = ProcessPoolExecutor(
        count, mp_context=spawn, initializer=prepare, initargs=cast(tuple[()], (store,))
    )
    try:
        with _unheard_interrupts():
            pool.submit(int)  # the first task starts all workers
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def prepare_worker(store: RemoteStore) -> None:
    """Make this worker silent, deaf to Ctrl-C, which its parent hears, and gone when the parent is.

    Args:
        store: Where it reports; what a listening `Store` is in another process.
    """
    global _store  # a pool has no other place for what its workers have
    _store = store
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def compile_task(unit: str, task: int, file: Path, name: str) -> str:
    """Compile a source file, and return what is wrong with it; the store hears when it begins and ends.

    The beginning goes without its number, as one task more: several workers may
    be at tasks of the same unit, and nobody knows who of them is heard first.
    What was reported is applied when this returns, so whoever hears of the end
    of the unit has heard of its tasks.
    """
    assert _store is not None
    _store.handle_event(Event.task_started(unit))
    error = compile_file(file, name)
    _store.handle_event(Event("task.completed", unit=unit, task=task, error=error))
    _store.flush()
    return error


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _unheard_interrupts() -> Iterator[None]:
    """Have processes that are started meanwhile never hear Ctrl-C, not even before they are prepared."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # which children inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
