"""Checking, before the first step, that the loss depends on every trained tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import GraphprogError, TrainingError
from graphprog.ir.interface import dtype_text
from graphprog.train.data.batches import Batch, leaves_of
from graphprog.train.loop.engine import Engine
from graphprog.train.objective import Loss


def check_gradients(engine: Engine, batch: Batch, loss_function: Loss) -> list[str]:
    """Check the gradients of one batch's loss for every trainable tensor of the program.

    Args:
        engine: holds the task in its state before training.
        batch: a batch on the device of the engine.
        loss_function: loss function of the run.

    Returns:
        A note for every tensor whose gradient is zero everywhere.

    Raises:
        TrainingError: the loss does not depend on a tensor, named with its interface; the loss
            is not a scalar.
    """
    task = engine.task
    named = {
        name: parameter
        for name, parameter in task.program.named_parameters()
        if parameter.requires_grad
    }
    engine.alone.eval()
    logits, _ = engine.forward(batch, read=False)
    loss = _loss(loss_function, logits, batch)
    if not isinstance(loss, torch.Tensor) or loss.ndim != 0:
        raise TrainingError("the loss function must return a scalar tensor, the mean of the batch")
    gradients: tuple[torch.Tensor | None, ...] = (None,) * len(named)
    if loss.requires_grad:
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    notes = []
    for name, gradient in zip(named, gradients, strict=True):
        place = _place(task, name)
        if gradient is None:
            raise TrainingError(
                f"no gradient reaches program.{name} ({place}): the loss does not depend on it",
                [
                    "use an interface that the logits are computed from: see print(graph)",
                    "check what the alignment reads: its field `at`",
                ],
            )
        if not gradient.any():
            notes.append(_zero_note(task, name, place))
    return notes


def _loss(function: Loss, outputs: Any, batch: Batch) -> object:
    """Return the loss of a batch.

    Raises:
        TrainingError: the function fails; the message has what it was given.
    """
    try:
        return function(outputs, batch.labels)
    except GraphprogError:
        raise
    except Exception as error:
        given = [
            ", ".join(f"{dtype_text(part.dtype)}{list(part.shape)}" for part in parts)
            for parts in (pytree.tree_leaves(outputs), leaves_of(batch.labels))
        ]
        raise TrainingError(
            f"the loss fails on outputs {given[0]} and labels {given[1]}: "
            f"{type(error).__name__}: {str(error).strip():.300}",
            ["check shape and dtype of the labels", "loss=..., a function of outputs and labels"],
        ) from error


def _zero_note(task: ReprogrammedModel, name: str, place: str) -> str:
    owner = task.program.get_submodule(name.rpartition(".")[0])
    mask = getattr(owner, "mask", None)
    if isinstance(mask, torch.Tensor) and not mask.any():
        raise TrainingError(
            f"program.{name} ({place}) has no effect: its mask is empty",
            ["leave a margin around the resized image, or choose another mask"],
        )
    return (
        f"the gradient of program.{name} ({place}) is zero everywhere on the first batch: "
        "it may never change; check clip bounds, and the activations between it and the logits"
    )


def _place(task: ReprogrammedModel, name: str) -> str:
    part = name.partition(".")[0]
    found = (item.at for item in task.graph.insertions if item.name == part)
    return f"at {next(found, 'an unknown interface')}"
