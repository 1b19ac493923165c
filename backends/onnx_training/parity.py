"""A written training step beside PyTorch."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphprog.backends.onnx_training.forward import Forward
from graphprog.backends.onnx_training.layout import (
    LABELS,
    LOSS,
    NEW,
    NORM,
    RATE,
    READ,
    STEP,
    Layout,
)
from graphprog.backends.onnx_training.losses import example_labels
from graphprog.backends.onnxruntime.providers import open_session
from graphprog.backends.parity.report import Inputs, ParityReport, parity_batches
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError
from graphprog.train.objective import Loss
from graphprog.train.optimizers import Optimizer
from graphprog.utils.numerics import Difference, difference

MOVES, MOVED, SLACK, MOST = 4, 1e-5, 4.0, 0.1
"""How often and how far inputs are moved, how much farther another rounding may take a gradient,
and how far at most: where PyTorch's own moves more, nothing is proved, and the step is refused."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs of a task, and labels."""

    inputs: Inputs
    labels: Tensor

    def named(self, layout: Layout) -> dict[str, Tensor]:
        """By the names of a step's arguments."""
        return dict(zip((*layout.inputs, LABELS), (*self.inputs, self.labels), strict=True))


def batches_of(
    task: ReprogrammedModel, loss: Loss, inputs: Inputs | None, labels: Tensor | None
) -> list[Batch]:
    """Two batches to compare on, the first of which has two rows where the batch varies.

    Raises:
        BackendError: labels are needed; or there are labels, and no inputs.
        DataError: the inputs are not what the task takes.
    """
    if labels is None:
        given = parity_batches(task, inputs, smallest=2)
        return [Batch(value, example_labels(task, loss, value)) for value in given]
    if inputs is None:
        raise BackendError("labels were given without the inputs they belong to", ["inputs=..."])
    task.check(inputs)
    rows, first = len(labels), [value[:2] for value in (*inputs, labels)]
    whole = Batch(tuple(inputs), labels)
    if rows <= 2 or any(len(value) != rows for value in inputs):
        return [whole]
    return [Batch(tuple(first[:-1]), first[-1]), whole]


def initial(task: ReprogrammedModel, layout: Layout) -> dict[str, Tensor]:
    """The tensors of a program and of an optimizer that has not begun."""
    state = task.program_state()
    found = {name: state[name] for name in (*layout.counted, *layout.trained, *layout.updated)}
    moments = {
        name: torch.zeros_like(state[name[name.index("program.") :]]) for name in layout.moments
    }
    return {**found, STEP: torch.tensor(0), **moments}


def compared(
    path: Path,
    task: ReprogrammedModel,
    layout: Layout,
    loss: Loss,
    optimizer: Optimizer,
    batches: Sequence[Batch],
    tolerance: float,
) -> ParityReport:
    """Take one step from the task's own state, by ONNX Runtime and by PyTorch.

    New values of what is trained are not compared: a first step of Adam depends on the sign of a
    gradient alone, which rounding decides where it is nearly zero. The moments tell the gradient.
    Gradients jump where rounding moves a value across the corner of a rectifier; where they differ,
    they may by about as much as PyTorch's own do when the inputs move a little, which is then the
    tolerance of the report.

    Raises:
        BackendError: ONNX Runtime cannot run it, or the results differ.
    """
    session = open_session(path, "cpu")
    start = {**initial(task, layout), RATE: torch.tensor(optimizer.lr)}
    reference = functools.partial(_reference, task, layout, loss, optimizer, start=start)
    gaps: list[tuple[str, Difference]] = []
    loosest = tolerance
    for batch in batches:
        results = _results(session, layout, {**start, **batch.named(layout)})
        own, needed = _differences(reference, batch, results, tolerance)
        gaps += own.items()
        loosest = max(loosest, needed)
    differing = [
        name
        for name, gap in gaps
        if not (_near(gap, loosest) if _is_gradient(name) else gap.within(tolerance))
    ]
    report = ParityReport(
        backend="onnx (training step)",
        rows=sum(len(batch.labels) for batch in batches),
        batch_sizes=tuple(len(batch.labels) for batch in batches),
        max_absolute=max(gap.absolute for _, gap in gaps),
        max_relative=max(gap.relative for _, gap in gaps),
        label_agreement=None,
        tolerance=loosest,
        passed=not differing,
        first_divergence=next(iter(differing), None),
    )
    if not report.passed:
        raise BackendError(
            f"the training step of {task.base.name} differs from PyTorch:\n{report}",
            ["capture the source model in float32", "a higher tolerance"],
        )
    return report


def _results(session: Any, layout: Layout, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a step returns, by name."""
    taken = {entry.name for entry in session.get_inputs()}
    feeds = {name: value.cpu().numpy() for name, value in values.items() if name in taken}
    results = session.run(list(layout.results), feeds)
    return dict(zip(layout.results, map(torch.from_numpy, results), strict=True))


def _differences(
    reference: Callable[[Batch], dict[str, Tensor]],
    batch: Batch,
    found: Mapping[str, Tensor],
    tolerance: float,
) -> tuple[dict[str, Difference], float]:
    """How far results are from those of PyTorch, and the tolerance that its gradients need."""
    wanted = reference(batch)
    gaps = {name: difference(wanted[name], found[name]) for name in found if name in wanted}
    rough = [name for name in gaps if _is_gradient(name) and not _near(gaps[name], tolerance)]
    if not rough:
        return gaps, tolerance
    gaps |= {name: _of_norms(wanted[name], found[name]) for name in rough}
    return gaps, max(tolerance, _unsteadiness(reference, batch, wanted, rough))


def _unsteadiness(
    reference: Callable[[Batch], dict[str, Tensor]],
    batch: Batch,
    wanted: dict[str, Tensor],
    names: Sequence[str],
) -> float:
    """How far gradients move where inputs move by rounding, as a share of their norm."""
    generator = torch.Generator().manual_seed(0)
    gaps = [0.0]
    for _ in range(MOVES):
        inputs = tuple(
            value * (1 + MOVED * torch.randn(value.shape, generator=generator).to(value))
            if value.is_floating_point()
            else value
            for value in batch.inputs
        )
        moved = reference(Batch(inputs, batch.labels))
        gaps += [_of_norms(wanted[name], moved[name]).relative for name in names]
    return min(SLACK * max(gaps), MOST)


def _is_gradient(name: str) -> bool:
    return name == NORM or name.startswith(NEW)


def _near(gap: Difference, tolerance: float) -> bool:
    """Whether a gradient is: it has a size of its own, however small, so its share counts."""
    return gap.relative <= tolerance or gap.absolute <= 1e-12


def _of_norms(reference: Tensor, found: Tensor) -> Difference:
    """Norm of a difference, and its share of that of the reference."""
    wanted = reference.detach().cpu().double()
    gap, norm = float((found.cpu() - wanted).norm()), float(wanted.norm())
    return Difference(gap, gap / norm if norm else 0.0 if gap == 0 else math.inf)


def _reference(
    task: ReprogrammedModel,
    layout: Layout,
    loss: Loss,
    optimizer: Optimizer,
    batch: Batch,
    start: dict[str, Tensor],
) -> dict[str, Tensor]:
    """What PyTorch computes, by the names of the results; the task stays as it is."""
    own = dict(task.program.named_parameters(prefix="program"))
    parameters = {name: own[name] for name in layout.trained}
    with torch.enable_grad():
        found = Forward(task, loss, layout)(batch.inputs, batch.labels)
        gradients = torch.autograd.grad(found[0], list(parameters.values()))
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    names = (
        *layout.outputs,
        *((READ,) if layout.counted else ()),
        *(NEW + n for n in layout.updated),
    )
    results = {LOSS: found[0], NORM: norm, **dict(zip(names, found[1:], strict=True))}
    if optimizer.clip is not None:
        factor = min(1.0, float(optimizer.clip / (norm + 1e-6)))
        gradients = tuple(gradient * factor for gradient in gradients)
    for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
        moments = [moment for moment in layout.moments if moment.endswith(f".{name}")]
        _, news = optimizer.update(
            value.detach(), gradient, tuple(start[m] for m in moments), start[STEP] + 1, start[RATE]
        )
        results |= {NEW + moment: new for moment, new in zip(moments, news, strict=True)}
    return results
