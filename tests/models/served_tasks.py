"""Two programs on one small classifier, as files that a server reads."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import graphprog as gp

LABELS = {"digits": ("zero", "one", "two"), "birds": ("finch", "robin")}


def image_source() -> gp.Graph:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 24)
    return gp.capture(nn.Sequential(*layers).eval(), (torch.rand(2, 3, 16, 16),))


def image_task(graph: gp.Graph, name: str, seed: int) -> gp.ReprogrammedModel:
    program = gp.Program(
        [gp.Additive(at="input", value=gp.Learnable("normal"))],
        align=gp.LinearHead(len(LABELS[name])),
        contract=gp.Contract("unit", 0.5, 0.25, labels=LABELS[name]),
    )
    return gp.compile(graph, program, seed=seed)


def image_files(folder: Path) -> dict[str, gp.ReprogrammedModel]:
    """Write ``model.onnx`` and a file of each program; the tasks in PyTorch."""
    graph = image_source()
    tasks = {name: image_task(graph, name, seed) for seed, name in enumerate(LABELS)}
    for name, task in tasks.items():
        gp.save(task, folder / f"{name}.safetensors")
    gp.backends.onnx.export(tasks["digits"], folder / "model.onnx", program="per_row")
    return tasks
