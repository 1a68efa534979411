"""Work and waiting that an interruption leaves whole."""

from __future__ import annotations

import signal
import threading

import pytest

from actorstore.shelter import Latch, sheltered
from tests.threads import SECONDS, is_below, results, spawn, wait_until


def test_a_latch_is_waited_for_by_many_and_set_for_good() -> None:
    latch = Latch()
    assert not latch.wait(0)
    waiting = [spawn(latch.wait, SECONDS) for _ in range(4)]
    wait_until(lambda: len(latch._callbacks) == 4)
    latch.set()
    assert results(waiting) == [True] * 4
    assert latch.wait(0)
    assert latch.wait()
    latch.set()


def test_one_who_waits_in_vain_leaves_nothing_in_a_latch() -> None:
    latch = Latch()
    assert not latch.wait(0.001)
    assert not latch._callbacks


def test_a_latch_calls_back_once_before_and_after_it_is_set() -> None:
    called: list[str] = []
    latch = Latch()
    latch.call(lambda: called.append("before"))
    assert called == []
    latch.set()
    latch.set()
    latch.call(lambda: called.append("after"))
    assert called == ["before", "after"]


def test_an_interruption_of_one_who_waits_harms_nobody_else() -> None:
    latch = Latch()
    other = spawn(latch.wait, SECONDS)
    main = threading.get_ident()

    def interrupt() -> None:
        wait_until(lambda: len(latch._callbacks) == 2)
        signal.pthread_kill(main, signal.SIGINT)

    spawn(interrupt)
    with pytest.raises(KeyboardInterrupt):
        latch.wait(SECONDS)
    assert not other.done()
    latch.set()
    assert other.result(SECONDS)


# Sheltered.


class Work:
    """Work that is done or undone."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.go_on = threading.Event()

    def do(self) -> None:
        self.log.append("begun")
        self.go_on.wait(SECONDS)
        self.log.append("done")

    def undo(self) -> None:
        self.log.append("undone")


def interrupt(work: Work, times: int) -> None:
    """Interrupt this thread once the work has begun, and again while it waits for the end of that."""
    main = threading.get_ident()

    def run() -> None:
        wait_until(lambda: work.log)
        signal.pthread_kill(main, signal.SIGINT)
        wait_until(lambda: is_below(main, "give_up"))
        if times == 1:
            work.go_on.set()
        else:
            signal.pthread_kill(main, signal.SIGINT)

    spawn(run)


def test_work_is_done_in_another_thread() -> None:
    threads: list[threading.Thread] = []
    sheltered(lambda: threads.append(threading.current_thread()), lambda: threads.clear())
    assert threads
    assert threads[0] is not threading.current_thread()


def test_what_work_raises_is_raised_and_nothing_is_undone() -> None:
    work = Work()
    with pytest.raises(ZeroDivisionError):
        sheltered(lambda: 1 / 0, work.undo)
    assert work.log == []


def test_an_interrupted_caller_waits_until_the_work_is_undone() -> None:
    work = Work()
    interrupt(work, times=1)
    with pytest.raises(KeyboardInterrupt):
        sheltered(work.do, work.undo)
    assert work.log == ["begun", "done", "undone"]


def test_work_of_a_caller_who_was_interrupted_twice_is_undone_all_the_same() -> None:
    work = Work()
    interrupt(work, times=2)
    with pytest.raises(KeyboardInterrupt):
        sheltered(work.do, work.undo)
    assert work.log == ["begun"]
    work.go_on.set()
    wait_until(lambda: work.log == ["begun", "done", "undone"])
