"""Constant inputs: values that become part of the program."""

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
"""Name and value of an input."""


@spec("constant-inputs")
@dataclasses.dataclass(frozen=True, eq=False)
class ConstantInputs(Manipulation):
    """Bind inputs of the source to constants; the reprogrammed model takes the other inputs.

    For example the class texts of a model that compares images with texts::

        ConstantInputs(tokenizer(texts, padding=True, return_tensors="pt"))

    The operations on these inputs stay in the graph, so other parts can act on them, such as
    learned tokens before the class names. Inputs are bound last, whatever the order of the parts,
    so the other parts act at all lengths that the source allows. The values are saved with the
    program and are constants in every backend.

    Attributes:
        inputs: values by name, in the shapes and dtypes of the source. Inputs that share a dynamic
            axis must be bound together. Stored as pairs.

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
                    ['call tokenizer(texts, padding=True, return_tensors="pt")'],
                )
        names = [name for name, _ in pairs]
        if not names or len(set(names)) < len(names):
            raise ProgramError(
                f"{self.kind}: give at least one input, each once; given: {names or 'none'}"
            )
        kept = tuple((name, value.detach().clone()) for name, value in pairs)
        object.__setattr__(self, "inputs", kept)

    def build(self, context: BuildContext) -> nn.Module:
        """Refuse: see :meth:`held`.

        Raises:
            ProgramError: always.
        """
        raise ProgramError(f"{context.where}: {self.kind} replaces inputs and builds no module")

    def held(self) -> Held:
        """Make the module that holds the values."""
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
    """Tensors that are saved with the spec, named by :meth:`path`."""

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_buffer(self.path(name), value.clone(), persistent=False)

    @staticmethod
    def path(name: str) -> str:
        """Name of the buffer of an input; the suffix avoids attributes of modules like ``type``."""
        return f"{name}_given"
