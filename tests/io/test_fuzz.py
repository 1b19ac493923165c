"""Files of every kind, changed at random: data, refused by name, or read; never more."""

from __future__ import annotations

import os

import pytest

from tests.support.fuzzing.watched import BAD, fuzz

CASES = int(os.environ.get("GRAPHPROG_FUZZ", "100000"))
"""How many files; about an hour of a processor shared with others for the usual number."""


@pytest.mark.slow
def test_files_that_were_changed_do_no_harm() -> None:
    figures = fuzz(CASES)
    print(figures)
    assert figures.cases >= CASES
    assert not {name: figures.outcomes[name] for name in BAD if figures.outcomes[name]}, figures
    assert figures.outcomes["read"] > CASES / 100
    assert figures.memory < 2**30
