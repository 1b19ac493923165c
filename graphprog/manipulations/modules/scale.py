"""The scaling operator: x ⊙ l."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.registry import spec
from graphprog.values.base import Fixed, Learnable, Value
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

    Attributes:
        value: the factors, which broadcast to the value; None learns a vector.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.Scale(at="features")]))
        >>> task.program.scale.value.shape
        torch.Size([8])
    """

    value: Value | None = None

    def __post_init__(self) -> None:
        known: object = self.value
        if not (known is None or isinstance(known, Learnable | Fixed)):
            raise ProgramError(
                f"{self.kind}: value must be Fixed, Learnable or None, not {known!r:.60}",
                ["value=gp.Fixed(torch.tensor(0.5))"],
            )

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value [..., d].

        Raises:
            InterfaceError: the value is not floating point, or its last axis is dynamic.
            ProgramError: the factors do not broadcast to it.
        """
        require_floats(context.value, context.where)
        module = _Scaling()
        if self.value is None:
            width = last_size(context.value, context.where)
            module.register_parameter("value", nn.Parameter(torch.ones(width)))
        else:
            self.value.attach(module, context)
        return module


class _Scaling(nn.Module):
    """Forward: [..., d] -> [..., d]."""

    value: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale."""
        return x * self.value.to(x.dtype)
