"""Splits: training, validation or evaluation examples, read batch by batch."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import Any

import torch

from graphprog.errors import DataError
from graphprog.train.data.batches import Batch, Parts, Share, check_parts, leaves_of, select
from graphprog.train.loop.randomness import stream_state
from graphprog.train.objective import Objective
from graphprog.utils.tensor_tree import checksum

_CHECKED_ROWS = 512
_READ_ROWS = 64


class Split(abc.ABC):
    """The examples for ``training``, ``validation`` or ``evaluation``.

    Attributes:
        rows: number of examples; None if it is known only after reading.
    """

    rows: int | None

    @property
    def numbered(self) -> bool:
        """Whether the samples of a batch are known by their numbers in the data set."""
        return False

    def numbers(
        self, batch_size: int, shuffle: torch.Generator | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield the numbers of the samples of each batch of :meth:`batches`, if they are known."""
        raise NotImplementedError

    def sample(self, numbers: torch.Tensor) -> tuple[Parts, bool]:
        """Read some samples anew, by their numbers, if these are known.

        Returns:
            The samples, and whether random numbers were drawn while they were read.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def steps(self, batch_size: int) -> int | None:
        """Return the number of batches of one pass; None if it is known only after reading."""

    @abc.abstractmethod
    def batches(
        self, batch_size: int, share: Share, shuffle: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of one pass, shuffled if a generator is given; nothing is dropped.

        Raises:
            DataError: the task refuses an example; the message has its place.
        """

    def in_order(self) -> Split:
        """Return a split of all the same examples in a fixed order."""
        return self

    def labels(self, share: Share) -> Iterator[Any]:
        """Yield the labels of this process's examples, in parts."""
        for batch in self.in_order().batches(_READ_ROWS, share):
            if batch.own:
                yield batch.labels

    def begin(self, epoch: int) -> None:  # noqa: B027 (most splits do nothing)
        """Pass the number of the epoch to samplers that shuffle by themselves."""

    def generators(self) -> list[torch.Generator]:
        """Return the random generators whose state persists between epochs."""
        return []

    def digest(self) -> dict[str, int | None]:
        """Return what distinguishes this data from other data, if cheap to compute."""
        return {"examples": self.rows}


class IndexedSplit(Split):
    """Examples that are fetched by index."""

    def __init__(
        self, objective: Objective, name: str, rows: int, fetch: Callable[[torch.Tensor], Parts]
    ) -> None:
        if rows == 0:
            raise DataError(f"{name} data has no examples")
        self.objective = objective
        self.name = name
        self.rows = rows
        self.fetch = fetch

    @property
    def numbered(self) -> bool:
        """Always."""
        return True

    def numbers(
        self, batch_size: int, shuffle: torch.Generator | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield the numbers of the samples of each batch."""
        assert self.rows is not None
        order = torch.randperm(self.rows, generator=shuffle) if shuffle else torch.arange(self.rows)
        yield from order.split(batch_size)

    def sample(self, numbers: torch.Tensor) -> tuple[Parts, bool]:
        """Read samples; returns whether random numbers were drawn, too."""
        before = stream_state()
        parts = self.read(numbers)
        return parts, before != stream_state()

    def steps(self, batch_size: int) -> int | None:
        """Return the number of batches of one pass; the last one may be smaller."""
        assert self.rows is not None
        return -(-self.rows // batch_size)

    def batches(
        self, batch_size: int, share: Share, shuffle: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Fetch and check each batch, and yield this process's share of it."""
        for chunk in self.numbers(batch_size, shuffle):
            own = share.of(chunk)
            yield Batch(*self.read(own if len(own) else chunk[:1]), len(own), len(chunk))

    def read(self, numbers: torch.Tensor) -> Parts:
        """Fetch and check the examples with these indices."""
        parts = self.fetch(numbers)
        self.check(parts, numbers)
        return parts

    def check(self, parts: Parts, numbers: torch.Tensor) -> None:
        """Check that the task can take the examples."""

        def where(row: int | None) -> str:
            return (
                f"{self.name} data" if row is None else f"{self.name} example {int(numbers[row])}"
            )

        check_parts(self.objective, parts, where)


class TensorSplit(IndexedSplit):
    """Tensors in memory, checked once; ``index`` selects some of their rows."""

    def __init__(
        self, objective: Objective, name: str, parts: Parts, index: torch.Tensor | None
    ) -> None:
        inputs, labels = self.parts = parts
        self.index = index
        tensors = (*inputs, *leaves_of(labels))
        if len({len(tensor) if tensor.ndim else -1 for tensor in tensors}) > 1:
            sizes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
            raise DataError(f"{name} data: inputs and labels differ in length: {sizes}")
        rows = len(tensors[0]) if index is None else len(index)
        super().__init__(objective, name, rows, self._select)
        for numbers in torch.arange(rows).split(_CHECKED_ROWS):
            self.check(self._select(numbers), numbers)

    def _select(self, numbers: torch.Tensor) -> Parts:
        rows = numbers if self.index is None else self.index[numbers]
        found: Parts = select(self.parts, rows)
        return found

    def read(self, numbers: torch.Tensor) -> Parts:
        """Select examples; all were checked when the split was made."""
        return self._select(numbers)

    def labels(self, share: Share) -> Iterator[Any]:
        """Yield the labels at once."""
        assert self.rows is not None
        rows = share.of(torch.arange(self.rows))
        if len(rows):
            yield select(self.parts[1], rows if self.index is None else self.index[rows])

    def digest(self) -> dict[str, int | None]:
        """Return the number of examples and a checksum of all of them."""
        found = 0
        assert self.rows is not None
        for numbers in torch.arange(self.rows).split(_CHECKED_ROWS):
            inputs, labels = self._select(numbers)
            found = checksum((*inputs, *leaves_of(labels)), found)
        return {"examples": self.rows, "checksum": found}
