"""The additive operator: x + squash(W) ⊙ M."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.errors import InterfaceError, ProgramError
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.checks import require_choice
from graphprog.spec.registry import spec
from graphprog.values.base import Fixed, Learnable, Value
from graphprog.values.context import BuildContext
from graphprog.values.masks import FullMask, Mask

SQUASHES = ("none", "sigmoid", "tanh")


@spec("additive")
@dataclasses.dataclass(frozen=True)
class Additive(SelectiveManipulation):
    """Add the same pattern to every row of a batch: ``clip(x + squash(W) ⊙ M)``.

    At ``input`` with a border mask this is the padding pattern of visual reprogramming (Elsayed
    et al., ICLR 2019, with ``squash="tanh"``; Chen et al., CVPR 2023, with ``"sigmoid"``); with a
    frame or full mask the watermark of Bahng et al., 2022 (``"none"``). With a vector at
    ``hidden[k]`` it is activation steering. W has the shape of the interface unless the value has
    another, is stored in float32, and is cast to the dtype of the interface before it is added.

    Note that ``sigmoid`` of a zero W is a gray pattern of 0.5, not zero.

    Attributes:
        at: interface; ``hidden[*]`` adds an independent pattern at each.
        name: name of the part; the kind if empty.
        value: W, learned or fixed.
        mask: M, where the pattern acts; see :mod:`graphprog.masks`.
        squash: ``none``, ``sigmoid`` or ``tanh``, applied to W.
        clip: (low, high) bounds of the sum in the space of the program, or None. The gradient is
            zero outside of the bounds.

    Example:
        >>> frame = gp.Additive(at="input", mask=gp.masks.border(inner=12), squash="tanh")
        >>> task = gp.compile(graph, gp.Program([frame]))
        >>> task(images).shape
        torch.Size([4, 20])
    """

    value: Value = dataclasses.field(default_factory=Learnable)
    mask: Mask = dataclasses.field(default_factory=FullMask)
    squash: str = "none"
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.value, Learnable | Fixed):
            raise ProgramError(
                f"the value of {self.kind} must be Learnable or Fixed, not a "
                f"{type(self.value).__name__}",
                [
                    "use gp.Fixed(tensor) for constant values",
                    "use gp.Learnable(init, scale, shape)",
                ],
            )
        if not isinstance(self.mask, Mask):
            raise ProgramError(
                f"the mask of {self.kind} must be a Mask, not a {type(self.mask).__name__}",
                ["use gp.masks.given(tensor)", "use gp.masks.border(inner=...)"],
            )
        require_choice(self.kind, "squash", self.squash, SQUASHES)
        if self.clip is not None:
            low, high = self.clip
            if not low < high:
                raise ProgramError(f"clip bounds {self.clip} are not in order")
            object.__setattr__(self, "clip", (float(low), float(high)))

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value [B, ...].

        Raises:
            InterfaceError: the value is not floating point.
            ProgramError: value or mask does not broadcast to the interface.
        """
        dtype = context.value.dtype
        if not dtype.is_floating_point:
            raise InterfaceError(
                f"{context.where} has dtype {dtype}, to which no pattern can be added",
                ["choose an interface after the embedding: at='tokens' or at='embedding'"],
            )
        module = _Pattern(self.squash, self.clip)
        self.value.attach(module, context)
        shape = tuple(module.value.shape)
        if not isinstance(self.mask, FullMask):
            full = tuple(torch.broadcast_shapes(shape, context.shape))
            module.register_buffer("mask", self.mask.tensor(full), persistent=False)
        return module


class _Pattern(nn.Module):
    """Forward: [B, ...] -> [B, ...]."""

    value: torch.Tensor

    def __init__(self, squash: str, clip: tuple[float, float] | None) -> None:
        super().__init__()
        self.squash = squash
        self.clip = clip
        self.mask: torch.Tensor | None
        self.register_buffer("mask", None)

    def pattern(self) -> torch.Tensor:
        """The pattern that is added, in float32."""
        value = self.value
        if self.squash == "sigmoid":
            value = torch.sigmoid(value)
        elif self.squash == "tanh":
            value = torch.tanh(value)
        return value if self.mask is None else value * self.mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the pattern."""
        pattern = self.pattern()
        result = x + (pattern if pattern.dtype == x.dtype else pattern.to(x.dtype))
        return result if self.clip is None else result.clamp(*self.clip)
