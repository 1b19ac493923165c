"""Patterns matched in linear time: as Python matches them, but without waiting."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprog.utils.patterns import compile_pattern, find_all, full_match

_ATOMS = st.sampled_from(
    ["a", "b", ".", r"\.", "[ab]", "[^a]", r"\d", "(?:a|b)", "(?:ab|a)", "[a-c.]", r"\b."]
)
_REPEATS = st.sampled_from(["", "*", "+", "?", "{2}", "{1,3}", "{0,2}", "*?", "{2,}"])
_SIMPLE = st.lists(st.tuples(_ATOMS, _REPEATS).map("".join), min_size=1, max_size=4).map("".join)
_PATTERNS = _SIMPLE | st.tuples(_SIMPLE, _REPEATS, _ATOMS).map(lambda x: f"({x[0]}){x[1]}|{x[2]}")


@given(pattern=_PATTERNS, text=st.text("abc.1\n", max_size=8))
def test_python_agrees(pattern: str, text: str) -> None:
    assert full_match(pattern, text) == bool(re.fullmatch(pattern, text))
    if not re.match(pattern, ""):  # after an empty match the two go on at different places
        expected = [match[match.re.groups] or "" for match in re.finditer(pattern, text)]
        assert list(find_all(pattern, text)) == expected


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "(.*)*(.*)*x", "(a{0,9}){0,9}b", "^(a*)*b$"]
)
def test_no_pattern_takes_long(pattern: str) -> None:
    assert not full_match(pattern, "a" * 100_000)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(a)\1", "invalid escape sequence"),
        ("(?=a)", "invalid perl operator"),
        ("a{1,99999}", "invalid repetition size"),
        ("((a{100}){100}){100}", "invalid repetition size"),
        ("[", "missing ]"),
        ("a" * 3_000, "longer than 2000 characters"),
        ("\ud800", "not Unicode"),
    ],
)
def test_what_needs_more_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compile_pattern(pattern)


def test_text_without_meaning_is_read() -> None:
    assert list(find_all(r"is (\d+)", "\ud800 is 7, \u00e9 is 70")) == ["7", "70"]
