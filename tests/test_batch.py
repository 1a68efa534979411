"""Batches: a chain in which whatever is altered, missing or exchanged breaks at its place."""

from __future__ import annotations

import random

import pytest

from actorstore.batch import Batch, Count, Farewell, Link, follow, pack, start, unpack

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


def test_a_farewell_stands_between_what_came_before_and_after():
    steps = [Count("a", 3, 3, 0), Farewell("a"), Count("a", 1, 1, 0)]
    assert unpack(pack(steps)) == steps
