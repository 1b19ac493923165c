"""Refreshes of a statistical alignment from the training split."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphprog.alignments.label_mapping.report import MappingReport
from graphprog.alignments.label_mapping.statistical import StatisticalAlignment, StatisticalModule
from graphprog.compiler.model import ReprogrammedModel
from graphprog.train.data.batches import Batch
from graphprog.train.data.splits import Split
from graphprog.train.loop.engine import Engine
from graphprog.train.loop.meter import DivergenceError


@dataclass(frozen=True)
class Refresh:
    """Results of a refresh.

    Attributes:
        report: report of the alignment.
        changes: number of target classes whose top source class changed.
    """

    report: MappingReport
    changes: int


class Mapping:
    """The statistical alignment of a task: when and from what it is refreshed."""

    def __init__(self, spec: StatisticalAlignment, module: StatisticalModule) -> None:
        self.spec = spec
        self.module = module

    @classmethod
    def of(cls, task: ReprogrammedModel) -> Mapping | None:
        """Return the mapping of a task; None if its alignment is not statistical."""
        module = task.alignment
        if isinstance(task.spec.align, StatisticalAlignment):
            assert isinstance(module, StatisticalModule)
            return cls(task.spec.align, module)
        return None

    def is_due(self, epoch: int) -> bool:
        """Whether it is refreshed before the given epoch, counted from 0."""
        every = self.spec.every
        return epoch == 0 or (every is not None and epoch % every == 0)

    def collects_in(self, epoch: int) -> bool:
        """Whether the outputs during an epoch's training are counted for the next refresh."""
        return self.spec.collect == "epoch" and self.is_due(epoch + 1)

    def empty_counts(self) -> torch.Tensor:
        """Return zero counts, float64 [K_S, K_T] on the CPU."""
        shape = (self.module.source_classes, self.module.target_classes)
        return torch.zeros(shape, dtype=torch.float64)

    def count(self, values: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Count this process's rows of a batch: float64 [K_S, K_T] on the CPU."""
        rows = slice(0, batch.own)
        return self.module.count(values.detach()[rows], batch.labels[rows]).cpu()

    def read(self, engine: Engine, split: Split, batch_size: int) -> torch.Tensor:
        """Count the whole training split, summed over the processes.

        In eval mode, without gradient, every example once in a fixed order.

        Raises:
            DivergenceError: the model returns values that are not finite.
        """
        counts, broken = self.empty_counts(), 0
        engine.alone.eval()
        with torch.no_grad():
            for given in split.in_order().batches(batch_size, engine.share):
                if given.own:
                    batch = given.to(engine.device)
                    _, values = engine.forward(batch, read=True)
                    assert values is not None
                    if values.isfinite().all():
                        counts += self.count(values, batch)
                    else:
                        broken += 1
        if int(engine.total(torch.tensor(broken))):
            raise DivergenceError(
                f"values that the alignment reads ({self.spec.at}) are not finite"
            )
        return engine.total(counts)

    def refresh(self, counts: torch.Tensor) -> Refresh:
        """Recompute the mapping from the counts [K_S, K_T]."""
        before = self._foremost()
        report = self.module.refresh(counts)
        return Refresh(report, int((self._foremost() != before).sum()))

    @torch.no_grad()
    def _foremost(self) -> torch.Tensor:
        """Return the source class with the largest weight for each target class, int64 [K_T]."""
        device = self.module.refreshed.device
        responses: torch.Tensor = self.module(torch.eye(self.module.source_classes, device=device))
        return responses.argmax(0).cpu()


def empty_class_note(report: MappingReport, labels: tuple[str, ...]) -> str:
    """Return a note about target classes without training examples; empty if there are none."""
    if not report.empty:
        return ""
    names = [f"{number} {labels[number]!r}" if labels else str(number) for number in report.empty]
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return (
        f"no training example has the label {shown}, so its mapping is arbitrary; "
        "check the training split"
    )
