"""Bayesian-guided label mapping: every source class has a weight for every target class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from graphprog.alignments.base import home_of, source_classes
from graphprog.alignments.label_mapping.counting import hard_counts, soft_counts
from graphprog.alignments.label_mapping.report import MappingReport
from graphprog.alignments.label_mapping.statistical import (
    StatisticalAlignment,
    StatisticalModule,
    empty_classes,
    unpredicted_sources,
)
from graphprog.alignments.label_mapping.weighting import bayesian_weights
from graphprog.errors import ProgramError
from graphprog.spec.checks import require_number
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext

_MAX_WEIGHTS = 2**28


@spec("bayesian-map")
@dataclass(frozen=True)
class BayesianMap(StatisticalAlignment):
    """Bayesian label mapping: weighted means of all source logits (BLM; arXiv:2410.24018).

    The logits are weighted, not their softmax, so their scale matters, while a constant added to
    all of them does not. There may be more target than source classes.

    Attributes:
        smoothing: Laplace's lambda of :func:`bayesian_weights`, at least 0; 1 in the paper.
        top: None counts each example's prediction (BLM). A number above 0 counts the
            probabilities of its k likeliest source classes (BLM+), where
            k = min(K_S, max(1, floor(top * K_T))); 0.15 in the paper.

    Example:
        >>> program = gp.Program([gp.Additive()], align=gp.BayesianMap(classes=2))
        >>> task = gp.compile(graph, program)
        >>> history = gp.fit(task, (images, labels), epochs=1)
    """

    smoothing: float = 1.0
    top: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self.kind, "smoothing", self.smoothing, 0.0)
        if self.top is not None:
            require_number(self.kind, "top", self.top, 0.0, inclusive=False)

    def likeliest(self, sources: int) -> int | None:
        """The k counted per example for K_S ``sources``; None without ``top``."""
        if self.top is None:
            return None
        return min(sources, max(1, math.floor(self.top * self.classes)))

    def build(self, context: BuildContext) -> WeightedSources:
        """Values [B, K_S] to logits [B, K_T].

        Raises:
            ProgramError: as :func:`source_classes`; or more than 2**28 weights.
        """
        available = source_classes(self, context.value)
        if available * self.classes > _MAX_WEIGHTS:
            raise ProgramError(
                f"{self.kind}: {available} source classes by {self.classes} target classes are "
                f"more than the {_MAX_WEIGHTS:,} weights a mapping may have"
            )
        k = self.likeliest(available)
        return WeightedSources(available, self.classes, self.smoothing, k, home_of(context.value))


class WeightedSources(StatisticalModule):
    """Module of :class:`BayesianMap`.

    Until refreshed, target class t reads source class t, modulo K_S.

    Buffers:
        weights: float32 [K_S, K_T]; every column sums to 1.
        refreshed: bool, a scalar.
    """

    weights: torch.Tensor

    def __init__(
        self, sources: int, classes: int, smoothing: float, k: int | None, device: torch.device
    ) -> None:
        super().__init__(sources, classes, device)
        weights = torch.zeros(sources, classes, device=device)
        weights[torch.arange(classes) % sources, torch.arange(classes)] = 1.0
        self.register_buffer("weights", weights)
        self.smoothing = smoothing
        self.k = k

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Weighted means, in the dtype of the values; the weights are constant."""
        weights = self.weights
        if weights.dtype != values.dtype:
            weights = weights.to(values.dtype)
        return values @ weights

    def mapping(self) -> torch.Tensor:
        """The weights."""
        return self.weights.detach().cpu()

    def tally(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Counts of predictions, or of the k likeliest source classes."""
        if self.k is None:
            return hard_counts(values, labels, self.target_classes)
        return soft_counts(values, labels, self.target_classes, self.k)

    def remap(self, counts: torch.Tensor) -> MappingReport:
        """Compute the weights from counts, and report."""
        self.weights.copy_(bayesian_weights(counts, self.smoothing))
        empty = empty_classes(counts)
        return MappingReport(
            sources=self.source_classes,
            classes=self.target_classes,
            total=float(counts.sum()),
            empty=empty,
            leftover=empty,
            unpredicted=unpredicted_sources(counts),
            k=self.k,
        )
