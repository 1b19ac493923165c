"""Labels of examples as numbers of classes, or as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from graphprog.cli.data.examples import Examples
from graphprog.errors import DataError
from graphprog.sources.model_name import nearest

NUMERIC = ("mse", "l1", "binary_cross_entropy")
"""Losses whose labels are numbers."""


def classes_of(examples: Examples, given: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes of training examples, in the order of their numbers.

    Args:
        examples: with labels.
        given: the names in order, if the user gave them.

    Raises:
        DataError: the labels are not names or numbers of classes.
    """
    if given:
        return tuple(given)
    if examples.classes:
        return examples.classes
    found = {_plain(label, examples, number) for number, label in enumerate(examples.labels)}
    counted = [one for one in found if isinstance(one, int)]
    if len(counted) == len(found):
        return tuple(map(str, range(max(counted) + 1)))
    return tuple(sorted(map(str, found)))


def numbered(examples: Examples, classes: Sequence[str]) -> torch.Tensor:
    """Return the numbers of the classes, int64 [N].

    Raises:
        DataError: a label is not one of the classes.
    """
    known = {name: number for number, name in enumerate(classes)}
    own = examples.classes
    found = []
    for row, label in enumerate(examples.labels):
        plain = _plain(label, examples, row)
        name = own[plain] if own and isinstance(plain, int) and plain < len(own) else str(plain)
        if name in known:
            found.append(known[name])
        elif isinstance(plain, int) and not own and 0 <= plain < len(classes):
            found.append(plain)
        else:
            shown = ", ".join(classes[:20])
            raise DataError(
                f"{examples.where(row)}: label {name!r} is not one of the classes "
                f"{shown}{nearest(name, classes)}",
                ["add it to labels", "correct the label"],
            )
    return torch.tensor(found)


def numbers(examples: Examples) -> torch.Tensor:
    """Return labels that are numbers, float32 [N, 1].

    Raises:
        DataError: one is not.
    """
    found = []
    for row, label in enumerate(examples.labels):
        try:
            value = float(label)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{examples.where(row)}: label {label!r:.40} is not a number")
        found.append(value)
    return torch.tensor(found)[:, None]


def _plain(label: Any, examples: Examples, row: int) -> int | str:
    """Return a label as a number of a class, or as its name."""
    if isinstance(label, str):
        text = label.strip()
        number = int(text) if text.isdecimal() and str(int(text)) == text else -1
        return number if number >= 0 else text
    if isinstance(label, bool):
        return str(label)
    if isinstance(label, int) and label >= 0:
        return label
    if isinstance(label, float) and label >= 0 and label.is_integer():
        return int(label)
    raise DataError(
        f"{examples.where(row)}: label {label!r:.40} is not the name or number of a class",
        ['loss = "mse" for labels that are numbers'],
    )
