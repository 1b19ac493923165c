"""Numbers of a model that its graph writes as tensors."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from graphprog.ir.sizes import same_size
from graphprog.ir.weights import Weights


def number_of(value: Any, weights: Weights) -> float | None:
    """The number that an argument is, whatever the inputs; None where it is none.

    Args:
        value: a number, or a node of one entry that is computed from the model's own tensors.
        weights: the tensors.
    """
    if isinstance(value, int | float):
        return float(value)
    found = _computed(value, weights) if isinstance(value, fx.Node) else None
    return None if found is None else float(found.item())


def _computed(node: fx.Node, weights: Weights) -> torch.Tensor | None:
    """The value of a node that no input reaches, if all it is computed from has one entry."""
    value = node.meta.get("val")
    single = isinstance(value, torch.Tensor) and all(same_size(size, 1) for size in value.shape)
    if not single or node.op == "placeholder":
        return None
    if node.op == "get_attr":
        tensor: torch.Tensor = operator.attrgetter(str(node.target))(weights)
        return tensor.detach()
    parts = {part: _computed(part, weights) for part in node.all_input_nodes}
    target = node.target
    random = torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())
    if random or any(part is None for part in parts.values()) or not callable(target):
        return None
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), parts.__getitem__)
    with torch.no_grad():
        result: torch.Tensor = target(*args, **kwargs)
    return result
