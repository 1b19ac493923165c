"""Random label mapping."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphprog.alignments.base import home_of
from graphprog.alignments.label_mapping.selection import SelectedSources, Selection
from graphprog.spec.checks import require_integer
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext


@spec("random-map")
@dataclass(frozen=True)
class RandomMap(Selection):
    """Random label mapping, drawn without replacement (RLM; Chen et al. 2023, arXiv:2211.11635).

    The draw depends on ``seed`` and K_S alone, so the text of a program determines its mapping.

    Attributes:
        seed: seed of the draw, at least 0.

    Example:
        >>> task = gp.compile(graph, gp.Program(align=gp.RandomMap(classes=2, seed=1)))
        >>> task(images).shape
        torch.Size([4, 2])
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self.kind, "seed", self.seed, 0)

    def build(self, context: BuildContext) -> SelectedSources:
        """Values [B, K_S] to logits [B, K_T]."""
        available = self.available_sources(context.value)
        order = torch.randperm(available, generator=torch.Generator().manual_seed(self.seed))
        table = order[: self.classes * self.per_class].reshape(self.classes, self.per_class)
        return SelectedSources(table.to(home_of(context.value)), self.aggregate)
