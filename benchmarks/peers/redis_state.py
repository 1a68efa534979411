"""Redis as the state: a hash for each unit, in a `redis-server` of its own on a Unix socket, kept nowhere.

Measured: NDJSON bytes, in chunks, to the answer of the last pipeline. A chunk is decoded, each event becomes
one `HSET` of the fields that its rule changes, and `BATCH` of them are one pipeline without a transaction.
The commands go through `execute_command`, because the pipeline's `hset(mapping=...)` takes half as long
again. Where `hiredis` is installed, which makes redis-py a quarter faster, redis-py uses it.
`handle_commands` takes commands that were made before a clock runs, for who has the fields in hand and no
lines.

    orch.started    HSET run, and HSET unit:<id> for each node of the graph
    unit.queued     HSET unit:<id> status error
    unit.started    HSET unit:<id> status started_at attempts error finished_at, and total_tasks,
                    current_task where the payload has them
    task.started    HSET unit:<id> current_task
    task.completed  HSET unit:<id> completed_task; or, with `lean`, nothing
    unit.completed  HSET unit:<id> status finished_at
    unit.failed     HSET unit:<id> status error finished_at
    unit.blocked    HSET unit:<id> status
    orch.completed, orch.failed    HSET run
    any other, or of an unknown unit    nothing

All of them are counted, one `INCRBY` a pipeline.

Not equivalent, and each in Redis's favour: the client knows the units, the attempts and the current tasks,
so that no rule has to read before it writes (which is true of one producer alone); times are texts that
nobody checks; there is no summary and no version of a unit, so a reader would fetch all of it; the edges of
the graph are left out. `unit.added` and `orch.reset` are not translated; no workload has them.

Most of what is measured is redis-py. The server itself applies what is sent as prepared bytes of its
protocol faster than anything else here is (more than a million commands a second); a client of one's own
that writes those bytes, and only counts the replies, would get at that, and is no longer what one calls
using Redis.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from time import monotonic, sleep
from typing import Any, TypeAlias

import msgspec

from .state import Progress, Started, Totals

BATCH = 1000
"""Commands in a pipeline: 100 and 10,000 are slower."""

START_SECONDS = 10.0

Command: TypeAlias = tuple[str | int, ...]


class Line(msgspec.Struct, gc=False):
    """What is needed of a line; a time stays a text, which is faster than ours."""

    type: str
    time: str = ""
    unit: str = ""
    task: int | None = None
    payload: msgspec.Raw = msgspec.Raw()
    error: str = ""


def unavailable() -> str | None:
    """Return in a few words why Redis cannot be run here; `None` where it can."""
    if shutil.which("redis-server") is None:
        return "redis-server is not installed"
    try:
        import redis  # noqa: F401
    except ImportError:
        return "the package redis is not installed"
    return None


class RedisStore:
    """A server, a client, and what the client knows.

    Args:
        lean: Have `task.completed`, which changes nothing in a unit, merely counted.
        durable: Have every reply on disk: an append-only file, synced after each batch of commands that the
            server has read, and never rewritten.
        batch: Commands in a pipeline.
    """

    def __init__(self, *, lean: bool = False, durable: bool = False, batch: int = BATCH) -> None:
        import redis

        self._batch = batch

        self._lean = lean
        self._decoder = msgspec.json.Decoder(Line)
        self._attempts: dict[str, int] = {}  # of each unit that is known
        self._current: dict[str, int] = {}
        self._folder = tempfile.mkdtemp(prefix="redis-")
        path = f"{self._folder}/socket"
        options = {"port": "0", "unixsocket": path, "save": "", "appendonly": "no", "dir": self._folder}
        if durable:
            options |= {"appendonly": "yes", "appendfsync": "always", "auto-aof-rewrite-percentage": "0"}
        command = ["redis-server"]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._client: Any = redis.Redis(unix_socket_path=path)
        late = monotonic() + START_SECONDS
        while True:
            try:
                self._client.ping()
            except redis.ConnectionError:
                if monotonic() > late or self._server.poll() is not None:
                    self.close()
                    raise
                sleep(0.005)  # there is nothing to wait on before it listens
            else:
                return

    def handle_lines(self, lines: bytes) -> None:
        """Decode and apply a chunk of lines; when this returns, all of it has been applied."""
        self.handle_commands(*self.convert(lines))

    def convert(self, lines: bytes) -> tuple[list[Command], int]:
        """Return the commands that lines become, and how many events they are."""
        events = self._decoder.decode_lines(lines)
        commands: list[Command] = []
        attempts, current, lean = self._attempts, self._current, self._lean
        for event in events:
            kind, unit = event.type, event.unit
            if kind.startswith("orch."):
                commands += self._of_run(event)
            elif unit not in attempts:
                pass
            elif kind == "task.started":
                current[unit] = number = current[unit] + 1 if event.task is None else event.task
                commands.append(("HSET", f"unit:{unit}", "current_task", number))
            elif kind == "task.completed":
                if not lean:
                    commands.append(("HSET", f"unit:{unit}", "completed_task", event.task or 0))
            elif kind == "unit.queued":
                commands.append(("HSET", f"unit:{unit}", "status", "ready", "error", ""))
            elif kind == "unit.started":
                commands.append(self._of_start(event))
            elif kind == "unit.completed":
                commands.append(
                    ("HSET", f"unit:{unit}", "status", "complete", "finished_at", event.time),
                )
            elif kind == "unit.failed":
                fields = ("status", "failed", "error", event.error, "finished_at", event.time)
                commands.append(("HSET", f"unit:{unit}", *fields))
            elif kind == "unit.blocked":
                commands.append(("HSET", f"unit:{unit}", "status", "blocked"))
        return commands, len(events)

    def handle_commands(self, commands: Sequence[Command], events: int) -> None:
        """Send commands, and count so many events."""
        pipeline = self._client.pipeline(transaction=False)
        execute = pipeline.execute_command
        for start in range(0, len(commands), self._batch):
            if start:
                pipeline.execute()
            for command in commands[start : start + self._batch]:
                execute(*command)
        pipeline.incrby("version", events)
        pipeline.execute()

    def totals(self) -> Totals:
        """Return what this peer ended up with."""
        pipeline = self._client.pipeline(transaction=False)
        for unit in self._attempts:
            pipeline.hmget(f"unit:{unit}", "status", "current_task", "attempts")
        counts: dict[str, int] = {}
        current_tasks = attempts = 0
        for status, task, tries in pipeline.execute():
            counts[status.decode()] = counts.get(status.decode(), 0) + 1
            current_tasks += int(task)
            attempts += int(tries)
        return Totals(
            accepted=int(self._client.get("version")),
            total=len(self._attempts),
            current_tasks=current_tasks,
            attempts=attempts,
            **counts,
        )

    def close(self) -> None:
        """End the server."""
        self._client.close()
        self._server.kill()  # it has nothing to save
        self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _of_run(self, event: Line) -> Iterable[Command]:
        if event.type == "orch.started":
            payload = msgspec.json.decode(event.payload, type=Started) if event.payload else Started()
            fields = ("status", "running", "started_at", event.time, "parallelism", payload.parallelism)
            yield "HSET", "run", *fields
            for node in payload.graph.nodes if payload.graph is not None else ():
                self._attempts[node.id] = 0
                self._current[node.id] = node.completed_tasks
                numbers = ("total_tasks", node.tasks, "current_task", node.completed_tasks, "attempts", 0)
                yield "HSET", f"unit:{node.id}", "status", node.status, *numbers
        elif event.type == "orch.completed":
            yield "HSET", "run", "status", "completed", "finished_at", event.time
        elif event.type == "orch.failed":
            yield "HSET", "run", "status", "failed", "error", event.error, "finished_at", event.time

    def _of_start(self, event: Line) -> Command:
        unit = event.unit
        self._attempts[unit] = attempts = self._attempts[unit] + 1
        fields: Command = ("status", "in_progress", "started_at", event.time, "attempts", attempts)
        fields += ("error", "", "finished_at", "")
        if event.payload:
            progress = msgspec.json.decode(event.payload, type=Progress)
            if progress.total_tasks is not None:
                fields += ("total_tasks", progress.total_tasks)
            if progress.completed_tasks is not None:
                self._current[unit] = progress.completed_tasks
                fields += ("current_task", progress.completed_tasks)
        return "HSET", f"unit:{unit}", *fields
