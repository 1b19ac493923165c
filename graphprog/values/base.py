"""Values of manipulations, configuration λ: learned, fixed or stored tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.spec.checks import require_choice
from graphprog.spec.registry import Spec, spec
from graphprog.values.context import BuildContext
from graphprog.values.initializers import Activations, Given, Init, Vocabulary

INITS = ("zeros", "ones", "normal", "uniform", "vocabulary")


@spec("learnable")
@dataclasses.dataclass(frozen=True)
class Learnable(Spec):
    """Learnable tensor with initial values.

    Attributes:
        init: ``zeros``, ``ones``, ``normal`` N(0, scale²) or ``uniform`` U(-scale, scale); for
            entries also ``vocabulary``, random tokens; or one of :mod:`graphprog.initializers`.
        scale: scale of random initial values; factor of the others.
        shape: shape without the batch; None takes the shape of the interface, with 1 for dynamic
            axes. It must broadcast to the interface.

    Example:
        >>> prompt = gp.Concatenative(at="tokens", length=4, value=gp.Learnable("normal", 0.1))
        >>> vector = gp.Additive(at="hidden[1]", value=gp.Learnable(shape=(8, 1, 1)))
        >>> task = gp.compile(graph, gp.Program([vector]))
    """

    init: str | Init = "zeros"
    scale: float = 1.0
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.init, Init):
            remedy = "use one of gp.initializers, such as gp.initializers.Vocabulary(among=5000)"
            require_choice(self.kind, "init", self.init, INITS, [remedy])
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))

    def attach(self, owner: nn.Module, context: BuildContext) -> None:
        """Register ``value`` on a module as a parameter, for values like that of the context."""
        shape = self.shape if self.shape is not None else context.shape
        check_broadcast(context.where, "learnable value", shape, context.value)
        value = self.start(context.of_shape(shape))
        owner.register_parameter("value", nn.Parameter(value))

    def start(self, context: BuildContext) -> torch.Tensor:
        """Compute the initial values, float32, of the context's shape.

        Raises:
            ProgramError: they cannot be computed at this interface; says why.
        """
        if self.init in ("zeros", "ones"):
            return torch.full(context.shape, self.scale if self.init == "ones" else 0.0)
        if self.init == "normal":
            return torch.empty(context.shape).normal_(0.0, self.scale, generator=context.generator)
        if self.init == "uniform":
            draw = torch.empty(context.shape)
            return draw.uniform_(-self.scale, self.scale, generator=context.generator)
        init = self.init if isinstance(self.init, Init) else Vocabulary()
        value = init.values(context)
        if tuple(value.shape) != context.shape:
            raise ProgramError(
                f"{context.where}: {init.kind} gives values of shape {tuple(value.shape)}, "
                f"but the entries have {context.shape}"
            )
        return value * self.scale if self.scale != 1.0 else value.clone()

    def folded(self) -> Learnable:
        """Copy without initial values that hold tensors, which learned values replace."""
        held = isinstance(self.init, Activations | Given)
        return Learnable(shape=self.shape) if held else self


@spec("fixed")
@dataclasses.dataclass(frozen=True, eq=False)
class Fixed(Spec):
    """Fixed tensor, whose shape broadcasts to the interface.

    Example:
        >>> direction = torch.randn(8, 1, 1)
        >>> steered = gp.Program([gp.Additive(at="hidden[1]", value=gp.Fixed(direction))])
        >>> task = gp.compile(graph, steered)
    """

    tensor: torch.Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.tensor, torch.Tensor):
            raise ProgramError(f"Fixed takes a tensor, not a {type(self.tensor).__name__}")
        object.__setattr__(self, "tensor", self.tensor.detach().clone())

    def attach(self, owner: nn.Module, context: BuildContext) -> None:
        """Register ``value`` on a module as a buffer; it is saved with the spec."""
        check_broadcast(context.where, "fixed value", tuple(self.tensor.shape), context.value)
        owner.register_buffer("value", self.tensor.to(torch.float32), persistent=False)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Fixed) and torch.equal(self.tensor, other.tensor)

    def __hash__(self) -> int:
        return hash(tuple(self.tensor.shape))


@spec("stored")
@dataclasses.dataclass(frozen=True)
class Stored(Spec):
    """Stored tensor that is saved, loaded and swapped like a learned one, but not trained.

    It has the shape of the interface. :func:`graphprog.precompute` fills it with keys and values;
    before that, it is zero.
    """

    def attach(self, owner: nn.Module, context: BuildContext) -> None:
        """Register ``value`` on a module as a buffer."""
        wide = torch.promote_types(context.value.dtype, torch.float32)
        owner.register_buffer("value", torch.zeros(context.shape, dtype=wide))


Value = Learnable | Fixed


def check_broadcast(where: str, what: str, shape: tuple[int, ...], value: torch.Tensor) -> None:
    """Check that a tensor broadcasts to the shape of every row of ``value``.

    Raises:
        ProgramError: names both shapes, and the shape that a per-channel vector needs.
    """
    sizes: tuple[int | torch.SymInt, ...] = tuple(value.shape[1:])
    target = tuple(None if isinstance(size, torch.SymInt) else size for size in sizes)
    fits = len(shape) <= len(target) and all(
        mine in (1, theirs) for mine, theirs in zip(reversed(shape), reversed(target), strict=False)
    )
    if fits:
        return
    shown = shape_text(value)
    remedies = ["use a shape that broadcasts to it without the batch, with 1 for dynamic axes"]
    if len(shape) == 1 and len(target) > 1 and shape[0] == target[0]:
        per_channel = (shape[0], *(1,) * (len(target) - 1))
        remedies = [f"use shape {per_channel} for one value per channel"]
    raise ProgramError(
        f"{where}: {what} of shape {shape} does not broadcast to {shown}",
        remedies,
    )


def shape_text(value: torch.Tensor) -> str:
    """Shape of a traced value as text: ``[B, 64, 8, 8]``, with ``?`` for other dynamic axes."""
    sizes: list[int | torch.SymInt] = list(value.shape)
    names = [
        str(size) if isinstance(size, int) else "?" if axis else "B"
        for axis, size in enumerate(sizes)
    ]
    return f"[{', '.join(names)}]"
