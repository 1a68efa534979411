"""JSON in slices: the bytes of one `msgspec.json.encode`, each slice encoded in one short call.

msgspec holds the interpreter for the whole of a call, so encoding a million
units at once stops every thread of the process for as long. Between two slices
others get their turn; callers that take long rest there.

Pure; knows nothing of the answers but the names of what is long in them.
Reading order: `snapshot`, `update`, `graph`, then `elements`, `rows` and `fill`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

SLICE_THINGS: Final = 512
"""How many elements go into one slice at most: 0.1 ms of the interpreter for units."""

SLICE_BYTES: Final = 1 << 17
"""About how many bytes a slice has at most, where its elements are not larger than that."""

LARGE: Final = 1 << 14
"""An answer of more units, nodes and edges than this is encoded in slices by whoever wants its JSON."""

_encode: Final = msgspec.json.Encoder().encode
_replace: Final = msgspec.structs.replace


def snapshot(answer: Any, chunks: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """Yield the JSON of a snapshot with the units of all chunks in place of its own."""
    return fill(_encode(_replace(answer, units=())), [("units", elements(chunks))])


def update(answer: Any, chunks: Iterable[Sequence[object]], graph: Any) -> Iterator[bytes]:
    """Yield the JSON of an update with the units of all chunks and this graph in place of its own."""
    arrays = [("units", elements(chunks))]
    if graph is not None:
        arrays += _graph_arrays(graph)
        graph = _without_arrays(graph)
    return fill(_encode(_replace(answer, units=(), graph=graph)), arrays)


def graph(answer: Any) -> Iterator[bytes]:
    """Yield the JSON of a graph."""
    return fill(_encode(_without_arrays(answer)), _graph_arrays(answer))


def _without_arrays(graph: Any) -> Any:
    return _replace(graph, nodes=(), edges=(), levels=(), problems=())


def _graph_arrays(graph: Any) -> list[tuple[str, Iterator[bytes]]]:
    return [
        ("nodes", elements([graph.nodes])),
        ("edges", elements([graph.edges])),
        ("levels", rows(graph.levels)),
        ("problems", elements([graph.problems])),
    ]


def elements(chunks: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """Yield the inside of the JSON array that holds the elements of all chunks.

    Args:
        chunks: Lists or tuples; where they end makes no difference to the bytes.
    """
    count = max(1, SLICE_THINGS // 8)  # how large an element is shows in the first slice
    comma = b""
    for chunk in chunks:
        start = 0
        while start < len(chunk):
            slice = _encode(chunk[start : start + count])
            yield comma + slice[1:-1]
            comma = b","
            start += count
            count = max(1, min(SLICE_THINGS, count * SLICE_BYTES // len(slice)))


def rows(table: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """Yield the inside of a JSON array of arrays, however long one of them is, and however many they are."""
    short: list[Sequence[object]] = []
    size = 0
    comma = b""
    for row in table:
        if short and size + len(row) > SLICE_THINGS:
            yield comma + _encode(short)[1:-1]
            comma, short, size = b",", [], 0
        if len(row) <= SLICE_THINGS:
            short.append(row)
            size += 1 + len(row)
            continue
        yield comma + b"["
        yield from elements([row])
        yield b"]"
        comma = b","
    if short:
        yield comma + _encode(short)[1:-1]


def fill(template: bytes, arrays: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[bytes]:
    """Yield a JSON object, with elements put into its empty arrays.

    Args:
        template: The object. A quote inside a string is escaped, so `"units":[]`
            can only be a name with its array.
        arrays: Name and inside of each array that is filled, in the order of the object.
    """
    for name, inside in arrays:
        head, found, rest = template.partition(b'"%s":[]' % name.encode())
        if not found:
            raise ValueError(f"no empty array {name!r} in {template[:80]!r}")
        yield head + found[:-1]
        yield from inside
        template = b"]" + rest
    yield template
