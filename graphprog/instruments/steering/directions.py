"""Directions at interfaces, and the programs that add them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import ProgramError
from graphprog.instruments.patching.metric import Metric
from graphprog.instruments.places import Inputs, Model, Places, flat_inputs, graph_of
from graphprog.instruments.probe import Probes
from graphprog.instruments.record import Recorder
from graphprog.instruments.selection import Selection
from graphprog.instruments.steering.strength import (
    StrengthSearch,
    ValidationRows,
    mean_metric,
    next_token_loss,
    search_strength,
)
from graphprog.ir.graph import Graph
from graphprog.manipulations.interventions.conditional_steering import ConditionalSteering
from graphprog.manipulations.modules.additive import Additive
from graphprog.manipulations.selective import Positions, SelectiveManipulation
from graphprog.utils.columns import columns
from graphprog.utils.plots.figures import Path, figure, keep
from graphprog.values.base import Fixed, Learnable, Value
from graphprog.values.initializers import Given


@dataclasses.dataclass(frozen=True)
class Direction:
    """The direction at one interface.

    Attributes:
        name: the interface.
        vector: [d], or [C, 1, 1] for values [B, C, H, W]; points from the negative to the positive
            inputs. Its length is the distance between their means along it.
        separation: share of held-out inputs that a threshold on the direction assigns rightly; the
            threshold is the middle between the means of the other inputs.
        threshold: of the product with the vector; larger ones are positive.
    """

    name: str
    vector: torch.Tensor = dataclasses.field(repr=False, compare=False)
    separation: float
    threshold: float = 0.0


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Directions at several interfaces; prints as a table of their separation.

    Attributes:
        rows: one for each interface.
        held_out: the positive and the negative inputs that did not make the directions.

    Example:
        >>> contrast = gp.contrast(language, ids[:1].repeat(4, 1), ids[1:].repeat(4, 1))
        >>> task = gp.compile(language, contrast.program("hidden[0]", strength=2.0))
    """

    rows: tuple[Direction, ...]
    held_out: tuple[ValidationRows, ValidationRows] | None = dataclasses.field(
        default=None, repr=False, compare=False
    )

    @property
    def best(self) -> Direction:
        """The direction that separates held-out inputs best; of equal ones, the first."""
        return max(self.rows, key=lambda row: row.separation)

    def program(
        self,
        at: Places | None = None,
        strength: float = 1.0,
        *,
        positions: Positions = None,
        when: Contrast | Probes | None = None,
        learnable: bool = False,
    ) -> Program:
        """Return a program that adds the directions.

        Args:
            at: the interfaces; by default that of the best direction.
            strength: factor of the vectors; negative steers towards the negative inputs.
                :meth:`search` finds one.
            positions: positions that change; by default all. See :class:`graphprog.Additive`.
            when: adds them only where a value is on the positive side of these directions, or
                where these probes of two classes say 1; see :class:`graphprog.ConditionalSteering`.
            learnable: whether the vectors are initial values, which training changes.

        Raises:
            ProgramError: there is no direction, or no probe of two classes, at an interface.
        """
        parts = []
        for name, vector in self.vectors(at).items():
            vector = strength * vector
            value: Value = Fixed(vector)
            if learnable:
                value = Learnable(Given(vector), shape=tuple(vector.shape))
            part: SelectiveManipulation = Additive(at=name, value=value, positions=positions)
            if when is not None:
                weight, bias = when.boundary(name)
                if weight.numel() != vector.numel():
                    raise ProgramError(
                        f"the probe at {name} reads {weight.numel()} numbers, the vector has "
                        f"{vector.numel()}",
                        ['record with positions="last" or reduce="mean" for the probe'],
                    )
                probe = Fixed(weight.reshape(vector.shape))
                part = ConditionalSteering(value, probe, bias, at=name, positions=positions)
            parts.append(part)
        return Program(tuple(parts))

    def vectors(self, at: Places | None = None) -> dict[str, torch.Tensor]:
        """Return the vectors by interface: ``onnx.export(graph, path, steer=...)`` takes them.

        Args:
            at: the interfaces; by default that of the best direction.

        Raises:
            ProgramError: there is no direction at an interface.

        Example:
            >>> contrast = gp.contrast(language, ids[:1].repeat(4, 1), ids[1:].repeat(4, 1))
            >>> [*contrast.vectors("hidden[0]")]
            ['hidden[0]']
        """
        names = [self.best.name] if at is None else [at] if isinstance(at, str) else [*at]
        return {name: self._row(name).vector for name in names}

    def boundary(self, name: str) -> tuple[torch.Tensor, float]:
        """Return w, of the vector's shape, and b: ``w·h + b > 0`` on the positive side.

        Raises:
            ProgramError: there is no direction at the interface.
        """
        row = self._row(name)
        return row.vector, -row.threshold

    def _row(self, name: str) -> Direction:
        known: Mapping[str, Direction] = {row.name: row for row in self.rows}
        if name not in known:
            raise ProgramError(f"there is no direction at {name}", [f"there are {[*known]}"])
        return known[name]

    def search(
        self,
        model: Model,
        at: Places | None = None,
        *,
        strengths: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0),
        metric: Metric | None = None,
        score: Callable[[ReprogrammedModel], float] | None = None,
        validation: Inputs | None = None,
        tolerance: float = 0.1,
        positions: Positions = None,
        when: Contrast | Probes | None = None,
        progress: bool | None = None,
    ) -> StrengthSearch:
        """Try strengths on validation rows, and choose one.

        By default the score is the share of rows that the last of the directions, measured where it
        was found, reads as steered: positive for positive strengths. Where the model predicts the
        next token, its loss on these rows bounds the strength. One compiled model serves all
        strengths. The score of the chosen one is that of the best of several; measure it on other
        rows.

        Args:
            model: the graph or compiled model that is steered.
            at: the interfaces that are steered together; by default that of the best direction.
            strengths: factors of the vectors, beside 0.
            metric: the score in place of the default one: a function of the logits [B, ...] that
                returns [B], or two classes, right and wrong, for the difference of their logits at
                the last token. It is averaged over the rows.
            score: likewise, a function of the steered model, such as one that judges what it
                writes; higher is better.
            validation: rows to measure on; by default those that were held out, of the side that
                the strengths steer away from.
            tolerance: nats by which the mean loss of the next token may rise.
            positions: as for :meth:`program`.
            when: likewise.
            progress: whether to show a bar; None shows it on a terminal.

        Raises:
            DataError: the rows do not fit, or a score is not finite.
            ProgramError: options exclude one another, strengths have both signs without
                ``validation`` and ``metric`` or ``score``, or there is no such direction.

        Example:
            >>> contrast = gp.contrast(language, ids[:1].repeat(4, 1), ids[1:].repeat(4, 1))
            >>> search = contrast.search(language, "hidden[0]", tolerance=9.0)
            >>> task = gp.compile(language, contrast.program("hidden[0]", search.strength))
        """
        graph, chosen = graph_of(model, [row.name for row in self.rows]), [*self.vectors(at)]
        if metric is not None and score is not None:
            raise ProgramError("metric and score exclude one another")
        own = metric is not None or score is not None
        rows = self._validation(graph, validation, strengths, own)
        reads = self._last(graph)

        def judge(task: ReprogrammedModel) -> tuple[float, float | None]:
            loss = next_token_loss(task, rows)
            if score is not None:
                return float(score(task)), loss
            if metric is not None:
                return mean_metric(task, rows, metric), loss
            share = self._positive(task, reads, rows)
            return share if strengths[0] > 0 else 1 - share, loss

        tried = search_strength(
            model,
            self.program(chosen, positions=positions, when=when, learnable=True),
            strengths,
            judge,
            tolerance,
            progress,
        )
        return StrengthSearch(tuple(chosen), tried)

    def _validation(
        self, graph: Graph, validation: Inputs | None, strengths: Sequence[float], own: bool
    ) -> ValidationRows:
        """Return the rows to measure on."""
        signs = {strength > 0 for strength in strengths if strength}
        if len(signs) > 1 and not (own and validation is not None):
            raise ProgramError(
                "strengths of both signs steer to both sides, so that neither the held-out rows "
                "nor the default score fit",
                ["strengths of one sign", "validation= and metric= or score="],
            )
        kept = self.held_out
        if validation is not None:
            positions = kept[1].positions if kept else None
            return ValidationRows(tuple(flat_inputs(graph, validation)), positions)
        if kept is None:
            raise ProgramError("the contrast has no held-out rows", ["pass validation="])
        return kept[1] if signs == {True} else kept[0]

    def _last(self, graph: Graph) -> str:
        """Return the interface of a direction that comes last in a graph."""
        table = graph.interfaces()
        order = {node.name: number for number, node in enumerate(graph.code.nodes)}
        names = [row.name for row in self.rows]
        return max(names, key=lambda name: order[table.resolve(name).node])

    def _positive(self, task: ReprogrammedModel, name: str, rows: ValidationRows) -> float:
        """Return the share of rows that the direction at an interface reads as positive."""
        weight, bias = self.boundary(name)
        sides = []
        for batch in rows.batches(task.base):
            recorder = Recorder(task.graph, name, Selection(batch.positions, "mean"))
            value = features(recorder([one.to(task.device) for one in batch.inputs]))[name]
            sides.append(value.cpu() @ weight.flatten().double() + bias > 0)
        return float(torch.cat(sides).double().mean())

    def __str__(self) -> str:
        rows = [
            (row.name, f"{float(row.vector.norm()):.3f}", f"{row.separation:.3f}")
            for row in self.rows
        ]
        return "\n".join(columns(rows, ("interface", "length", "separation on held-out inputs")))

    def plot(self, path: Path | None = None) -> Any:
        """Plot the separation by depth; written to ``path``, if given."""
        drawing, (axis,) = figure(1, 7.0, 3.4)
        numbers = list(range(len(self.rows)))
        axis.plot(numbers, [row.separation for row in self.rows], "o-")
        axis.axhline(0.5, color="gray", linestyle="--", label="chance")
        axis.set_xticks(numbers, [row.name for row in self.rows], rotation=60, ha="right")
        axis.set_ylabel("separation on held-out inputs")
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3)
        axis.legend()
        return keep(drawing, path)


def features(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return one vector for each row of mean values, float64."""
    return {name: value.flatten(1).double() for name, value in values.items()}
