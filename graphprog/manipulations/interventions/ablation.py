"""Ablation: replace a value by zeros, by its mean, or by values of other examples."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.registry import spec
from graphprog.values.base import Fixed, Learnable, Value, check_broadcast
from graphprog.values.context import BuildContext
from graphprog.values.requirements import require_floats


@spec("ablation")
@dataclasses.dataclass(frozen=True)
class Ablation(SelectiveManipulation):
    """Replace a value by one that does not depend on the example.

    Zero ablation by default. ``value`` is what stands there instead: a mean makes it mean ablation,
    a learned one optimal ablation (Li & Janson, NeurIPS 2024). With ``resample`` it holds values of
    other examples, as in causal scrubbing (Chan et al., 2022): row i of a batch gets number i of
    them, counted in circles. :func:`graphprog.instruments.ablation` records means and values.

    Attributes:
        value: what replaces the value; it broadcasts to a row of it. None is zero.
        resample: whether ``value`` is Fixed and has a first axis of examples.

    Example:
        >>> part = gp.Ablation(at="attention[1]", units=0, positions="last")  # of one head
        >>> task = gp.compile(language, gp.Program([part]))
        >>> without = task(ids)
    """

    value: Value | None = None
    resample: bool = False

    def __post_init__(self) -> None:
        known: object = self.value
        if not (known is None or isinstance(known, Learnable | Fixed)):
            raise ProgramError(
                f"{self.kind}: value must be Fixed, Learnable or None for zero, not {known!r:.60}",
                ["value=gp.Fixed(mean)"],
            )
        if self.resample and not (
            isinstance(known, Fixed) and known.tensor.ndim and len(known.tensor)
        ):
            raise ProgramError(
                f"{self.kind}: resample=True needs the values of examples",
                ["value=gp.Fixed(rows), with a first axis of examples", "resample=False"],
            )

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value [B, ...].

        Raises:
            InterfaceError: the value is not floating point.
            ProgramError: what replaces it does not broadcast to it.
        """
        require_floats(context.value, context.where)
        module = _Ablated(self.resample)
        if isinstance(self.value, Fixed) and self.resample:
            rows = self.value.tensor.to(torch.float32)
            check_broadcast(
                context.where, "values of examples", tuple(rows.shape[1:]), context.value
            )
            axes = context.value.ndim - rows.ndim
            module.register_buffer(
                "value", rows.reshape(len(rows), *(1,) * axes, *rows.shape[1:]), persistent=False
            )
        elif self.value is not None:
            self.value.attach(module, context)
        return module


class _Ablated(nn.Module):
    """Forward: [B, ...] -> [B, ...]."""

    value: torch.Tensor | None

    def __init__(self, resample: bool) -> None:
        super().__init__()
        self.register_buffer("value", None)
        self.resample = resample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Replace."""
        if self.value is None:
            return torch.zeros_like(x)
        value = self.value
        if self.resample:
            rows = torch.arange(x.shape[0], device=x.device) % value.shape[0]
            value = value.index_select(0, rows)
        return torch.zeros_like(x) + value.to(x.dtype)
