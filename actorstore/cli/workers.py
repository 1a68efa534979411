"""Worker processes that end well: silent, deaf to Ctrl-C, and gone when their parent is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def workers(count: int) -> Iterator[Executor]:
    """Have worker processes; none is left afterwards, whatever happens."""
    spawn = multiprocessing.get_context("spawn")  # a store has a thread, and threads do not survive a fork
    pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=prepare_worker)
    try:
        with _unheard_interrupts():
            pool.submit(int)  # the first task starts all workers
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def prepare_worker() -> None:
    """Make this worker silent, deaf to Ctrl-C, which its parent hears, and gone when the parent is."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


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
