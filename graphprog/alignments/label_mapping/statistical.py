"""Base classes of alignments estimated from data: their specs and their modules."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import nn

from graphprog.alignments.base import Alignment
from graphprog.alignments.label_mapping.matching import check_counts
from graphprog.alignments.label_mapping.report import MappingReport
from graphprog.alignments.picture import Pictured
from graphprog.errors import DataError
from graphprog.spec.checks import require_choice, require_integer

Collect = Literal["pass", "epoch"]


@dataclass(frozen=True)
class StatisticalAlignment(Alignment):
    """Base of alignments counted on the training split; they build a `StatisticalModule`.

    Attributes:
        classes: number of target classes K_T; never derived from the labels seen.
        every: refresh before every n-th training epoch; None: once, before the first.
        collect: ``pass`` counts in an extra pass over the training split in eval mode; ``epoch``
            counts the outputs of the previous training epoch, which is free, but the program
            changed during that epoch. The first refresh is always a pass.
    """

    classes: int
    every: int | None = field(default=1, kw_only=True)
    collect: Collect = field(default="pass", kw_only=True)

    may_come_first: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self.kind, "classes", self.classes, 1)
        if self.every is not None:
            require_integer(self.kind, "every", self.every, 1)
        require_choice(self.kind, "collect", self.collect, get_args(Collect))


class StatisticalModule(Pictured, nn.Module):
    """Base of modules with a counted mapping; until refreshed they read the first K_T classes.

    The mapping is stored in buffers: constant for autograd, and saved with the program.

    Buffers:
        refreshed: bool, a scalar; whether the mapping comes from data.
    """

    refreshed: torch.Tensor

    def __init__(self, source_classes: int, target_classes: int, device: torch.device) -> None:
        super().__init__()
        self.source_classes = source_classes
        self.target_classes = target_classes
        self.register_buffer("refreshed", torch.tensor(False, device=device))

    def count(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Count a batch; sum the counts of all batches and processes before `refresh`.

        Args:
            values: what the alignment reads, floating point [B, K_S].
            labels: int64 [B], each in [0, K_T).

        Returns:
            float64 [K_S, K_T] without gradient, on the device of ``values``, or on the CPU if the
            device has no float64.

        Raises:
            DataError: shapes or dtypes other than these, labels out of range, values not finite.
        """
        if values.ndim == 2 and values.shape[1] != self.source_classes:
            raise DataError(
                f"values have {values.shape[1]} source classes, but the mapping has "
                f"{self.source_classes}"
            )
        return self.tally(values, labels)

    @abc.abstractmethod
    def tally(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Count values of K_S columns for `count`; checks everything else, without gradient."""

    def refresh(self, counts: torch.Tensor) -> MappingReport:
        """Estimate the mapping from counts, in place.

        Args:
            counts: [K_S, K_T], summed over the training split; any device.

        Raises:
            DataError: counts of another shape, negative, not finite, or all zero. The mapping is
                then unchanged.
        """
        expected = (self.source_classes, self.target_classes)
        if tuple(counts.shape) != expected:
            raise DataError(f"counts must be {list(expected)}, not {list(counts.shape)}")
        exact = check_counts(counts)
        with torch.no_grad():
            report = self.remap(exact)
            self.refreshed.fill_(True)
        return report

    @abc.abstractmethod
    def remap(self, counts: torch.Tensor) -> MappingReport:
        """Write the buffers of the mapping from valid float64 [K_S, K_T] counts on the CPU."""


def empty_classes(counts: torch.Tensor) -> tuple[int, ...]:
    """Target classes whose column of counts is zero."""
    return tuple(int(target) for target in (counts.sum(0) == 0).nonzero().reshape(-1).tolist())


def unpredicted_sources(counts: torch.Tensor) -> int:
    """Number of source classes whose row of counts is zero."""
    return int((counts.sum(1) == 0).sum())
