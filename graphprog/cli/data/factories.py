"""Data of a user's own function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from graphprog.cli.data.examples import Examples
from graphprog.errors import DataError
from graphprog.sources.factory import attribute_of


def read_factory(name: str) -> Examples:
    """Call ``package.module:function``, which returns inputs of the model, and labels.

    It returns a pair (inputs, labels) of arrays or tensors, or a data set with a length whose items
    are (input, label).

    Raises:
        DataError: it returns something else.
    """
    made = attribute_of(name)()
    if isinstance(made, tuple | list) and len(made) == 2 and hasattr(made[0], "shape"):
        inputs, labels = (torch.as_tensor(np.asarray(part)) for part in made)
        if len(inputs) != len(labels):
            raise DataError(f"{name}: {len(inputs)} inputs and {len(labels)} labels")
        classes: tuple[str, ...] = ()
        return Examples("array", inputs.numpy(), labels.tolist(), classes, name)
    if (
        isinstance(made, Mapping)
        or not hasattr(made, "__getitem__")
        or not hasattr(made, "__len__")
    ):
        raise DataError(
            f"{name} returned {type(made).__name__}",
            ["return (inputs, labels)", "return a data set whose items are (input, label)"],
        )
    classes = tuple(map(str, getattr(made, "classes", ())))
    return Examples("ready", _Inputs(made), _labels(made), classes, name)


def _labels(made: Any) -> Sequence[Any]:
    known = getattr(made, "targets", None)
    found = [made[number][1] for number in range(len(made))] if known is None else known
    return [one.item() if hasattr(one, "item") else one for one in found]


class _Inputs(Sequence[Any]):
    """The inputs of a data set, read when they are asked for."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def __len__(self) -> int:
        return len(self.made)

    def __getitem__(self, number: Any) -> Any:
        return self.made[int(number)][0]
