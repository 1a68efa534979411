"""Batches: a chain in which whatever is altered, missing or exchanged breaks at its place."""

from __future__ import annotations

import random

import msgspec
import pytest

from actorstore.batch import (
    NOBODY,
    Batch,
    Count,
    Farewell,
    Link,
    follow,
    pack,
    pack_counts,
    start,
    unpack,
    unpack_counts,
)

LINES = b'{"type":"unit.started","unit":"a"}\n{"type":"unit.completed","unit":"a"}\n'


def chain(count: int) -> list[Batch]:
    """Some batches, one after the other."""
    place, made = start("store"), []
    for number in range(count):
        batch = follow(place, 2, pack([Count("p", 2 + number, 2, number)]), LINES)
        made.append(batch)
        place = batch.end
    return made


def whole(batches: list[Batch]) -> int:
    """How many of them, from the first on, are what was written."""
    place = start("store")
    for number, batch in enumerate(batches):
        if not batch.follows(place):
            return number
        place = batch.end
    return len(batches)


def test_a_chain_is_whole_as_it_was_written():
    assert whole(chain(5)) == 5
    assert chain(5)[-1].end == Link(5, 10, chain(5)[-1].crc)


def test_a_batch_that_is_missing_breaks_the_chain_at_its_place():
    batches = chain(5)
    assert whole(batches[:2] + batches[3:]) == 2


def test_batches_that_are_exchanged_break_the_chain():
    one, two, three = chain(3)
    assert whole([one, three, two]) == 1
    moved = two._replace(lines=LINES.replace(b"a", b"b"))
    assert whole([one, moved, three]) == 1


def test_a_batch_of_another_store_does_not_follow():
    assert not chain(1)[0].follows(start("another"))


def test_every_bit_of_a_batch_counts():
    place = start("store")
    batch = chain(1)[0]
    drawn = random.Random(1)
    for name in ("steps", "lines"):
        good = getattr(batch, name)
        for _ in range(200):
            bad = bytearray(good)
            bad[drawn.randrange(len(bad))] ^= 1 << drawn.randrange(8)
            assert not batch._replace(**{name: bytes(bad)}).follows(place)
    for name in ("seq", "version", "events", "crc"):
        assert not batch._replace(**{name: getattr(batch, name) ^ 1}).follows(place)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_bytes_that_move_from_one_field_to_the_next_break_the_chain(cut: int):
    batch = chain(1)[0]
    moved = batch._replace(steps=batch.steps + batch.lines[:cut], lines=batch.lines[cut:])
    assert not moved.follows(start("store"))


def test_steps_come_back_as_they_were_packed():
    steps = [Count("a", 3, 2, 1), Count("b", 1, 1, 0), Farewell("a"), Count("a", 5, 5, 0)]
    assert unpack(pack(steps)) == steps
    assert unpack(pack([])) == []


def test_steps_of_one_producer_that_follow_each_other_become_one():
    assert unpack(pack([Count("a", 3, 2, 1), Count("a", 4, 4, 0)])) == [Count("a", 7, 6, 1)]


def test_events_of_nobody_are_told_apart_only_where_others_are_of_producers():
    nobody = Count(NOBODY, 0, 2, 0)
    steps = [nobody, Count("a", 3, 3, 0), nobody, nobody, Farewell("a"), nobody]
    assert unpack(pack(steps)) == [*steps[:2], Count(NOBODY, 0, 4, 0), *steps[4:]]
    assert pack([nobody, nobody]) == b""


def test_an_older_version_reads_steps_and_sees_nothing_of_events_of_nobody():
    steps = [Count(NOBODY, 0, 2, 0), Count("a", 3, 3, 0), Count(NOBODY, 0, 1, 0), Farewell("b")]
    rows = msgspec.msgpack.decode(pack(steps), type=list[tuple[str, int, int, int]])
    farewells = [row[0] for row in rows if row[1] == -1]
    assert farewells == ["", "", "b"]  # of a producer that none can be, and of one that is
    assert [row for row in rows if row[1] != -1] == [("a", 3, 3, 0)]


def test_counts_come_back_as_they_were_packed_in_the_order_of_their_ids():
    counts = [Count("b", 5, 4, 1, 2), Count("a", 3, 2, 1), Count("c", 1, 1, 0, 1)]
    assert unpack_counts(pack_counts(counts)) == sorted(counts)
    assert unpack_counts(pack_counts([])) == []


def test_counts_of_an_older_version_know_no_unknown_units_and_it_reads_those_of_this_one():
    counts = [Count("a", 3, 2, 1), Count("b", 5, 4, 1)]
    old = msgspec.msgpack.encode([count[:4] for count in counts])
    assert unpack_counts(old) == counts
    assert pack_counts(counts) == old
    new = pack_counts([count._replace(unknown_units=1) for count in counts])
    rows = msgspec.msgpack.decode(new, type=list[tuple[str, int, int, int]])
    assert {row[0]: row for row in rows} == {"a": counts[0][:4], "b": counts[1][:4]}


def test_a_farewell_stands_between_what_came_before_and_after():
    steps = [Count("a", 3, 3, 0), Farewell("a"), Count("a", 1, 1, 0)]
    assert unpack(pack(steps)) == steps
