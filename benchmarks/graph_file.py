"""CPU time of reading a graph from its file, as a share of the time of capturing the model.

python -m benchmarks.graph_file
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rewrite import AXES, WIDTH, Stack

import graphprog as gp


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Print a line for each number of blocks."""
    graphs: list[gp.Graph] = []
    print(f"{'nodes':>6}  {'capture':>9}  {'load':>9}  {'ratio':>6}")
    for blocks in (2, 2, 6, 12):  # the first run also pays for what PyTorch loads late
        model, example = Stack(blocks).eval(), (torch.randn(2, 5, WIDTH),)
        capture = seconds(lambda: graphs.append(gp.capture(model, example, None, AXES)))  # noqa: B023
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.graph"
            graphs[-1].save(path)
            load = seconds(lambda: graphs.append(gp.Graph.load(path)))  # noqa: B023
        assert graphs[-1].fingerprint == graphs[-2].fingerprint
        nodes = len(graphs[-1].nodes)
        print(f"{nodes:6}  {capture:8.2f}s  {load:8.2f}s  {load / capture:6.2f}")


if __name__ == "__main__":
    main()
