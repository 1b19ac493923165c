"""Inputs that a program knows: given once, and asked for no more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.base import Manipulation
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext

Given = tuple[str, torch.Tensor]
"""Name of an input, and what it is."""


@spec("constant-inputs")
@dataclasses.dataclass(frozen=True, eq=False)
class ConstantInputs(Manipulation):
    """Give some inputs of the source once and for all; the reprogrammed model takes the others.

    The texts of the classes of a model that compares images with texts::

        ConstantInputs(tokenizer(texts, padding=True, return_tensors="pt"))

    What they are computed into keeps its place in the graph, so other parts act behind them as
    ever: learnt tokens in front of the classes, say. They act at the lengths that the source
    allows, whatever their order in the program; inputs are bound last. Numbers are kept as they
    are: they are saved with the program, and constant in every backend.

    Attributes:
        inputs: values by name, in the shapes and dtypes of the source. All inputs that share an
            axis of varying length are bound together. Kept as pairs.

    Example:
        >>> texts = gp.ConstantInputs({"ids": ids})  # of the classes, say
        >>> task = gp.compile(pairs, gp.Program([texts]))
        >>> assert torch.equal(task(pixels), pairs(ids, pixels))
    """

    lowering: ClassVar[str] = "bind-inputs"

    inputs: tuple[Given, ...]
    at: str = dataclasses.field(default="inputs", init=False)

    def __post_init__(self) -> None:
        given: Any = self.inputs
        pairs = tuple(given.items() if isinstance(given, Mapping) else given)
        for pair in pairs:
            if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
                raise ProgramError(f"{self.kind}: {pair!r:.60} is not a name and a tensor")
            if not isinstance(pair[1], torch.Tensor):
                raise ProgramError(
                    f"{self.kind}: input {pair[0]!r} is given as {type(pair[1]).__name__}, "
                    "not a tensor",
                    ['tokenizer(texts, padding=True, return_tensors="pt")'],
                )
        names = [name for name, _ in pairs]
        if not names or len(set(names)) < len(names):
            raise ProgramError(
                f"{self.kind}: every input has one value, and these are given: {names or 'none'}"
            )
        kept = tuple((name, value.detach().clone()) for name, value in pairs)
        object.__setattr__(self, "inputs", kept)

    def build(self, context: BuildContext) -> nn.Module:
        """Refuse: see :meth:`held`.

        Raises:
            ProgramError: always.
        """
        raise ProgramError(f"{context.where}: {self.kind} takes the place of inputs")

    def held(self) -> Held:
        """The module that has the values."""
        return Held(dict(self.inputs))

    def __eq__(self, other: Any) -> bool:
        return (
            isinstance(other, ConstantInputs)
            and (self.name, len(self.inputs)) == (other.name, len(other.inputs))
            and all(
                mine[0] == theirs[0] and torch.equal(mine[1], theirs[1])
                for mine, theirs in zip(self.inputs, other.inputs, strict=True)
            )
        )

    def __hash__(self) -> int:
        return hash((self.name, *(name for name, _ in self.inputs)))


class Held(nn.Module):
    """Tensors that are saved with the spec; :meth:`path` says what they are called."""

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_buffer(self.path(name), value.clone(), persistent=False)

    @staticmethod
    def path(name: str) -> str:
        """Of the tensor for an input; modules have attributes of their own, such as ``type``."""
        return f"{name}_given"
