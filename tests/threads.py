"""What tests with threads are built from: threads that report, conditions with a timeout, an actor held busy.

Whatever a test has to know of the inside of a `Store` stands here, and nowhere else.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from actorstore import Event, Store, StoreActor
from actorstore.reply import Reply
from tests.builders import unit_failed, unit_queued

T = TypeVar("T")

SECONDS: Final = 30
"""The longest that anything may take on the slowest machine; nothing waits that long when all is well."""

ROOT: Final = Path(__file__).parent.parent
"""Where the package lies."""

CALLS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "handle_event": lambda store: store.handle_event(unit_queued("a")),
    "handle_event, with an error": lambda store: store.handle_event(unit_failed("a")),
    "handle_lines": lambda store: store.handle_lines(b'{"type":"unit.queued","unit":"a"}\n'),
    "handle_lines, of nothing": lambda store: store.handle_lines(b""),
    "unit": lambda store: store.unit("a").__enter__(),
    "snapshot": lambda store: store.snapshot(),
    "snapshot, of a run": lambda store: store.snapshot(""),
    "graph": lambda store: store.graph(),
    "runs": lambda store: store.runs(),
    "subscribe": lambda store: store.subscribe(),
    "wait": lambda store: store.wait(),
    "set_connected": lambda store: store.set_connected(True),
    "reset": lambda store: store.reset(),
    "flush": lambda store: store.flush(),
    "stats": lambda store: store.stats(),
}
"""Every method of a store but `close`, called once."""

HANDED_OVER: Final = ("handle_event", "handle_lines", "unit", "reset")
ANSWERED: Final = [name for name in CALLS if name.partition(",")[0] not in HANDED_OVER]
"""Those that wait for an answer of the actor."""


# Threads that report.


def spawn(function: Callable[..., T], *args: Any) -> Future[T]:
    """Run a function in a thread of its own, which does not keep the interpreter alive."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def results(futures: Iterable[Future[T]]) -> list[T]:
    """What the threads returned; raises what they raised."""
    return [future.result(SECONDS) for future in list(futures)]


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.001)  # nothing tells when a condition comes true, so this looks again and again


def is_below(thread: int, function: str) -> bool:
    """Whether a thread is in a function of that name, or in what that has called."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_name == function:
            return True
        frame = frame.f_back
    return False


# The inside of a store.


@contextmanager
def held(store: Store) -> Iterator[None]:
    """Keep the actor busy: it takes nothing in and answers nothing until the block ends."""
    reached, go_on = threading.Event(), threading.Event()

    def hold(_: StoreActor) -> None:
        reached.set()
        go_on.wait(SECONDS)

    store._mailbox.send(hold, Reply())
    assert reached.wait(SECONDS)
    try:
        yield
    finally:
        go_on.set()


def in_actor(store: Store, question: Callable[[StoreActor], T]) -> T:
    """Run a function in the actor's thread, and return what it returns."""
    return store._mailbox.ask(question, SECONDS)


def open_questions(store: Store) -> int:
    """How many questions the actor has put off until something changes."""
    return in_actor(store, lambda actor: len(actor._waiting))


def waiting_producers(store: Store) -> int:
    """How many producers wait for room."""
    return len(store._intake._waiting)


def is_idle(store: Store) -> bool:
    """Whether the actor has applied all that was handed over, and sleeps."""
    return store._intake.idle


def applied(store: Store) -> int:
    """How many events the actor has applied, closed or not."""
    return store._mailbox._board.version


def is_alive(store: Store) -> bool:
    """Whether the actor takes messages."""
    return store._mailbox.is_alive()


def inbox(store: Store) -> int:
    """How many messages wait for the actor."""
    return store._mailbox._ref.actor_inbox.qsize()


def doom(store: Store) -> None:
    """Have the actor die, of an error that must not happen, over the next event."""

    def fail(_: object) -> None:
        raise MemoryError("out of memory")

    in_actor(store, lambda actor: setattr(actor._state, "apply", fail))


def kill(store: Store) -> None:
    """Have the actor die of an error that must not happen."""
    doom(store)
    thread = store._intake.actor_thread
    assert thread is not None
    store.handle_event(Event("anything"))
    thread.join(SECONDS)  # from then on, all that listen know
    assert store._intake.closed


# Other processes.


def python(*args: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, which can import the package."""
    flags = ["-c", code] if code else []
    return subprocess.run(
        [sys.executable, *args, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
