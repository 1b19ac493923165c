"""Patterns matched in linear time: as Python matches them, but without waiting."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprog.errors import FileError
from graphprog.utils.patterns import LinearPattern

_ATOMS = st.sampled_from(
    ["a", "b", ".", r"\.", "[ab]", "[^a]", r"\d", "(a|b)", "(?:ab|a)", "[a-c.]"]
)
_REPEATS = st.sampled_from(["", "*", "+", "?", "{2}", "{1,3}", "{0,2}", "*?", "{2,}"])
_SIMPLE = st.lists(st.tuples(_ATOMS, _REPEATS).map("".join), min_size=1, max_size=4).map("".join)
_PATTERNS = _SIMPLE | st.tuples(_SIMPLE, _REPEATS, _ATOMS).map(lambda x: f"(?:{x[0]}){x[1]}|{x[2]}")


@given(pattern=_PATTERNS, text=st.text("abc.1\n", max_size=8))
def test_python_agrees(pattern: str, text: str) -> None:
    assert LinearPattern(pattern, "x").fullmatch(text) == bool(re.fullmatch(pattern, text))


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "(.*)*(.*)*x", "(a{0,9}){0,9}b", "^(a*)*b$"]
)
def test_no_pattern_takes_long(pattern: str) -> None:
    assert not LinearPattern(pattern, "x").fullmatch("a" * 1_000)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(a)\1", "groupref is not supported"),
        ("(?=a)", "assert is not supported"),
        (r"\ba", "at is not supported"),
        ("(?i)a", "it sets flags"),
        ("a{1,99999}", "it repeats too much"),
        ("((a{100}){100}){100}", "it repeats too much"),
        ("[", "unterminated character set"),
        ("a" * 3_000, "longer than 2000 characters"),
    ],
)
def test_what_needs_more_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(FileError, match=said):
        LinearPattern(pattern, "x")
