"""Joining of requests into batches, which one thread computes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from graphprog.serve.limits import Limits, RequestError
from graphprog.serve.metrics import Metrics

Compute = Callable[[Sequence[Any]], Sequence[Any]]
"""From jobs of one key to the result of each."""


@dataclasses.dataclass(eq=False)
class _Waiting:
    """A job in the queue."""

    job: Any
    rows: int
    result: asyncio.Future[Any]
    arrived: float


class Batcher:
    """A queue of jobs; those of one key are computed together, the oldest first.

    A job waits at most ``limits.wait`` seconds for others; while a batch is computed, further jobs
    collect. If a batch fails, each of its jobs is computed alone, so that only the cause fails.

    Args:
        compute: called in a thread of its own, for one batch after the other.
        limits: of rows and time.
        metrics: where batches are counted.
    """

    def __init__(self, compute: Compute, limits: Limits, metrics: Metrics) -> None:
        self._compute = compute
        self._limits = limits
        self._metrics = metrics
        self._lines: dict[Hashable, deque[_Waiting]] = {}
        self._rows = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to compute; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Stop; jobs that wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def submit(self, key: Hashable, rows: int, job: Any) -> Any:
        """Return the result of a job.

        Args:
            key: jobs with the same key may be computed together.
            rows: how many it has.
            job: for ``compute``.

        Raises:
            RequestError: too many rows in one job (413), the queue is full (429), or the time is
                up (503).
        """
        limits = self._limits
        if rows > limits.batch:
            raise RequestError(413, f"{rows} rows, but a request may have {limits.batch}")
        if self._rows and self._rows + rows > limits.queue:
            raise RequestError(429, f"{self._rows} rows are waiting; the queue is full")
        waiting = _Waiting(job, rows, asyncio.get_running_loop().create_future(), time.monotonic())
        self._lines.setdefault(key, deque()).append(waiting)
        self._count(rows)
        self._arrived.set()
        try:
            return await asyncio.wait_for(waiting.result, limits.seconds)
        except TimeoutError as error:
            raise RequestError(503, f"not computed within {limits.seconds:g} s") from error

    def _count(self, rows: int) -> None:
        self._rows += rows
        self._metrics.waiting.set(self._rows)

    async def _work(self) -> None:
        while True:
            await self._next()
            key = min(self._lines, key=lambda one: self._lines[one][0].arrived)
            await self._fill(key)
            if batch := self._take(key):
                await self._finish(batch)

    async def _next(self) -> None:
        while not self._lines:
            self._arrived.clear()
            await self._arrived.wait()

    async def _fill(self, key: Hashable) -> None:
        """Wait until a batch of a key is full, or its oldest job has waited for long enough."""
        until = self._lines[key][0].arrived + self._limits.wait
        while sum(one.rows for one in self._lines[key]) < self._limits.batch:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)

    def _take(self, key: Hashable) -> list[_Waiting]:
        """Take jobs of a key, up to a full batch, without those that nobody waits for."""
        line, batch, rows = self._lines[key], list[_Waiting](), 0
        while line and rows + line[0].rows <= self._limits.batch:
            one = line.popleft()
            self._count(-one.rows)
            if not one.result.done():
                batch.append(one)
                rows += one.rows
        if not line:
            del self._lines[key]
        return batch

    async def _finish(self, batch: Sequence[_Waiting]) -> None:
        """Compute a batch, and give each job its result or error."""
        loop, start = asyncio.get_running_loop(), time.monotonic()
        jobs = [one.job for one in batch]
        try:
            results = await loop.run_in_executor(self._thread, self._compute, jobs)
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    await self._finish([one])
            elif not batch[0].result.done():
                batch[0].result.set_exception(error)
            return
        self._metrics.batch(sum(one.rows for one in batch), time.monotonic() - start)
        for one, result in zip(batch, results, strict=True):
            if not one.result.done():
                one.result.set_result(result)
