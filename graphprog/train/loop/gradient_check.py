"""Checking, before the first step, that the loss depends on every trained tensor."""

from __future__ import annotations

import torch

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import TrainingError
from graphprog.train.data.batches import Batch
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
    loss: object = loss_function(logits, batch.labels)
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
