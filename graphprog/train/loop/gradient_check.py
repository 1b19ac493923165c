"""Before the first step: does the loss depend on everything that is to be trained?"""

from __future__ import annotations

import torch

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import TrainingError
from graphprog.train.data.batches import Batch
from graphprog.train.loop.engine import Engine
from graphprog.train.objective import Loss


def check_gradients(engine: Engine, batch: Batch, loss_function: Loss) -> list[str]:
    """Differentiate the loss of one batch by every trainable tensor of the program.

    Args:
        engine: with the task in the state in which training starts.
        batch: on the device of the engine.
        loss_function: of the run.

    Returns:
        A note for every tensor whose gradient is zero throughout.

    Raises:
        TrainingError: a tensor that the loss cannot depend on, with its interface; a loss that
            is no scalar.
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
                    "put it at an interface that the logits are computed from: see print(graph)",
                    "see what the alignment reads: its field `on`",
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
            f"program.{name} ({place}) can change nothing: its mask is empty",
            ["leave room around the placed example, or choose another mask"],
        )
    return (
        f"the gradient of program.{name} ({place}) is zero throughout on the first batch: "
        "it may never move; check clip bounds, and the units between it and the logits"
    )


def _place(task: ReprogrammedModel, name: str) -> str:
    part = name.partition(".")[0]
    found = (item.at for item in task.graph.insertions if item.name == part)
    return f"at {next(found, 'an unknown interface')}"
