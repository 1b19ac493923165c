"""Choosing passes by measuring: each is tried on the graph so far, and kept if it is faster."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from graphprog.ir.graph import Graph
from graphprog.passes.base import Pass
from graphprog.passes.pipeline import Pipeline
from graphprog.utils.columns import columns
from graphprog.utils.files import atomic_write, cache_folder

Timer = Callable[[Callable[[], object]], float]
"""Returns the seconds that a call takes."""

MARGIN = 1.03
"""How many times as fast the graph must be with a pass that is kept."""
TURNS = 7


def wall_clock(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes; a GPU is waited for."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One pass that was tried.

    Attributes:
        name: its text.
        rounds: whether its results may differ by rounding.
        ratio: time without it, over time with it; None if it changes nothing.
        kept: whether it was kept.
    """

    name: str
    rounds: bool
    ratio: float | None
    kept: bool

    def row(self) -> tuple[str, str, str, str]:
        """Return it as cells of a table."""
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f}"
        outcome = "kept" if self.kept else "changes nothing" if self.ratio is None else "not kept"
        return self.name, "rounding" if self.rounds else "same bits", ratio, outcome


class Trial(tuple[Attempt, ...]):
    """What was tried, in order; prints as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        header = ("tried", "results", "times as fast", "outcome")
        return "\n".join(columns([one.row() for one in self], header))

    @property
    def pipeline(self) -> Pipeline:
        """The passes that were kept."""
        return Pipeline.parse(" ; ".join(one.name for one in self if one.kept))


def trial(
    graph: Graph,
    candidates: Sequence[tuple[Pass, bool]],
    inputs: Sequence[torch.Tensor],
    timer: Timer = wall_clock,
) -> Trial:
    """Try passes on a graph, or read what an earlier trial on this machine found.

    Args:
        graph: the graph.
        candidates: passes in the order in which they are tried, and whether each rounds.
        inputs: tensor inputs, on the device of the graph.
        timer: measures calls.
    """
    path = cache_folder() / "trials" / f"{_key(graph, candidates, inputs, timer)}.json"
    if (known := _read(path)) is not None:
        return known
    attempts = []
    for item, rounds in candidates:
        changed = item(graph)
        ratio = None if not changed.history[-1].changed else _ratio(graph, changed, inputs, timer)
        kept = ratio is not None and ratio >= MARGIN
        attempts.append(Attempt(str(item), rounds, ratio, kept))
        graph = changed if kept else graph
    found = Trial(attempts)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([dataclasses.asdict(one) for one in found])
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return found


def _ratio(graph: Graph, changed: Graph, inputs: Sequence[torch.Tensor], timer: Timer) -> float:
    """Return how many times as fast a graph became; 1 where that is within the noise of turns."""
    with torch.no_grad():
        for one in (graph, changed):
            one.run(inputs)
        ratios = [
            timer(lambda: graph.run(inputs)) / max(timer(lambda: changed.run(inputs)), 1e-12)
            for _ in range(TURNS)
        ]
    middle = statistics.median(ratios)
    won = sum(ratio > 1.0 for ratio in ratios)
    return min(middle, 1.0) if won < TURNS - 1 else middle


def _key(
    graph: Graph,
    candidates: Sequence[tuple[Pass, bool]],
    inputs: Sequence[torch.Tensor],
    timer: Timer,
) -> str:
    """Identify a trial: machine, versions, graph, sizes, and what is tried."""
    parts: list[Any] = [
        *(platform.node(), platform.machine(), platform.processor(), os.cpu_count()),
        *(torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()),
        torch.cuda.get_device_name() if graph.device.type == "cuda" else graph.device.type,
        *(str(graph.fingerprint.text), graph.fingerprint.weights),
        *((tuple(one.shape), str(one.dtype)) for one in inputs),
        *(str(item) for item, _ in candidates),
        f"{timer.__module__}.{getattr(timer, '__qualname__', type(timer).__qualname__)}",
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _read(path: Path) -> Trial | None:
    """Return a trial from its file; None if there is none, or it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        read = Trial(Attempt(**one) for one in found)
        _ = read.pipeline
    except (OSError, ValueError, TypeError):
        return None
    return read
