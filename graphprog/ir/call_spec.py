"""Call specs: from the arguments of a model to a flat list of tensor inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphprog.errors import DataError


def dense(name: str, value: Any) -> torch.Tensor:
    """Return an input that is a dense tensor with values.

    Raises:
        DataError: it is something else; says how to convert it.
    """
    if not isinstance(value, torch.Tensor):
        raise DataError(f"input {name!r} must be a tensor, not {type(value).__name__}")
    if value.is_nested:
        raise DataError(
            f"input {name!r} is a nested tensor, and the graph takes dense ones",
            ["use value.to_padded_tensor(0.0), and a mask if the model has one"],
        )
    if value.layout != torch.strided:
        raise DataError(
            f"input {name!r} is sparse ({value.layout}), and the graph takes dense tensors",
            ["use value.to_dense()"],
        )
    if value.device.type == "meta":
        raise DataError(
            f"input {name!r} is on the meta device and has no values",
            ["pass a tensor with values, on the device of the weights"],
        )
    return value


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
            DataError: the call has another structure or another constant than at capture, or an
                input is not a dense tensor.
        """
        if not args and set(kwargs) == set(self.inputs):
            return [dense(name, kwargs[name]) for name in self.inputs]
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
                tensors.append(dense(name, leaf))
            elif leaf is not constant and leaf != constant:
                raise DataError(
                    f"a constant argument was {constant!r} at capture and is {leaf!r} now",
                    ["capture the model again with the new value"],
                )
        return tensors

    def with_inputs(self, added: Sequence[str]) -> CallSpec:
        """Return the spec of a call with further tensors, by name."""
        args, kwargs = pytree.tree_unflatten([*range(len(self.names))], self.tree)
        _, tree = pytree.tree_flatten((args, {**kwargs, **dict.fromkeys(added, -1)}))
        names, constants = (*self.names, *added), (*self.constants, *(None for _ in added))
        return CallSpec(tree, names, constants)

    @classmethod
    def positional(cls, names: tuple[str, ...]) -> CallSpec:
        """Return the spec of a call with only tensors, by position."""
        _, tree = pytree.tree_flatten((names, {}))
        return cls(tree, names, (None,) * len(names))
