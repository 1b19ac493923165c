"""Jobs in a queue: joined by key, the oldest first, and alone where a batch fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from graphprog.errors import BackendError
from graphprog.serve.batching import Batcher
from graphprog.serve.limits import Limits, RequestError
from graphprog.serve.metrics import Metrics


def batches_of(
    jobs: Sequence[tuple[str, int]], limits: Limits, bad: int | None = None
) -> tuple[list[list[int]], list[Any]]:
    """Submit jobs of a key at once; the batches that were computed, and results or errors."""
    computed: list[list[int]] = []

    def compute(batch: Sequence[int]) -> Sequence[int]:
        computed.append(list(batch))
        if bad in batch:
            raise ZeroDivisionError(bad)
        return [-number for number in batch]

    async def run() -> list[Any]:
        batcher = Batcher(compute, limits, Metrics())
        batcher.start()
        calls = [
            batcher.submit(key, rows, number) for number, (key, rows) in enumerate(jobs, start=1)
        ]
        found = await asyncio.gather(*calls, return_exceptions=True)
        await batcher.close()
        return list(found)

    results = asyncio.run(run())
    return computed, results


def test_jobs_of_one_key_are_computed_together() -> None:
    jobs = [("a", 1), ("b", 1), ("a", 2), ("a", 2), ("b", 1)]
    computed, results = batches_of(jobs, Limits(batch=4, wait=0.2))
    assert computed == [[1, 3], [2, 5], [4]]
    assert results == [-1, -2, -3, -4, -5]


def test_only_the_job_that_fails_fails() -> None:
    computed, results = batches_of([("a", 1)] * 3, Limits(batch=4, wait=0.05), bad=2)
    assert computed == [[1, 2, 3], [1], [2], [3]]
    assert results[::2] == [-1, -3]
    assert isinstance(results[1], ZeroDivisionError)


def test_jobs_beyond_the_limits_are_refused() -> None:
    _, results = batches_of([("a", 5), ("a", 3), ("a", 2)], Limits(batch=4, queue=4, wait=0.05))
    assert [getattr(one, "status", one) for one in results] == [413, -2, 429]


def test_a_job_that_takes_too_long_is_given_up() -> None:
    limits = Limits(seconds=0.05)
    blocked = threading.Event()

    async def run() -> None:
        batcher = Batcher(lambda jobs: [blocked.wait(5) for _ in jobs], limits, Metrics())
        batcher.start()
        with pytest.raises(RequestError, match=r"not computed within 0.05 s") as caught:
            await batcher.submit("a", 1, None)
        assert caught.value.status == 503
        blocked.set()
        await batcher.close()

    asyncio.run(run())


def test_limits_are_numbers_above_zero() -> None:
    with pytest.raises(BackendError, match=r"limit batch=0 is not a number above 0"):
        Limits(batch=0)
    with pytest.raises(BackendError, match=r"limit memory=10 is less than body=20"):
        Limits(memory=10, body=20)
