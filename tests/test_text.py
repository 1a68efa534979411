"""Text made harmless: nothing that others wrote can move a cursor, break a line or turn text around."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorstore.text import clean

EVERYTHING = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("\x00\t\x7f", r"\x00\t\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\u202eevil\u202c \u2066x\u2069 \u200e\u200f", r"\u202eevil\u202c \u2066x\u2069 \u200e\u200f"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_terminal_would_obey_becomes_an_escape(text: str, seen: str):
    assert clean(text) == seen


@pytest.mark.parametrize("text", ["", "plain", "naïve Grüße 漢字 🎉", r"back\slash [markup]", "a  b", "é"])
def test_what_is_harmless_stays_as_it_is(text: str):
    assert clean(text) == text
    assert clean(text, 100) == text


def test_what_is_too_long_ends_in_an_ellipsis():
    assert clean("abcdef", 6) == "abcdef"
    assert clean("abcdefg", 6) == "abcde…"
    assert clean("x" * 1_000_000, 20) == "x" * 19 + "…"


@given(EVERYTHING)
def test_the_result_is_one_line_of_valid_text_without_control_characters(text: str):
    seen = clean(text)
    assert len(seen.splitlines()) <= 1
    seen.encode()
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in seen)
    assert clean(seen) == seen


@given(EVERYTHING, st.integers(1, 40))
def test_the_result_is_never_longer_than_its_limit(text: str, limit: int):
    assert len(clean(text, limit)) <= limit
