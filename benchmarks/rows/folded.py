"""Row 11: inference with an additive program that is folded, beside its bare source.

    python -m benchmarks.rows.folded [--tiny]

A vision transformer of the size of ViT-B/16 and EfficientNet-Lite0, with a border pattern that is
squashed and masked, on PyTorch and on ONNX Runtime. Both sides are folded alike: the bare source
by ``gp.freeze(task, exact=False)`` of an empty program or an export of it, the task likewise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import graphprog as gp
from benchmarks.table.records import OURS, Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import efficientnet_lite0, in_turns
from benchmarks.works.images import vit_base

MODELS, ENGINES = ("ViT-B/16 size", "EfficientNet-Lite0"), ("PyTorch", "ONNX Runtime")
ROW = Row(
    11,
    "inference with an additive program, folded",
    "bare source, same engine",
    tuple(Ask(f"{model}, {engine}", 1.02, least=False) for model in MODELS for engine in ENGINES),
)
ROWS, PEER = 4, "bare source"
Calls = dict[str, Callable[[], object]]


def contestants(model: nn.Module, side: int, folder: Path) -> tuple[Calls, Calls]:
    """Return the calls in PyTorch and in ONNX Runtime.

    Args:
        model: the source.
        side: of the images.
        folder: for the exported files.
    """
    images = torch.rand(ROWS, 3, side, side)
    graph = gp.capture(model, (images[:2],))
    pattern = gp.Additive(
        value=gp.Learnable("normal"), squash="tanh", mask=gp.masks.border(inner=side // 2)
    )
    tasks = {PEER: gp.compile(graph, gp.Program()), OURS: gp.compile(graph, gp.Program([pattern]))}
    eager: Calls = {}
    exported: Calls = {}
    options = gp.backends.onnxruntime.SessionOptions(threads=torch.get_num_threads())
    for name, task in tasks.items():
        frozen, path = gp.freeze(task, exact=False), folder / f"{name}.onnx"
        gp.backends.onnx.export(task, path, exact=False, tolerance=1e-2)
        session = gp.backends.onnxruntime.Session(path, providers="cpu", options=options)
        eager[name] = lambda frozen=frozen: frozen(images)
        exported[name] = lambda session=session: session.run(images)
    return eager, exported


@torch.no_grad()
def measure(setting: Setting) -> list[Record]:
    """Measure both models on both engines."""
    vit = vit_base(setting)
    sides = (vit.patch_embed.img_size[0], 64 if setting.tiny else 96)
    found: list[Record] = []
    for model, side in zip((vit, efficientnet_lite0()), sides, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            for calls in contestants(model, side, Path(folder)):
                ask = ROW.asks[len(found)]
                found.append(record(ROW, ask, in_turns(calls, setting, least=5), setting))
    return found


if __name__ == "__main__":
    main(ROW, measure)
