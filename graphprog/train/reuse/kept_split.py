"""A split whose samples are the values that were kept of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from graphprog.train.data.batches import Batch, Share, leaves_of, select
from graphprog.train.data.splits import Split
from graphprog.utils.tensor_tree import checksum

_PROBED = 32
_PROBED_AGAIN = 4


@dataclass(frozen=True)
class Probe:
    """Some samples as they were read.

    Attributes:
        numbers: their numbers in the data set.
        leaves: tensors of inputs and labels, each [n, ...].
        random: whether random numbers were drawn while they were read.
    """

    numbers: torch.Tensor
    leaves: tuple[torch.Tensor, ...]
    random: bool

    @classmethod
    def of(cls, split: Split, numbers: torch.Tensor) -> Probe:
        """Read samples of a split."""
        (inputs, labels), drew = split.sample(numbers)
        return cls(numbers, (*inputs, *leaves_of(labels)), drew)

    def last(self, count: int) -> Probe:
        """Return the last of these samples."""
        leaves = tuple(one[-count:] for one in self.leaves)
        return Probe(self.numbers[-count:], leaves, self.random)

    def holds(self, split: Split) -> bool:
        """Whether the last of the samples are the same when they are read again, bit for bit."""
        known = self.last(_PROBED_AGAIN)
        return known.same_as(Probe.of(split, known.numbers))

    def same_as(self, other: Probe) -> bool:
        """Whether the samples are the same bits."""
        return len(self.leaves) == len(other.leaves) and all(
            one.dtype == two.dtype and one.shape == two.shape and checksum([one]) == checksum([two])
            for one, two in zip(self.leaves, other.leaves, strict=True)
        )


def sampled(split: Split) -> Probe | None:
    """Read some samples twice, in batches of two sizes; None if they are random.

    They are if they differ, or if random numbers are drawn while they are read.
    """
    assert split.rows is not None
    numbers = torch.linspace(0, split.rows - 1, min(_PROBED, split.rows)).long()
    found = Probe.of(split, numbers)
    fewer = max(1, len(numbers) - 1)
    again = Probe.of(split, numbers[-fewer:])
    fixed = not found.random and found.last(fewer).same_as(again)
    return found if fixed else None


class KeptSplit(Split):
    """The examples of another split, in the same order, as values that were kept of them.

    Attributes:
        base: the split that they were computed from.
        values: each [N, ...], in the order of the data set.
        kept_labels: labels of all examples.
        probe: some samples as they were when the values were computed.
    """

    def __init__(
        self, base: Split, values: tuple[torch.Tensor, ...], kept_labels: Any, probe: Probe
    ) -> None:
        self.base = base
        self.values = values
        self.kept_labels = kept_labels
        self.probe = probe
        self.rows = base.rows

    def of(self, base: Split) -> KeptSplit:
        """Return the same kept values as the examples of another split of the same samples."""
        return KeptSplit(base, self.values, self.kept_labels, self.probe)

    def steps(self, batch_size: int) -> int | None:
        """Return the number of batches of one pass over the base."""
        return self.base.steps(batch_size)

    def numbers(
        self, batch_size: int, shuffle: torch.Generator | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield the numbers of the examples of each batch of the base."""
        return self.base.numbers(batch_size, shuffle)

    def batches(
        self, batch_size: int, share: Share, shuffle: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of the base, as kept values; all are of this process."""
        for numbers in self.numbers(batch_size, shuffle):
            inputs, labels = select((self.values, self.kept_labels), numbers)
            yield Batch(inputs, labels, len(numbers), len(numbers), kept=True)

    def in_order(self) -> Split:
        """Return the same kept values in the order of the data set."""
        return self.of(self.base.in_order())

    def labels(self, share: Share) -> Iterator[Any]:
        """Yield the labels at once."""
        yield self.kept_labels

    def begin(self, epoch: int) -> None:
        """Pass the number of the epoch to samplers of the base."""
        self.base.begin(epoch)

    @property
    def holds(self) -> bool:
        """Whether some samples, read again, are those of which values were kept."""
        return self.probe.holds(self.base)

    def generators(self) -> list[torch.Generator]:
        """Return the generators of the base."""
        return self.base.generators()

    def digest(self) -> dict[str, int | None]:
        """Return what distinguishes the data of the base."""
        return self.base.digest()
