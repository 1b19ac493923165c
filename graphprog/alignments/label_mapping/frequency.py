"""Label mappings matched greedily by frequency, once or repeatedly during training."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from graphprog.alignments.base import home_of
from graphprog.alignments.label_mapping.counting import hard_counts
from graphprog.alignments.label_mapping.matching import frequency_matching
from graphprog.alignments.label_mapping.report import MappingReport
from graphprog.alignments.label_mapping.selection import Aggregate, Selection, select_sources
from graphprog.alignments.label_mapping.statistical import (
    StatisticalAlignment,
    StatisticalModule,
    empty_classes,
    unpredicted_sources,
)
from graphprog.alignments.picture import selection_matrix
from graphprog.errors import ProgramError
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext


@dataclass(frozen=True)
class MatchedAlignment(Selection, StatisticalAlignment):
    """Base of alignments by `frequency_matching` of predicted source and target classes."""

    def build(self, context: BuildContext) -> MatchedSources:
        """Values [B, K_S] to logits [B, K_T].

        Raises:
            ProgramError: as :class:`Selection`.
        """
        available = self.available_sources(context.value)
        table = self.first_sources().to(home_of(context.value))
        return MatchedSources(table, self.aggregate, available)


@spec("frequency-map")
@dataclass(frozen=True)
class FrequencyMap(MatchedAlignment):
    """Frequent label mapping: the source classes predicted most often, matched before training.

    FLM of Tsai et al. 2020 (arXiv:2007.08714) and Chen et al. 2023 (arXiv:2211.11635). Predictions
    are counted with the program at its initial values.

    Example:
        >>> program = gp.Program([gp.Additive()], align=gp.FrequencyMap(classes=2))
        >>> task = gp.compile(graph, program)
        >>> history = gp.fit(task, (images, labels), epochs=1)  # counts once, before training
    """

    every: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every is not None or self.collect != "pass":
            raise ProgramError(
                f"{self.kind} is matched once, before training; every and collect cannot be set",
                [f"use IterativeMap({self.classes}), which is matched before every epoch"],
            )


@spec("iterative-map")
@dataclass(frozen=True)
class IterativeMap(MatchedAlignment):
    """Iterative label mapping: a :class:`FrequencyMap` matched before every n-th epoch.

    ILM of Chen et al. 2023 (arXiv:2211.11635). Predictions are counted with the current program.

    Example:
        >>> program = gp.Program([gp.Additive()], align=gp.IterativeMap(classes=2))
        >>> task = gp.compile(graph, program)
        >>> history = gp.fit(task, (images, labels), epochs=1)  # counts before every epoch
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every is None:
            raise ProgramError(
                f"{self.kind}: every=None would match only once",
                [f"use FrequencyMap({self.classes})", "set every=1"],
            )


class MatchedSources(StatisticalModule):
    """Module of the frequency-matched maps.

    Buffers:
        sources: int64 [K_T, m]; row t holds the source classes of target class t.
        refreshed: bool, a scalar.
    """

    sources: torch.Tensor

    def __init__(self, sources: torch.Tensor, aggregate: Aggregate, source_classes: int) -> None:
        super().__init__(source_classes, sources.shape[0], sources.device)
        self.register_buffer("sources", sources)
        self.aggregate = aggregate

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Values [B, K_S] to logits [B, K_T]; see :func:`select_sources`."""
        return select_sources(values, self.sources, self.aggregate)

    def mapping(self) -> torch.Tensor:
        """1/m at every matched source class."""
        return selection_matrix(self.sources, self.source_classes)

    def tally(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Counts of predictions."""
        return hard_counts(values, labels, self.target_classes)

    def remap(self, counts: torch.Tensor) -> MappingReport:
        """Match by counts, and report."""
        matching = frequency_matching(counts, self.sources.shape[1])
        self.sources.copy_(matching.sources)
        return MappingReport(
            sources=self.source_classes,
            classes=self.target_classes,
            total=float(counts.sum()),
            empty=empty_classes(counts),
            leftover=matching.leftover,
            unpredicted=unpredicted_sources(counts),
            ties=matching.ties,
        )
