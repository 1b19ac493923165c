"""Search of the strength of a steering vector on validation rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn import functional

from graphprog.analysis.token_inputs import TokenInputs, writes_on
from graphprog.compiler.compile import compile as compile_program
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import DataError, ProgramError
from graphprog.instruments.patching.metric import Metric, metric_of
from graphprog.instruments.places import Model, graph_of
from graphprog.instruments.selection import Positions, Selection
from graphprog.instruments.stream import progress_bar
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import inputs_of, row_inputs
from graphprog.utils.columns import columns

_ROWS = 16
"""Rows of a run, whose logits are in memory at a time."""


@dataclasses.dataclass(frozen=True)
class ValidationRows:
    """Inputs of rows that are kept to measure with, and the positions that stand for them.

    Attributes:
        inputs: tensors, in the order of the graph.
        positions: as for :func:`graphprog.record`.
    """

    inputs: tuple[torch.Tensor, ...]
    positions: Positions = None

    def taken(self, graph: Graph, rows: torch.Tensor) -> ValidationRows:
        """Return some of the rows."""
        by_row = row_inputs(inputs_of(graph))
        inputs = [
            value[rows.to(value.device)] if own else value
            for own, value in zip(by_row, self.inputs, strict=True)
        ]
        positions = self.positions
        if isinstance(positions, torch.Tensor):
            positions = positions[rows.to(positions.device)]
        return ValidationRows(tuple(inputs), positions)

    def batches(self, graph: Graph) -> Iterator[ValidationRows]:
        """Yield the rows, a few at a time."""
        by_row = row_inputs(inputs_of(graph))
        sizes = [len(value) for own, value in zip(by_row, self.inputs, strict=True) if own]
        if not sizes:  # the model takes one row
            yield self
            return
        for rows in torch.arange(sizes[0]).split(_ROWS):
            yield self.taken(graph, rows)


@dataclasses.dataclass(frozen=True)
class TriedStrength:
    """What a strength does on the validation rows.

    Attributes:
        strength: factor of the vectors; 0 is the model without them.
        score: higher is better.
        loss: mean loss of the next token, in nats; None if the model does not predict it.
        allowed: whether the loss is within the bound.
    """

    strength: float
    score: float
    loss: float | None
    allowed: bool


@dataclasses.dataclass(frozen=True)
class StrengthSearch:
    """The strengths that were tried; prints as a table.

    Attributes:
        names: the interfaces.
        rows: one for each strength, the model without vectors first.

    Example:
        >>> contrast = gp.contrast(language, ids[:1].repeat(4, 1), ids[1:].repeat(4, 1))
        >>> search = contrast.search(language, "hidden[0]", strengths=(1, 2), tolerance=9.0)
        >>> [row.strength for row in search.rows]
        [0.0, 1.0, 2.0]
    """

    names: tuple[str, ...]
    rows: tuple[TriedStrength, ...]

    @property
    def best(self) -> TriedStrength:
        """The best score within the bound of the loss; of equal ones, the least strength.

        That is strength 0 if no other one improves the score.
        """
        order = sorted(self.rows, key=lambda row: abs(row.strength))
        return max((row for row in order if row.allowed), key=lambda row: row.score)

    @property
    def strength(self) -> float:
        """The best strength, for :meth:`Contrast.program`.

        Raises:
            ProgramError: no strength is better than none.
        """
        if not self.best.strength:
            raise ProgramError(
                f"no strength improves the score within the bound of the loss\n{self}",
                ["tolerance=, for a larger loss", "strengths=", "another interface: at="],
            )
        return self.best.strength

    def __str__(self) -> str:
        best = self.best
        rows = [
            (
                f"{row.strength:g}",
                f"{row.score:.4f}",
                "–" if row.loss is None else f"{row.loss:.4f}",
                "best" if row is best else "" if row.allowed else "loss too large",
            )
            for row in self.rows
        ]
        header = ("strength", "score", "loss", ", ".join(self.names))
        return "\n".join(columns(rows, header))


Judge = Callable[[ReprogrammedModel], tuple[float, float | None]]
"""Returns score and loss of a steered model."""


def search_strength(
    model: Model,
    steering: Program,
    strengths: Sequence[float],
    judge: Judge,
    tolerance: float,
    progress: bool | None = None,
) -> tuple[TriedStrength, ...]:
    """Judge a program at every strength, and at 0.

    Args:
        model: the source, or a compiled model, whose program is kept.
        steering: what is added to it; its tensors are learned ones.
        strengths: factors other than 0.
        judge: see :data:`Judge`.
        tolerance: what the loss may be larger than at strength 0.
        progress: whether to show a bar; None shows it on a terminal.

    Raises:
        DataError: a score is not a finite number.
        ProgramError: there are no strengths, or the tolerance is negative.
    """
    tried = [0.0, *map(float, strengths)]
    if len({*tried}) != len(tried) or len(tried) < 2 or not all(map(math.isfinite, tried)):
        raise ProgramError(
            f"strengths must be different finite numbers other than 0, not {strengths!r:.60}"
        )
    if not tolerance >= 0:
        raise ProgramError(f"tolerance must be 0 nats or more, not {tolerance}")
    task, kept = _steered(model, steering)
    unit = {name: value for name, value in task.program_state().items() if name not in kept}
    unit = {name: value.clone() for name, value in unit.items()}
    rows: list[TriedStrength] = []
    for strength in progress_bar(tried, len(tried), "strengths", progress):
        own = {name: strength * value for name, value in unit.items()}
        task.load_program_state({**kept, **own})
        score, loss = judge(task)
        if not math.isfinite(score):
            raise DataError(f"the score is {score} at strength {strength:g}; it must be finite")
        first = rows[0].loss if rows else loss
        within = loss is None or first is None or loss <= first + tolerance
        rows.append(TriedStrength(strength, score, loss, within))
    return tuple(rows)


def _steered(model: Model, steering: Program) -> tuple[ReprogrammedModel, dict[str, torch.Tensor]]:
    """Return the model with further parts, and the state of the parts that it had."""
    if not isinstance(model, ReprogrammedModel):
        return compile_program(graph_of(model), steering), {}
    parts = (*model.spec.manipulations, *steering.manipulations)
    whole = dataclasses.replace(model.spec, manipulations=parts)
    return compile_program(model.base, whole, model.seed), model.program_state()


def mean_metric(task: ReprogrammedModel, rows: ValidationRows, metric: Metric) -> float:
    """Return the mean of a metric over rows; two classes are compared at the last token of each.

    Raises:
        DataError: the metric does not fit the logits.
        ProgramError: it is neither a function nor two classes.
    """
    scored, found = metric_of(metric), []
    for batch in rows.batches(task.base):
        (logits,) = task.graph.evaluate(["logits"], batch.inputs).values()
        if not callable(metric) and logits.ndim == 3:
            last = Selection("last")
            name = last.mask_input(task.base)
            given = dict(zip(task.base.call_spec.inputs, batch.inputs, strict=True))
            present = given[name].to(logits.device) if name else None
            logits = last.apply("logits", logits, 1, present)["logits"]
        found.append(scored(logits).double().cpu())
    return float(torch.cat(found).mean())


def next_token_loss(task: ReprogrammedModel, rows: ValidationRows) -> float | None:
    """Return the mean loss of the next token, in nats; None if a model does not predict it."""
    if not writes_on(task.base):
        return None
    tokens = TokenInputs.of(task.base)
    total, count = 0.0, 0
    for batch in rows.batches(task.base):
        given = dict(zip(task.base.call_spec.inputs, batch.inputs, strict=True))
        (logits,) = task.graph.evaluate(["logits"], batch.inputs).values()
        ids = given[tokens.ids].to(logits.device)
        mask = given[tokens.mask].to(logits.device) if tokens.mask else torch.ones_like(ids)
        there = mask[:, 1:].bool() & mask[:, :-1].bool()
        losses = functional.cross_entropy(
            logits[:, :-1][there].float(), ids[:, 1:][there], reduction="sum"
        )
        total, count = total + float(losses), count + int(there.sum())
    return total / count if count else None
