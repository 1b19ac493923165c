"""Trained linear head on logits, features or any other interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from graphprog.alignments.base import Alignment, home_of
from graphprog.alignments.picture import Pictured
from graphprog.errors import ProgramError
from graphprog.spec.checks import require_choice, require_integer
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext

Pool = Literal["none", "mean", "first", "last", "flatten"]


@spec("linear-head")
@dataclass(frozen=True)
class LinearHead(Alignment):
    """Linear head on source logits ("full mapping", AutoVP) or on pooled features, trained.

    Attributes:
        classes: number of target classes K_T.
        bias: whether a trained bias is added.
        pool: how a value [B, ...] with several axes is pooled to [B, F]: ``mean`` over the other
            axes; ``first`` or ``last`` position of each of them, which may be padding; ``flatten``
            all axes into one; ``none`` refuses such values.
        axis: the feature axis, not 0; by default 1 for a value of rank 4 [B, C, H, W], else the
            last. Not used by ``flatten``.

    Example:
        >>> head = gp.LinearHead(classes=3, at="hidden[1]", pool="mean")
        >>> task = gp.compile(graph, gp.Program(align=head))
        >>> task(images).shape
        torch.Size([4, 3])
    """

    classes: int
    bias: bool = field(default=True, kw_only=True)
    pool: Pool = field(default="none", kw_only=True)
    axis: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self.kind, "classes", self.classes, 1)
        require_choice(self.kind, "pool", self.pool, get_args(Pool))
        if not isinstance(self.bias, bool):
            raise ProgramError(f"{self.kind}: bias must be true or false, not {self.bias!r}")
        if self.axis is not None:
            require_integer(self.kind, "axis", self.axis, -8)
            if self.axis == 0 or self.pool == "flatten":
                reason = "is the batch" if self.axis == 0 else 'has no meaning for pool="flatten"'
                raise ProgramError(f"{self.kind}: axis={self.axis} {reason}")

    def build(self, context: BuildContext) -> PooledLinear:
        """Values [B, ...] to logits [B, K_T].

        Weight and bias are drawn as in `torch.nn.Linear`, uniformly in ±1/sqrt(F). They are
        float32, or of the values' dtype where that is wider.

        Raises:
            ProgramError: values of integer dtype or rank below 2; of higher rank with
                ``pool="none"``; no such axis; a number of features that is not constant.
        """
        values = context.value
        place = f"{self.kind} reads {self.at!r} of shape {list(values.shape)}"
        if not values.is_floating_point():
            raise ProgramError(f"{place}: its dtype must be floating point, not {values.dtype}")
        self._check_rank(place, values.ndim)
        axis = self._feature_axis(place, values.ndim)
        sizes = values.shape[1:] if self.pool == "flatten" else values.shape[axis : axis + 1]
        features = 1
        for size in sizes:
            if not isinstance(size, int):
                raise ProgramError(
                    f"{place}: the number of features varies with {size}",
                    ['set pool="mean"', "capture the model with that axis fixed"],
                )
            features *= size
        dtype = torch.promote_types(values.dtype, torch.float32)
        head = PooledLinear(features, self.classes, self.bias, self.pool, axis, dtype)
        head.draw(context.generator)
        return head.to(home_of(values))

    def _check_rank(self, place: str, rank: int) -> None:
        if rank < 2:
            raise ProgramError(f"{place}: its rank must be at least 2: [batch, features]")
        if rank > 2 and self.pool == "none":
            raise ProgramError(
                f"{place}: its shape must be [batch, features]",
                [f'set pool="{pool}"' for pool in get_args(Pool) if pool != "none"],
            )

    def _feature_axis(self, place: str, rank: int) -> int:
        if self.axis is None:
            return 1 if rank == 4 else rank - 1
        axis = self.axis + rank if self.axis < 0 else self.axis
        if not 0 < axis < rank:
            raise ProgramError(f"{place}: there is no feature axis {self.axis}")
        return axis


class PooledLinear(Pictured, nn.Module):
    """Module of :class:`LinearHead`.

    Parameters:
        weight: [K_T, F], trained.
        bias: [K_T], trained; None without bias.
    """

    def __init__(
        self, features: int, classes: int, bias: bool, pool: Pool, axis: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(classes, dtype=dtype)) if bias else None
        self.pool = pool
        self.axis = axis

    def draw(self, generator: torch.Generator) -> None:
        """Draw new initial values of the parameters."""
        bound = self.weight.shape[1] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Pool and map; the result has the dtype of the parameters, except under autocast."""
        pooled = self._pooled(values)
        if pooled.dtype != self.weight.dtype:
            pooled = pooled.to(self.weight.dtype)
        return functional.linear(pooled, self.weight, self.bias)

    def mapping(self) -> torch.Tensor:
        """The weights, [F, K_T]."""
        return self.weight.detach().float().cpu().T

    def _pooled(self, values: torch.Tensor) -> torch.Tensor:
        if values.ndim == 2:
            return values
        if self.pool == "flatten":
            return values.flatten(1)
        others = [axis for axis in range(1, values.ndim) if axis != self.axis]
        if self.pool == "mean":
            return values.mean(others)
        for axis in reversed(others):
            values = values.select(axis, 0 if self.pool == "first" else -1)
        return values
