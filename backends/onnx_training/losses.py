"""Losses by name, and labels to trace and to compare with."""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.utils import _pytree as pytree

from graphprog.backends.parity.report import Inputs
from graphprog.compiler.data_checks import class_count
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError, TrainingError
from graphprog.spec.checks import require_choice
from graphprog.train.losses import CausalLM, Span, TokenClassification
from graphprog.train.named_losses import cross_entropy
from graphprog.train.objective import Loss

NAMES = ("cross_entropy", "mse", "causal_lm")


def mean_squared_error(outputs: object, wanted: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the first output and a tensor of its shape."""
    first: torch.Tensor = pytree.tree_leaves(outputs)[0]
    return functional.mse_loss(first, wanted)


def loss_of(task: ReprogrammedModel, loss: str | Loss) -> Loss:
    """The function of a name; a function as it is.

    Raises:
        TrainingError: the name is unknown.
    """
    if not isinstance(loss, str):
        return loss
    if loss == "causal_lm":
        return CausalLM(task)
    known: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mean_squared_error}
    remedy = "a function: (outputs, labels) -> mean loss"
    require_choice("", "loss", loss, NAMES, [remedy], TrainingError)
    return known[loss]


def example_labels(task: ReprogrammedModel, loss: Loss, inputs: Inputs) -> torch.Tensor:
    """Labels that suit inputs: any that the loss takes.

    Raises:
        BackendError: only the user can know what the loss takes.
    """
    rows = len(inputs[0])
    if isinstance(loss, CausalLM | TokenClassification):
        tokens = next(value for value in inputs if value.ndim > 1)
        return torch.ones(tokens.shape[:2], dtype=torch.int64)
    if isinstance(loss, Span):
        return torch.zeros((rows, 2), dtype=torch.int64)
    if loss is mean_squared_error:
        with torch.no_grad():
            first = next(v for v in task.graph.run(inputs) if isinstance(v, torch.Tensor))
        return torch.zeros_like(first)
    classes = class_count(task.graph)
    if classes is None:
        raise BackendError(
            "what labels the loss takes cannot be determined",
            ["export_training(..., inputs=..., labels=...), a batch of two rows or more"],
        )
    return torch.arange(rows) % classes
