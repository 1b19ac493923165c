"""Examples as they are named: not yet inputs of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphprog.errors import DataError


@dataclasses.dataclass(frozen=True)
class Examples:
    """Examples with labels.

    Attributes:
        kind: ``image``, ``text``, ``audio``, ``array``; or ``ready``: inputs of the model.
        inputs: one for each example: a path, the bytes of a file, an image of Pillow or an array
            for images and audio; a text; an array.
        labels: one for each example: names or numbers of classes, or numbers; empty if the
            examples are not labeled.
        classes: names of the classes, if the data have them; labels are then class numbers.
        place: what the examples are from, for messages.
        rows: where each example is in that place: a file or the number of a row.
    """

    kind: str
    inputs: Sequence[Any] | np.ndarray
    labels: Sequence[Any] = ()
    classes: tuple[str, ...] = ()
    place: str = ""
    rows: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def where(self, number: int) -> str:
        """Return the place of an example, for messages."""
        return f"{self.place}: {self.rows[number] if self.rows else f'example {number}'}"

    def of(self, numbers: Sequence[int] | np.ndarray) -> Examples:
        """Return some of the examples."""
        inputs, labels, rows = (
            Chosen(items, numbers) if len(items) else ()
            for items in (self.inputs, self.labels, self.rows)
        )
        return dataclasses.replace(self, inputs=inputs, labels=labels, rows=rows)


class Chosen(Sequence[Any]):
    """Some items of a sequence, read when they are asked for."""

    def __init__(
        self, items: Sequence[Any] | np.ndarray, numbers: Sequence[int] | np.ndarray
    ) -> None:
        self.items = items
        self.numbers = [int(number) for number in numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: Any) -> Any:
        return self.items[self.numbers[number]]


def require_some(examples: Examples) -> Examples:
    """Check that there are examples.

    Raises:
        DataError: there are none.
    """
    if not len(examples):
        raise DataError(f"{examples.place}: holds no examples")
    return examples
