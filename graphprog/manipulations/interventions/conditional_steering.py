"""Steering of the values at which a probe fires."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.registry import spec
from graphprog.values.base import Fixed, Learnable, Value, check_broadcast
from graphprog.values.context import BuildContext
from graphprog.values.requirements import require_floats


@spec("conditional-steering")
@dataclasses.dataclass(frozen=True)
class ConditionalSteering(SelectiveManipulation):
    """Add a vector where a linear probe fires: ``h + 1[w·h + b > 0] v``.

    Conditional activation steering (Lee et al., ICLR 2025, arXiv:2409.05907), with a linear probe
    as the condition. Each position, or each place of an image, decides for itself; elsewhere the
    value stays as it is, bit for bit. v may be learned; the probe is fixed, as a step has no
    gradient. :meth:`graphprog.instruments.Contrast.program` makes it with ``when=``.

    Attributes:
        value: v; it broadcasts to a row of the value.
        weight: w, Fixed; it broadcasts likewise, and the product is summed over the axes along
            which w has more than one entry: shape [d] for [B, S, d], [C, 1, 1] for [B, C, H, W].
        bias: b.

    Example:
        >>> up, probe = gp.Fixed(torch.ones(16)), gp.Fixed(torch.randn(16))
        >>> part = gp.ConditionalSteering(up, probe, bias=-0.5, at="hidden[0]", positions="tokens")
        >>> task = gp.compile(language, gp.Program([part]))
    """

    value: Value
    weight: Fixed
    bias: float = 0.0

    def __post_init__(self) -> None:
        value: object = self.value
        weight: object = self.weight
        bias: object = self.bias
        if not isinstance(value, Learnable | Fixed):
            raise ProgramError(
                f"{self.kind}: value must be Fixed or Learnable, not {value!r:.60}",
                ["value=gp.Fixed(vector)"],
            )
        if not (isinstance(weight, Fixed) and bool(weight.tensor.isfinite().all())):
            raise ProgramError(
                f"{self.kind}: weight must be Fixed and finite, not {weight!r:.60}",
                ["weight=gp.Fixed(vector), the normal of the probe"],
            )
        if not (isinstance(bias, int | float) and math.isfinite(bias)):
            raise ProgramError(f"{self.kind}: bias must be a finite number, not {bias!r:.60}")
        object.__setattr__(self, "bias", float(bias))

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value [B, ...].

        Raises:
            InterfaceError: the value is not floating point.
            ProgramError: vector or probe does not broadcast to it, or the probe is one number.
        """
        require_floats(context.value, context.where)
        weight = self.weight.tensor.to(torch.float32)
        check_broadcast(context.where, "weight of the probe", tuple(weight.shape), context.value)
        if weight.numel() == 1 and math.prod(context.shape) > 1:
            raise ProgramError(
                f"{context.where}: the weight of the probe is one number, of shape "
                f"{tuple(weight.shape)}; the value has {context.shape}",
                ["weight=gp.Fixed(vector), with a number for each feature"],
            )
        wide = torch.promote_types(context.value.dtype, torch.float32)
        module = _Conditional(weight.to(wide), self.bias)
        self.value.attach(module, context)
        return module


class _Conditional(nn.Module):
    """Forward: [B, ...] -> [B, ...]."""

    value: torch.Tensor
    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.bias = bias
        self.axes = [axis - weight.ndim for axis, size in enumerate(weight.shape) if size > 1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the vector where the probe fires."""
        score = x.to(self.weight.dtype) * self.weight
        if self.axes:
            score = score.sum(self.axes, keepdim=True)
        return torch.where(score + self.bias > 0, x + self.value.to(x.dtype), x)
