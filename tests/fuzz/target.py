"""A fuzz target: any bytes, cut anywhere, through protocol, events and state.

The first bytes, up to an LF, say how the rest is cut and how long a line may be;
the rest is what a connection says. `run` raises where something is raised that
is not documented, where lines do not add up, and where it matters how the bytes
were cut.

    python -m tests.fuzz.target --seconds 60 --seed 1

runs atheris where it is installed, and else changes files of the corpus at
random. What fails is printed with what repeats it; `--file` runs one file.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from actorstore.answers import Rejection
from actorstore.event import Event
from actorstore.protocol import (
    ClientReader,
    FromStore,
    Lines,
    StoreReader,
    TooLong,
    Violation,
    control,
    hello,
    sendable,
)
from actorstore.state import State
from actorstore.text import clean
from actorstore.wire import CHUNK_BYTES, MAX_LINE_BYTES, chunks, decode
from tests.builders import Follower, check_snapshot

CORPUS: Final = Path(__file__).parent / "corpus"
"""Where the seeds lie, each of them a session of its own kind."""

LIMITS: Final = (MAX_LINE_BYTES, CHUNK_BYTES, 1 << 10)
"""Longest lines; none is shorter than a control line of the corpus, or than what is shown of a line."""

MAX_PIECES: Final = 200
"""Into how many pieces a session is cut, at most."""

TOKENS: Final = (
    *(
        b"\n",
        b"\r",
        b" ",
        b"{",
        b"}",
        b'"',
        b"\\",
        b",",
        b":",
        b"[",
        b"]",
        b"\x00",
        b"\xff",
        b"\xc3",
        b"\xc3\xa9",
    ),
    *(
        b"null",
        b"true",
        b"0",
        b"-1",
        b"9007199254740992",
        b"1e999",
        b'"\\u0000"',
        b'"\\ud800"',
        b'"\\u001b[2J"',
    ),
    *(
        b'{"hello":{"protocol":1}}\n',
        b'{"ask":{"id":1,"what":"stats"}}\n',
        b'{"bye":{}}\n',
        b'{"ask":',
        b'"bye"',
    ),
    *(
        b'{"type":"unit.started","unit":"a"}\n',
        b'{"type":"orch.reset"}\n',
        b'"payload":',
        b'"run":',
        b'"unit":"a"',
    ),
)
"""What is put in where bytes are changed at random."""


class Told(NamedTuple):
    """What a session says, however it was cut."""

    messages: list[object]
    """Control lines and violations, and between them how many lines there were."""
    events: list[Event]
    rejections: list[Rejection]
    lines: int


def run(data: bytes) -> None:
    """Feed a session to both readers, and check all that must hold.

    Raises:
        AssertionError: Something does not hold.
    """
    head, _, session = data.partition(b"\n")
    rng = random.Random(head)
    limit = rng.choice(LIMITS)
    pieces = cut(session, rng)
    told = read([session], limit)
    again = read(pieces, limit)
    assert again.messages == told.messages, "the messages depend on the cut"
    assert again == told, "the lines depend on the cut"
    check_count(session, told)
    states = [fold(found.events) for found in (told, again)]
    assert states[0] == states[1]
    check_sendable(session)
    check_client(session, pieces)


def cut(session: bytes, rng: random.Random) -> list[bytes]:
    """Cut a session into pieces, some of them as short as can be."""
    size = rng.choice((1, 2, 7, 100, 4096, CHUNK_BYTES))
    places = {0, len(session)}
    place = 0
    while place < len(session) and len(places) < MAX_PIECES:
        places.add(place)
        place += rng.randint(1, size)
    return [session[start:end] for start, end in pairwise(sorted(places))]


def read(pieces: Iterable[bytes], limit: int) -> Told:
    """What a store makes of a session."""
    reader = StoreReader(limit)
    told = Told([], [], [], 0)
    lines = since = 0
    for message in [message for piece in pieces for message in reader.feed(piece)]:
        if isinstance(message, Lines | TooLong):
            count = take(message, lines, limit, told)
            lines, since = lines + count, since + count
        else:
            told.messages.extend([since, message] if since else [message])
            since = 0
    return told._replace(messages=[*told.messages, since], lines=lines)


def take(message: Lines | TooLong, before: int, limit: int, told: Told) -> int:
    """Decode lines, and note what they hold; returns how many there were."""
    if isinstance(message, TooLong):
        told.rejections.append(numbered(message.rejection, before))
        return 1
    data, lines, alike = message
    assert data.endswith(b"\n")
    assert lines == data.count(b"\n")
    assert len(data) <= CHUNK_BYTES or lines == 1
    chunk = decode(data, limit, lines=lines, alike=alike)
    assert chunk == decode(data, limit)
    assert chunk.lines == lines
    blank = sum(not line.strip(b" \t\r") for line in data.split(b"\n")[:-1])
    assert len(chunk.events) + len(chunk.rejections) + blank == lines
    told.events.extend(chunk.events)
    told.rejections.extend(numbered(rejection, before) for rejection in chunk.rejections)
    return lines


def numbered(rejection: Rejection, before: int) -> Rejection:
    """Count the line of a rejection from the start of the session."""
    assert rejection.text == clean(rejection.text)
    assert rejection.reason == clean(rejection.reason)
    return Rejection(rejection.reason, rejection.text, before + (rejection.line or 0))


def check_count(session: bytes, told: Told) -> None:
    """Each line that has ended counts once, unless it is a control line or comes after a violation."""
    count = 0
    for line in session.split(b"\n")[:-1]:
        if control(line + b"\n") is None:
            count += 1
        elif any(isinstance(message, Violation) for message in told.messages):
            break
    else:
        assert told.lines == count
        return
    assert told.lines >= count


def fold(events: Sequence[Event]) -> list[bytes]:
    """Apply the events, in two halves, and return all that can be seen then."""
    state = State("s")
    half = len(events) // 2
    state.apply(list(events[:half]))
    followers = {run: Follower().take(state.update(run).finish()) for run in state.runs}
    state.apply(list(events[half:]))
    assert not state.faults
    assert state.version == len(events)
    seen = [b"%d unknown" % state.unknown_units]
    for run in state.runs:
        snapshot = check_snapshot(state.snapshot(run))
        if run in followers:
            follower = followers[run]
            assert follower.last is not None
            follower.take(state.update(run, follower.last.cursor).finish())
            assert follower.snapshot().json() == snapshot.json()
        graph = state.graph(run)
        seen += [snapshot.json(), snapshot.msgpack(), graph.data().json() if graph else b""]
    return seen


def check_sendable(session: bytes) -> None:
    """What a client sends of these lines counts line for line, and is taken for nothing else."""
    for chunk in chunks(session):
        sent = sendable(chunk)
        reader = StoreReader()
        reader.feed(hello("p"))
        messages = reader.feed(sent.data)
        assert all(isinstance(message, Lines) for message in messages)
        assert sum(message.lines for message in messages if isinstance(message, Lines)) == sent.lines
        mine, theirs = decode(chunk), decode(sent.data)
        assert theirs.events == mine.events
        assert len(theirs.rejections) == len(mine.rejections) == sent.lines - len(mine.events) - sent.blank


def check_client(session: bytes, pieces: Sequence[bytes]) -> None:
    """A client reads messages, or raises `ValueError`, however the bytes are cut."""
    assert heard(pieces) == heard([session])


def heard(pieces: Iterable[bytes]) -> list[FromStore] | None:
    """What a client hears; nothing where the other end speaks something else."""
    reader = ClientReader()
    try:
        return [message for piece in pieces for message in reader.feed(piece)]
    except ValueError as error:
        reason = str(error)
    assert reason == clean(reason)
    return None


# Random changes, for where there is no fuzzer.


def corpus() -> list[bytes]:
    """The seeds, in an order that does not change."""
    return [path.read_bytes() for path in sorted(CORPUS.iterdir())]


def mutations(seeds: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Seeds, changed at random; the same ones for the same seed."""
    rng = random.Random(seed)
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            change(data, seeds, rng)
        yield bytes(data)


def change(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    """Change a few bytes, or a few lines."""
    start = rng.randint(0, len(data))
    end = min(len(data), start + rng.choice((0, 1, 1, 2, 8, 64)))
    match rng.randrange(6):
        case 0:
            data[start:end] = rng.randbytes(rng.randint(0, 4))
        case 1:
            data[start:end] = rng.choice(TOKENS)
        case 2:
            data[start:start] = data[start:end] * rng.randint(1, 3)
        case 3:
            lines = bytes(data).split(b"\n")
            place = rng.randrange(len(lines))
            lines[place:place] = rng.sample(lines, rng.randint(1, min(3, len(lines))))
            data[:] = b"\n".join(lines)
        case 4:
            other = rng.choice(seeds)
            place = rng.randint(0, len(other))
            data[start:start] = other[place : place + rng.choice((10, 100, 1000))]
        case _:
            if start < len(data):
                data[start] ^= 1 << rng.randrange(8)


def fuzz(seconds: float, seed: int) -> int:
    """Run changed seeds for so long; returns how many."""
    end = time.monotonic() + seconds
    count = 0
    for count, data in enumerate(mutations(corpus(), seed), 1):
        try:
            run(data)
        except BaseException:
            print(f"seed {seed}, input {count}: {data!r}", file=sys.stderr)
            raise
        if time.monotonic() >= end:
            break
    return count


def main() -> None:
    """Run atheris where it is installed, and random changes where it is not."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.target", description=run.__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run; drawn where not given")
    parser.add_argument("--file", type=Path, help="run this input alone")
    options = parser.parse_args()
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    if options.file:
        run(options.file.read_bytes())
        return
    try:
        import atheris
    except ImportError:
        print(f"seed {seed}", file=sys.stderr)
        print(f"{fuzz(options.seconds, seed)} inputs, nothing found", file=sys.stderr)
        return
    atheris.instrument_all()
    flags = [f"-max_total_time={options.seconds}", f"-seed={seed}", "-max_len=200000"]
    found = tempfile.mkdtemp(
        prefix="fuzz-"
    )  # new inputs go into the first folder, so the corpus comes second
    print(f"new inputs are put into {found}", file=sys.stderr)
    atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={found}/", found, str(CORPUS)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
