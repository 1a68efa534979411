"""A list of units in chunks: it says what a plain list says, and copies only what changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstore import unitlist
from actorstore.answers import UnitState, UnitStatus
from actorstore.unitlist import CHUNK_UNITS, UnitList, joined


def unit(number: int) -> UnitState:
    return UnitState(f"u{number}", UnitStatus.PENDING, number, 0, 0)


STEPS = st.lists(
    st.tuples(st.just("extend"), st.integers(0, 9))
    | st.tuples(st.just("set"), st.integers(0, 50))
    | st.tuples(st.just("freeze"), st.just(0)),
    max_size=30,
)


@given(STEPS, st.integers(1, 5))
def test_it_says_what_a_list_says_and_what_was_handed_out_stays(
    steps: list[tuple[str, int]], size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unitlist, "CHUNK_UNITS", size)
        units, plain, kept = UnitList(), [], []
        for number, (step, value) in enumerate(steps):
            if step == "extend":
                more = [unit(1000 * number + place) for place in range(value)]
                units.extend(iter(more))
                plain += more
            elif step == "set" and plain:
                places = sorted({value % len(plain), 7 * value % len(plain)}, key=lambda place: place % 3)
                new = [(place, unit(100 * number + place)) for place in places]
                assert units.replace(new) == [plain[place] for place in places]
                for place, changed in new:
                    plain[place] = changed
                assert units.some(places) == tuple([plain[place] for place in places])
            elif step == "freeze":
                kept.append((units.freeze(), tuple(plain)))
            assert len(units) == len(plain)
        assert units.some(range(len(plain))) == tuple(plain)
        for chunks, copy in [*kept, (units.freeze(), tuple(plain))]:
            assert joined(chunks) == copy
            assert all(len(chunk) == size for chunk in chunks[:-1])


def test_a_copy_costs_the_chunks_that_changed() -> None:
    units = UnitList(map(unit, range(5 * CHUNK_UNITS)))
    before = units.freeze()
    assert units.copied == 0  # each was copied when it was full
    units.replace([(3 * CHUNK_UNITS, unit(-1))])
    after = units.freeze()
    assert units.copied == CHUNK_UNITS
    assert [old is new for old, new in zip(before, after, strict=True)] == [True, True, True, False, True]
    units.freeze()
    assert units.copied == 0


def test_one_chunk_is_not_copied_again_for_whoever_wants_a_tuple() -> None:
    (chunk,) = UnitList(map(unit, range(9))).freeze()
    assert joined((chunk,)) is chunk
