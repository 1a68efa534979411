"""Garbage by the thousand: the fuzz target over its corpus, and over changes of it.

`FUZZ_SEED` draws other changes; what fails is printed with the seed.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest

from tests.fuzz import target

SEED = int(os.environ.get("FUZZ_SEED", "1"))
INPUTS = 2500
HEADS = (b"", b"1", b"2", b"3", b"5", b"8", b"13", b"21")
"""Each cuts in another way."""


@pytest.mark.parametrize("path", sorted(target.CORPUS.iterdir()), ids=lambda path: path.name)
def test_a_seed_of_the_corpus_says_the_same_however_it_is_cut(path: Path):
    _, _, session = path.read_bytes().partition(b"\n")
    target.run(path.read_bytes())
    for head in HEADS:
        target.run(head + b"\n" + session)


def test_seeds_changed_at_random_break_nothing():
    for number, data in enumerate(islice(target.mutations(target.corpus(), SEED), INPUTS), 1):
        try:
            target.run(data)
        except BaseException as error:
            error.add_note(f"FUZZ_SEED={SEED}, input {number}: {data!r}")
            raise


def test_the_same_seed_gives_the_same_changes():
    first, again = (list(islice(target.mutations(target.corpus(), 7), 20)) for _ in range(2))
    assert first == again


def test_the_corpus_is_small_and_every_seed_is_one_of_its_kind():
    seeds = target.corpus()
    assert 30 <= len(seeds) <= 60
    assert len({seed.partition(b"\n")[2] for seed in seeds}) == len(seeds)
    assert max(map(len, seeds)) < 100_000


def test_a_miscount_would_be_found(monkeypatch: pytest.MonkeyPatch):
    """A target that cannot fail finds nothing."""
    monkeypatch.setattr("actorstore.protocol.StoreReader._line_by_line", lambda self, chunk: iter(()))
    with pytest.raises(AssertionError):
        target.run(b'\n{"type":"x"}\n')
