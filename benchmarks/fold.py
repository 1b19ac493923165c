"""Inference with an additive program that is folded, beside its bare source on the same engine.

    python benchmarks/fold.py [threads]

A vision transformer of the size of ViT-B/16 and EfficientNet-Lite0, with a border pattern that is
squashed and masked. Both sides are folded alike: the bare source by ``gp.optimize`` or an export of
its frozen graph, the task by ``gp.freeze(task, exact=False)`` or ``exact=False`` of an export.
"Unfolded" is the task's own graph on the optimized source. Medians, in turns in one process.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from turns import efficientnet_lite0, machine, side_by_side

import graphprog as gp

ROWS = 4


def transformer() -> nn.Module:
    """A vision transformer of the library timm, with random weights."""
    import timm

    torch.manual_seed(0)
    made: nn.Module = timm.create_model("vit_base_patch16_224", num_classes=100)
    return made.eval().requires_grad_(False)


def contestants(model: nn.Module, side: int, folder: Path) -> dict[str, Callable[[], object]]:
    """One call each, by name."""
    images = torch.rand(ROWS, 3, side, side)
    graph = gp.capture(model, (images[:2],))
    pattern = gp.Additive(
        value=gp.Learnable("normal"), squash="tanh", mask=gp.masks.border(inner=side // 2)
    )
    task = gp.compile(graph, gp.Program([pattern]))
    bare = gp.freeze(gp.compile(graph, gp.Program()), exact=False)
    unfolded = gp.compile(gp.optimize(graph), gp.Program([pattern]))
    folded = gp.freeze(task, exact=False)
    files = {"bare": gp.compile(graph, gp.Program()), "folded": task}
    sessions = {}
    for name, one in files.items():
        gp.backends.onnx.export(one, folder / f"{name}.onnx", exact=False, tolerance=1e-2)
        options = gp.backends.onnxruntime.SessionOptions(threads=torch.get_num_threads())
        path = folder / f"{name}.onnx"
        sessions[name] = gp.backends.onnxruntime.Session(path, options=options)
    return {
        "PyTorch, bare": lambda: bare(images),
        "PyTorch, folded": lambda: folded(images),
        "PyTorch, unfolded": lambda: unfolded(images),
        "ONNX Runtime, bare": lambda: sessions["bare"].run(images),
        "ONNX Runtime, folded": lambda: sessions["folded"].run(images),
    }


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    print(machine())
    models = {
        "ViT-B/16 size": (transformer, 224),
        "EfficientNet-Lite0": (efficientnet_lite0, 96),
    }
    for name, (make, side) in models.items():
        with tempfile.TemporaryDirectory() as folder:
            medians = side_by_side(contestants(make(), side, Path(folder)))
        for kind, median in medians.items():
            ratio = median / medians[f"{kind.split(',')[0]}, bare"]
            print(f"{name:20s} {kind:22s} {1e3 * median:8.1f} ms  {ratio:6.3f} × bare")


if __name__ == "__main__":
    main()
