"""Training steps of ONNX Runtime and of PyTorch, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

import graphprog as gp

ort = gp.backends.onnxruntime


def eager_losses(
    task: gp.ReprogrammedModel,
    batches: Iterable[tuple[Tensor, ...]],
    loss: Callable[[Any, Tensor], Tensor],
    optimizer: Any,
) -> list[float]:
    """Train a task by a loop of PyTorch; what it learned stays in it."""
    parameters = [value for value in task.program.parameters() if value.requires_grad]
    made, found = optimizer(parameters), []
    task.train()
    for *inputs, labels in batches:
        value = loss(task(*inputs), labels)
        made.zero_grad()
        value.backward()
        made.step()
        found.append(value.item())
    task.eval()
    return found


def worst(found: Sequence[float], wanted: Sequence[float]) -> float:
    """Largest relative difference of two curves."""
    assert len(found) == len(wanted) > 0
    return max(abs(a - b) / abs(b) for a, b in zip(found, wanted, strict=True))


def require_equal_curves(
    task: gp.ReprogrammedModel,
    batches: Sequence[tuple[Tensor, ...]],
    loss: Callable[[Any, Tensor], Tensor],
    optimizer: Any,
    path: Path,
    **options: Any,
) -> gp.backends.onnxruntime.Trainer:
    """Export a step and take it on all batches; PyTorch must have the same losses in 1e-4."""
    ort.export_training(task, path, loss=loss, optimizer=optimizer, **options)
    trainer = ort.Trainer(path, providers="cpu")
    found = [trainer.step(*batch) for batch in batches]
    wanted = eager_losses(task, batches, loss, optimizer)
    assert wanted[-1] != wanted[0]
    assert worst(found, wanted) < 1e-4
    return trainer
