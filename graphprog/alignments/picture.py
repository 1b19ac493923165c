"""Show the mapping of an alignment module as a matrix and as a figure."""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from graphprog.spec.checks import require_texts
from graphprog.utils.plots import plot_mapping

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictured(abc.ABC):
    """Mixin of modules that map source classes or features to target logits."""

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
        """Draw the mapping; see :func:`graphprog.utils.plots.plot_mapping`."""
        require_texts("", "labels", labels)
        require_texts("", "source_labels", source_labels)
        return plot_mapping(self.mapping(), labels, source_labels, top, path)


def selection_matrix(sources: torch.Tensor, count: int) -> torch.Tensor:
    """Convert a table int64 [K_T, m] to float32 [count, K_T]: 1/m at every selected class."""
    matrix = torch.zeros(count, len(sources))
    targets = torch.arange(len(sources)).repeat_interleave(sources.shape[1])
    matrix[sources.reshape(-1).cpu(), targets] = 1.0 / sources.shape[1]
    return matrix
