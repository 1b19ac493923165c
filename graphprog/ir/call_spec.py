"""Call specs: from the arguments of a model to a flat list of tensor inputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphprog.errors import DataError


@dataclasses.dataclass(frozen=True)
class CallSpec:
    """How a call of the model becomes the flat list of tensor inputs.

    Attributes:
        tree: pytree spec of ``(args, kwargs)``.
        names: for every leaf, the input's name, or None for a constant.
        constants: for every leaf, the value it had at capture (constants only).
    """

    tree: pytree.TreeSpec
    names: tuple[str | None, ...]
    constants: tuple[Any, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensor inputs, in order."""
        return tuple(name for name in self.names if name is not None)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """Flatten a call into the tensor inputs, in order; all may be passed by name.

        Raises:
            DataError: the call has another structure than at capture, or another constant.
        """
        if not args and set(kwargs) == set(self.inputs):
            return [kwargs[name] for name in self.inputs]
        expected_args, expected_kwargs = pytree.tree_unflatten(list(self.names), self.tree)
        if set(kwargs) == set(expected_kwargs):
            kwargs = {name: kwargs[name] for name in expected_kwargs}
        leaves, tree = pytree.tree_flatten((args, kwargs))
        if tree != self.tree:
            wanted = [*map(str, expected_args), *(f"{name}=" for name in expected_kwargs)]
            given = [*("tensor" for _ in args), *(f"{name}=" for name in kwargs)]
            raise DataError(
                f"the graph takes ({', '.join(wanted)}), but was called with ({', '.join(given)})",
                ["pass the same arguments in the same places as at capture"],
            )
        tensors = []
        for leaf, name, constant in zip(leaves, self.names, self.constants, strict=True):
            if name is not None:
                tensors.append(leaf)
            elif leaf is not constant and leaf != constant:
                raise DataError(
                    f"a constant argument was {constant!r} at capture and is {leaf!r} now",
                    ["capture the model again with the new value"],
                )
        return tensors

    @classmethod
    def positional(cls, names: tuple[str, ...]) -> CallSpec:
        """Return the spec of a call with only tensors, by position."""
        _, tree = pytree.tree_flatten((names, {}))
        return cls(tree, names, (None,) * len(names))
