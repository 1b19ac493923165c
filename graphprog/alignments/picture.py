"""What every alignment module can show: its mapping as a matrix, and as a picture."""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from graphprog.utils.plots import plot_mapping

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictured(abc.ABC):
    """Mixin of modules that map source classes or features to target logits."""

    @abc.abstractmethod
    def mapping(self) -> torch.Tensor:
        """Float32 [K_S, K_T]: how much of each source value goes into each target logit."""

    def plot(
        self,
        labels: Sequence[str] = (),
        source_labels: Sequence[str] = (),
        top: int = 3,
        path: str | os.PathLike[str] | None = None,
    ) -> Figure:
        """Draw the mapping; see :func:`graphprog.utils.plots.plot_mapping`."""
        return plot_mapping(self.mapping(), labels, source_labels, top, path)


def selection_matrix(sources: torch.Tensor, count: int) -> torch.Tensor:
    """Float32 [count, K_T] of a table int64 [K_T, m]: 1/m at every selected source class."""
    matrix = torch.zeros(count, len(sources))
    targets = torch.arange(len(sources)).repeat_interleave(sources.shape[1])
    matrix[sources.reshape(-1).cpu(), targets] = 1.0 / sources.shape[1]
    return matrix
