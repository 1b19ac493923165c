"""The scaling operator: x ⊙ l."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.requirements import last_size, require_floats


@spec("scale")
@dataclasses.dataclass(frozen=True)
class Scale(SelectiveManipulation):
    """Multiply a value by a learned vector along its last axis, which starts at 1.

    At the keys, the values, and the input of the second linear layer of each feed-forward block
    this is (IA)³ of Liu et al., 2022 (Few-shot parameter-efficient fine-tuning is better and
    cheaper than in-context learning); see :func:`graphprog.methods.ia3`.

    The vector is stored in float32 and cast to the dtype of the interface.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.Scale(at="features")]))
        >>> task.program.scale.value.shape
        torch.Size([8])
    """

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value [..., d].

        Raises:
            InterfaceError: the value is not floating point, or its last axis is dynamic.
        """
        require_floats(context.value, context.where)
        return _Scaling(last_size(context.value, context.where))


class _Scaling(nn.Module):
    """Forward: [..., d] -> [..., d]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale."""
        return x * self.value.to(x.dtype)
