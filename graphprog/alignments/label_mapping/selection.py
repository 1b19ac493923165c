"""Target logits as an aggregate of one or more selected source classes each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import nn

from graphprog.alignments.base import Alignment, source_classes
from graphprog.alignments.picture import Pictured, selection_matrix
from graphprog.errors import ProgramError
from graphprog.spec.checks import require_choice, require_integer

Aggregate = Literal["logits", "probabilities", "logsumexp"]


@dataclass(frozen=True)
class Selection(Alignment):
    """Base of alignments that give every target class its own ``per_class`` source classes.

    Attributes:
        classes: number of target classes K_T.
        per_class: number of source classes m of each target class.
        aggregate: how the m source logits v of a target class are aggregated to its logit.
            ``logits``: their mean, as in AutoVP.
            ``probabilities``: log of the mean of their probabilities under the softmax over *all*
            source classes, as in Voice2Series; always negative.
            ``logsumexp``: log of the sum of exp(v), not divided by m.
            The last two differ by one number per example, so they agree after a softmax over the
            targets, hence under cross-entropy and in the predicted class.
    """

    classes: int
    per_class: int = field(default=1, kw_only=True)
    aggregate: Aggregate = field(default="logits", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self.kind, "classes", self.classes, 1)
        require_integer(self.kind, "per_class", self.per_class, 1)
        require_choice(self.kind, "aggregate", self.aggregate, get_args(Aggregate))

    def available_sources(self, values: torch.Tensor) -> int:
        """K_S of the values, checked to suffice for K_T * m different source classes.

        Raises:
            ProgramError: as :func:`source_classes`, or K_T * m > K_S.
        """
        sources = source_classes(self, values)
        needed = self.classes * self.per_class
        if needed > sources:
            names = ("BayesianMap", "LinearHead")
            remedies = [f"use {name}(classes={self.classes})" for name in names]
            if self.classes <= sources:
                remedies.insert(0, f"set per_class={sources // self.classes} or less")
            raise ProgramError(
                f"{self.kind}: {self.classes} target classes with {self.per_class} source classes "
                f"each need {needed}, but {self.at!r} has only {sources}",
                remedies,
            )
        return sources

    def first_sources(self) -> torch.Tensor:
        """The first K_T * m source classes in order, int64 [K_T, m]."""
        return torch.arange(self.classes * self.per_class).reshape(self.classes, self.per_class)


def select_sources(
    values: torch.Tensor, sources: torch.Tensor, aggregate: Aggregate
) -> torch.Tensor:
    """Aggregate values [B, K_S] to logits [B, K_T] by a table int64 [K_T, m] of source classes.

    Row t of the table holds the source classes of target class t; ``aggregate`` is that of
    :class:`Selection`. Gradients flow to the selected values; the table is a constant.
    """
    classes, per_class = sources.shape
    if aggregate == "probabilities":
        values = values.log_softmax(1)
    selected = values.index_select(1, sources.reshape(-1))
    if per_class == 1:
        return selected
    groups = selected.reshape(-1, classes, per_class)
    if aggregate == "logits":
        return groups.mean(2)
    total = groups.logsumexp(2)
    return total - math.log(per_class) if aggregate == "probabilities" else total


class SelectedSources(Pictured, nn.Module):
    """Module of label mappings that are not counted from data.

    Buffers:
        sources: int64 [K_T, m]; row t holds the source classes of target class t.
    """

    sources: torch.Tensor

    def __init__(self, sources: torch.Tensor, aggregate: Aggregate) -> None:
        super().__init__()
        self.register_buffer("sources", sources)
        self.aggregate = aggregate

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Values [B, K_S] to logits [B, K_T]; see :func:`select_sources`."""
        return select_sources(values, self.sources, self.aggregate)

    def mapping(self) -> torch.Tensor:
        """1/m at every selected source class; source classes after the last one are left out."""
        return selection_matrix(self.sources, int(self.sources.max()) + 1)
