"""What the speed of the suite rests on."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("a-group")
def test_tests_of_a_group_share_a_worker(request: pytest.FixtureRequest) -> None:
    """With pytest 9.2 they do not: xdist 3.8 changes names of tests that it no longer reads."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("there are no workers")
    assert request.node.nodeid.endswith("@a-group")
