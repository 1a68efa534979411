"""What happens: each scenario makes trouble for a while, and returns the verdict of the checker.

The tests run each for some seeds, and `soak` runs them all, with seed after
seed, for as long as it is told to. The seed decides what happens, though not
when: processes run as the system lets them.
"""

from __future__ import annotations

import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from actorstore import RemoteStore
from tests.chaos.checker import JOURNAL, Verdict, conclude, judge
from tests.chaos.daemon import Daemon
from tests.chaos.greedy import REFUSED_LINES, begin_large_run, deaf_reader, garbage, gone, halves
from tests.chaos.process import Process, Producer, Reader
from tests.chaos.producer import REFUSED, Plan
from tests.chaos.proxy import between
from tests.chaos.record import find
from tests.chaos.saboteur import POINTS
from tests.chaos.script import START
from tests.raw import Raw, folder
from tests.threads import wait_until

GREEDY_BYTES: Final = 300 << 20
"""What greedy peers may cost a store: lines that do not end have room for 128 MiB."""

END: Final = b'{"type":"orch.completed"}\n'


@dataclass
class Scene:
    """Where a scenario happens.

    Args:
        folder: Everything lies there.
        seed: Decides what happens.
        stack: Ends the processes.
    """

    folder: Path
    seed: int
    stack: ExitStack
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.socket = self.folder / "s"
        self.drawn = random.Random(self.seed)
        self.happened: Counter[str] = Counter()

    def daemon(self, **options: bool) -> Daemon:
        """Start a store."""
        return self.stack.enter_context(Daemon(self.socket, **options))  # type: ignore[arg-type]

    def producer(self, name: str, **more: object) -> Producer:
        """Start a producer; its kind, its batches and its lines are drawn where they are not given."""
        plan = {
            "socket": str(self.socket),
            "record": str(self.folder / f"{name}.record"),
            "name": name,
            "kind": ("remote", "raw")[len(self.processes) % 2],
            "batch": self.drawn.choice((1, 7, 30, 120)),
            "seed": self.drawn.randrange(1 << 30),
            **more,
        }
        made = self.stack.enter_context(Producer(Plan(**plan)))  # type: ignore[arg-type]
        self.processes.append(made)
        return made

    def reader(self, name: str) -> Reader:
        """Start a reader."""
        return self.stack.enter_context(Reader(self.socket, self.folder / f"{name}.record", name))

    def risen(self, journal: Path, point: str, bug: str) -> Daemon:
        """Start a store on a journal; one that ends at its point before it is up is started again."""
        while True:
            number = self.drawn.randint(1, 60)
            try:
                daemon = Daemon(
                    self.socket, journal=journal, begins=False, point=point, number=number, bug=bug
                )
            except AssertionError:
                if not point:
                    raise
                self.happened["killed at its start"] += 1
                point = ""
            else:
                self.stack.callback(daemon.kill)
                return daemon

    def drain(self, others: int = 1) -> None:
        """Wait until all that killed producers have sent is applied: only so many connections are left."""
        with RemoteStore(self.socket) as store:
            wait_until(lambda: (store.stats().connections or 0) <= others + 1)

    def end_run(self) -> None:
        """Have the run end, so that its readers do."""
        with Raw(self.socket) as raw:
            raw.hello()
            raw.send(END).acked(1)

    def verdict(self, others: int) -> Verdict:
        """Ask the store a last time, and judge."""
        conclude(self.folder, self.socket, others)
        return judge(self.folder)

    def ended(self, daemon: Daemon, others: int) -> Verdict:
        """Ask a store with a journal a last time, have it end, and judge."""
        conclude(self.folder, self.socket, others)
        code = daemon.stop()
        verdict = judge(self.folder)
        verdict.check("G11", code == 0, f"the store has ended with {code}: {daemon.log()[-2000:]}")
        return verdict


Scenario = Callable[[Scene], Verdict]


def join(producers: Sequence[Process], code: int = 0) -> None:
    """Wait until producers are done."""
    codes = [producer.wait() for producer in producers]
    assert codes == [code] * len(codes), f"producers have ended with {codes}"


def has_begun(process: Producer, lines: int = 1) -> Callable[[], bool]:
    """Whether a producer has seen so many lines acked."""
    return lambda: any(entry[1] >= lines for entry in find(process.record, "ack"))


def killed_producers(scene: Scene, kills: int = 20, at_once: int = 5) -> Verdict:
    """Producers are killed in the middle of their lines; one that is not, and a reader, go on."""
    scene.daemon()
    reader = scene.reader("reader")
    steady = scene.producer("steady", kind="remote", lines=3000, pause=0.001)
    for first in range(0, kills, at_once):
        group = [
            scene.producer(f"p{number}", lines=1 << 30, looks=False)
            for number in range(first, min(kills, first + at_once))
        ]
        for producer in group:
            wait_until(has_begun(producer, scene.drawn.choice((1, 1, 100, 1000))))
            time.sleep(0.003 * scene.drawn.random())  # any moment is meant
            producer.kill()
            scene.happened["kill"] += 1
    join([steady])
    scene.drain()
    scene.end_run()
    join([reader])
    return scene.verdict(others=2)


def frozen_producers(scene: Scene, freezes: int = 6) -> Verdict:
    """Producers are frozen, and go on later; the others do not wait for them."""
    scene.daemon()
    reader = scene.reader("reader")
    producers = [scene.producer(f"p{number}", lines=1500, pause=0.002) for number in range(3)]
    for producer in producers:
        wait_until(has_begun(producer))
    for _ in range(freezes):
        frozen = scene.drawn.choice(producers)
        if frozen.code() is None:
            frozen.freeze()
        others = [scene.producer(f"o{len(scene.processes)}", lines=100)]
        join(others)  # while it is frozen
        frozen.thaw()
        scene.happened["freeze"] += 1
    join(producers)
    scene.end_run()
    join([reader])
    return scene.verdict(others=2)


def frozen_reader(scene: Scene) -> Verdict:
    """A reader is frozen while others go on; it gets what it missed as one update."""
    scene.daemon()
    frozen, steady = scene.reader("frozen"), scene.reader("steady")
    wait_until(lambda: all(find(reader.record, "saw", "whole") for reader in (frozen, steady)))
    frozen.freeze()
    before = len(find(frozen.record, "saw", "whole"))
    join([scene.producer(f"p{number}", lines=1000) for number in range(2)])
    scene.end_run()
    join([steady])
    frozen.thaw()
    join([frozen])
    scene.happened["freeze"] += 1
    verdict = scene.verdict(others=2)
    updates = len(find(frozen.record, "saw", "whole")) - before
    # What lay in its socket, what was under way, and the one that holds all the rest, each with a look.
    verdict.check("G5", updates <= 6, f"a frozen reader got {updates} updates")
    verdict.check("G5", len(find(frozen.record, "whole")) == 1, "a frozen reader got the whole run again")
    return verdict


def frozen_store(scene: Scene, freezes: int = 5) -> Verdict:
    """The store itself is frozen now and then."""
    daemon = scene.daemon()
    reader = scene.reader("reader")
    producers = [scene.producer(f"p{number}", lines=1500, pause=0.002) for number in range(4)]
    for producer in producers:
        wait_until(has_begun(producer))
    for _ in range(freezes):
        daemon.freeze()
        time.sleep(0.1 * scene.drawn.random())  # so that everybody runs into it
        daemon.thaw()
        time.sleep(0.02 * scene.drawn.random())  # and out of it
        scene.happened["freeze"] += 1
    join(producers)
    scene.end_run()
    join([reader])
    return scene.verdict(others=2)


def bad_way(scene: Scene, lines: int = 1500) -> Verdict:
    """Four producers and a reader behind a proxy that cuts, loses acks and delivers late."""
    scene.daemon()
    way = scene.folder / "w"
    with between(way, scene.socket, scene.drawn.randrange(1 << 30)) as proxy:
        reader = scene.stack.enter_context(Reader(way, scene.folder / "reader.record", "reader"))
        producers = [scene.producer(f"p{number}", socket=str(way), lines=lines) for number in range(4)]
        join(producers)
        scene.end_run()
        join([reader])
    scene.happened += proxy.happened
    return scene.verdict(others=2)


def greedy_peers(scene: Scene, rounds: int = 4, units: int = 20_000) -> Verdict:
    """Producers go on beside peers that want more than their share, and the store stays small."""
    journal = scene.folder / JOURNAL
    daemon = scene.stack.enter_context(Daemon(scene.socket, journal=journal))
    begin_large_run(daemon, units)
    reader = scene.reader("reader")
    verdict = Verdict()
    for number in range(rounds):
        before = daemon.resident()
        with ExitStack() as stack:
            for peer in (garbage(daemon, scene.drawn.choice(REFUSED_LINES)), deaf_reader(daemon)):
                stack.enter_context(peer)
            for other in (halves(daemon, 150), gone(daemon, 6, 300)):
                stack.enter_context(other)
            join([scene.producer(f"p{number}{name}", lines=300) for name in "ab"])
        grown = daemon.resident() - before
        verdict.check("G9", grown < GREEDY_BYTES, f"greedy peers have cost {grown / 1e6:.0f} MB")
        scene.happened["greed"] += 1
    scene.end_run()
    join([reader])
    conclude(scene.folder, scene.socket, others=3)
    verdict.check("G11", daemon.stop() == 0, daemon.log()[-2000:])
    return verdict.add(judge(scene.folder))


def two_holders(scene: Scene, kinds: tuple[str, str] = ("remote", "raw")) -> Verdict:
    """A second producer comes with the id of the first, which gives up; neither loses an acked line."""
    scene.daemon()
    first = scene.producer("first", kind=kinds[0], producer="same", lines=1 << 30, looks=False)
    wait_until(has_begun(first, 50))
    second = scene.producer("second", kind=kinds[1], producer="same", lines=1000)
    join([first], code=REFUSED)
    join([second])
    scene.happened["superseded"] += 1
    verdict = scene.verdict(others=1)
    error = find(first.record, "refused")[0][1:]
    verdict.check("G2", "superseded" in error, f"the first holder was told {error}")
    return verdict


def restarts(scene: Scene, number_of: int = 3, kills: bool = True) -> Verdict:
    """Stores come and go, told to or killed, at the same socket; producers go from one to the next."""
    daemon = scene.daemon(begins=False)
    producers = [
        scene.producer(f"p{number}", words="runs", lines=1200 * number_of, pause=0.003, batch=10)
        for number in range(4)
    ]
    verdict = Verdict()
    for producer in producers:
        wait_until(has_begun(producer))
    for _ in range(number_of):
        time.sleep(0.05 * scene.drawn.random())  # any moment is meant
        killed = kills and scene.drawn.random() < 0.5
        if killed:
            daemon.kill()
        else:
            code = daemon.stop()
            verdict.check("G11", code == 0, f"the store has ended with {code}")
            left = sorted(path.name for path in scene.folder.glob("s*") if path.suffix != ".log")
            verdict.check("G11", not left, f"the store has left {left}")
        scene.happened["kill" if killed else "term"] += 1
        daemon = scene.daemon(begins=False)
    join(producers)
    return verdict.add(scene.verdict(others=0))


def killed_stores(
    scene: Scene, kills: int = 20, points: Sequence[str] = ("", *POINTS), bug: str = "", lines: int = 0
) -> Verdict:
    """A store with a journal is killed, at named points and at any, and started again; a producer is, too.

    Its producers go on from one to the next. Everything acked is in the last
    one and in the journal, once, and no reader sees a version go back.
    """
    journal = scene.folder / JOURNAL
    daemon = Daemon(scene.socket, journal=journal, bug=bug)
    scene.stack.callback(lambda: daemon.kill())
    reader = scene.reader("reader")
    lines = lines or 400 * kills
    producers = [scene.producer(f"p{number}", lines=lines, pause=0.004, batch=10) for number in range(4)]
    passing = scene.producer("passing", lines=1 << 30, looks=False)
    for producer in (*producers, passing):
        wait_until(has_begun(producer))
    for number in range(kills):
        point = scene.drawn.choice(points)
        if point and daemon.code() is None:
            with suppress(AssertionError):
                wait_until(lambda: daemon.code() is not None, 2)
        else:
            time.sleep(0.05 * scene.drawn.random())  # any moment is meant
        if passing.code() is None and scene.drawn.random() < 0.2:
            passing.kill()
        daemon.kill()
        scene.happened["kill"] += 1
        next_point = scene.drawn.choice(points) if number < kills - 1 else ""
        scene.happened[f"at {next_point or 'any point'}"] += 1
        daemon = scene.risen(journal, next_point, bug)
    passing.kill()
    join(producers)
    scene.drain()
    scene.end_run()
    join([reader])
    return scene.ended(daemon, others=2)


def stalled_journal(scene: Scene, kills: int = 3, lines: int = 600) -> Verdict:
    """Producers hang up and come back under their ids while the journal stalls; the store is killed, too.

    What they say when they come back waits for the lines that they left behind.
    """
    journal = scene.folder / JOURNAL
    daemon = scene.risen(journal, "", "stalls")
    with Raw(scene.socket) as raw:
        raw.hello()
        raw.send(START).acked(1)
    producers = [
        scene.producer(f"p{number}", kind="raw", lines=lines, batch=20, hangs_up=0.2) for number in range(4)
    ]
    for number in range(kills):
        done = lines * (number + 1) // (kills + 1)
        wait_until(lambda done=done: all(has_begun(producer, done)() for producer in producers))
        daemon.kill()
        scene.happened["kill"] += 1
        daemon = scene.risen(journal, "", "stalls")
    join(producers)
    scene.happened["stalled"] += 1
    return scene.ended(daemon, others=1)


def killed_heirs(scene: Scene, kills: int = 20) -> Verdict:
    """Producers with spools are killed, or their store, or all at once; others go on with their spools."""
    journal = scene.folder / JOURNAL
    daemon = Daemon(scene.socket, journal=journal)
    scene.stack.callback(lambda: daemon.kill())
    spools = {f"p{number}": scene.folder / f"p{number}.spool" for number in range(3)}
    producers: dict[str, Producer] = {}

    def start(name: str) -> None:
        plan = {"spool": str(spools[name]), "lines": 100 * kills, "batch": 10, "pause": 0.01}
        producers[name] = scene.producer(name, kind="spooled", **plan)

    for name in spools:
        start(name)
    for _ in range(kills):
        time.sleep(0.2 * scene.drawn.random())  # any moment is meant
        with_store = scene.drawn.random() < 0.4
        killed = [name for name in producers if scene.drawn.random() < (0.4, 0.7)[with_store]]
        if with_store:
            daemon.kill()
            time.sleep(0.03 * scene.drawn.random())  # so that they hand more over
        for name in killed:
            producers.pop(name).kill()
        if with_store:
            daemon = Daemon(scene.socket, journal=journal, begins=False)
        scene.happened["kill"] += with_store + len(killed)
        for name in killed:
            if spools[name].exists() or not find(scene.folder / f"{name}.record", "done"):
                start(name)
    join(list(producers.values()))
    scene.end_run()
    verdict = scene.ended(daemon, others=2)
    left = sorted(path.name for path in scene.folder.glob("*.spool*"))
    verdict.check("G11", not left, f"the producers have left {left}")
    return verdict


def twice_told(scene: Scene) -> Verdict:
    """A store under load is told to end twice; it ends once, in time, and leaves no file."""
    daemon = scene.daemon(begins=False)
    producers = [scene.producer(f"p{n}", words="runs", lines=1 << 30, looks=False) for n in range(2)]
    for producer in producers:
        wait_until(has_begun(producer))
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    time.sleep(0.01 * scene.drawn.random())  # the second one may come at any moment
    daemon.signal(signal.SIGTERM)
    code = daemon.wait(15)
    took = time.monotonic() - began
    verdict = Verdict()
    left = sorted(path.name for path in scene.folder.glob("s*") if path.suffix != ".log")
    verdict.check("G11", code == 0, f"the store has ended with {code}")
    verdict.check("G11", not left, f"the store has left {left}")
    verdict.check("G11", took < 15, f"the store has taken {took:.1f} s to end")
    scene.happened["term"] += 2
    for producer in producers:
        producer.kill()
    return verdict


def leave_over(path: Path) -> None:
    """Leave what a killed store leaves: a socket that nobody listens at, and its lock, which nobody holds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
    path.with_name(path.name + ".lock").write_text("1")


RACER: Final = """
import sys, time
from actorstore import SocketInUseError, Store
store = None
for line in sys.stdin:
    path, moment = line.split()
    if path == "close":
        if store is not None:
            store.close()
        store = None
        print("closed", flush=True)
        continue
    while time.monotonic() < float(moment):
        pass
    try:
        store = Store(listen=path)
        print("won", flush=True)
    except SocketInUseError as error:
        print(error.owner, flush=True)
"""
"""A process that is told when to start a store, and where, and says what became of it."""


def two_stores(scene: Scene, rounds: int = 50) -> Verdict:
    """Two stores are started together at one socket, again and again: one wins, the other is told who."""
    verdict = Verdict()
    racers = [
        scene.stack.enter_context(Process([sys.executable, "-c", RACER], stdin=-1, stdout=-1)) for _ in "ab"
    ]

    def tell(*words: object) -> list[str]:
        for racer in racers:
            racer.stdin.write(" ".join(map(str, words)).encode() + b"\n")
            racer.stdin.flush()
        return [racer.stdout.readline().decode().strip() for racer in racers]

    for number in range(rounds):
        if scene.drawn.random() < 0.3:
            leave_over(scene.socket)
            scene.happened["left over"] += 1
        said = tell(scene.socket, time.monotonic() + 0.01)
        pids = [str(racer.pid) for racer in racers]
        is_right = "won" in said and (said == ["won", pids[0]] or said == [pids[1], "won"])
        verdict.check("F16", is_right, f"round {number}: {said} of {pids}")
        if "won" in said:
            with Raw(scene.socket) as raw:
                verdict.check("F16", raw.hello()["lines"] == 0, "the winner knows us already")
                raw.send(b'{"type":"anything"}\n').acked(1)
        tell("close", 0)
        left = sorted(path.name for path in scene.folder.glob("s*"))
        verdict.check("F16", not left, f"round {number}: {left} are left")
        scene.happened["race"] += 1
    return verdict


SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.__name__: scenario
    for scenario in (
        killed_producers,
        frozen_producers,
        frozen_reader,
        frozen_store,
        bad_way,
        greedy_peers,
        two_holders,
        restarts,
        killed_stores,
        stalled_journal,
        killed_heirs,
        twice_told,
        two_stores,
    )
}
"""Everything that happens, by name."""


@contextmanager
def scene(seed: int, *, is_quiet: bool = False) -> Iterator[Scene]:
    """Make a place for a scenario; its processes end with the block."""
    if not is_quiet:
        print(f"seed {seed}; CHAOS_SEED={seed} repeats it")
    with folder() as place, ExitStack() as stack:
        yield Scene(place, seed, stack)
