"""Show the mapping of an alignment module as a matrix and as a figure."""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from graphprog.spec.checks import require_texts
from graphprog.utils.plots.programs import plot_mapping

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictured(abc.ABC):
    """Mixin of modules that map source classes or features to target logits.

    Attributes:
        target_names: names of the target classes.
        source_names: names of what is read.
        reads: what is read, for people.
    """

    target_names: tuple[str, ...] = ()
    source_names: tuple[str, ...] = ()
    reads: str = "source class"

    def describe(self, targets: Sequence[str], sources: Sequence[str], at: str) -> None:
        """Name what the plot shows.

        Args:
            targets: names of the target classes.
            sources: names of the source classes.
            at: interface that is read.
        """
        classes = at == "logits"
        known = classes and len(sources) >= len(self.mapping())
        self.target_names = tuple(targets)
        self.source_names = tuple(sources) if known else ()
        self.reads = "source class" if classes else f"entry of {at}"

    @abc.abstractmethod
    def mapping(self) -> torch.Tensor:
        """Weight of each source value in each target logit, float32 [K_S, K_T]."""

    def plot(
        self,
        labels: Sequence[str] = (),
        source_labels: Sequence[str] = (),
        top: int = 3,
        path: str | os.PathLike[str] | None = None,
    ) -> Figure:
        """Plot the mapping; see :func:`graphprog.utils.plots.programs.plot_mapping`.

        Names are those of the contract and of the source's classes, if none are given.
        """
        require_texts("", "labels", labels)
        require_texts("", "source_labels", source_labels)
        names = labels or self.target_names, source_labels or self.source_names
        return plot_mapping(self.mapping(), *names, top, path, self.reads)


def selection_matrix(sources: torch.Tensor, count: int) -> torch.Tensor:
    """Convert a table int64 [K_T, m] to float32 [count, K_T]: 1/m at every selected class."""
    matrix = torch.zeros(count, len(sources))
    targets = torch.arange(len(sources)).repeat_interleave(sources.shape[1])
    matrix[sources.reshape(-1).cpu(), targets] = 1.0 / sources.shape[1]
    return matrix
