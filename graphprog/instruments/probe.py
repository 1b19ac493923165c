"""Linear probes: how well a linear classifier reads labels from each interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graphprog.alignments.linear import LinearHead
from graphprog.compiler.compile import compile as compile_program
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import DataError, ProgramError
from graphprog.instruments.places import Model, Places, graph_of
from graphprog.instruments.recording import Recording
from graphprog.instruments.stream import progress_bar
from graphprog.utils.columns import columns
from graphprog.utils.plots.figures import Path, figure, keep

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Probed:
    """The probe of one interface.

    Attributes:
        name: the interface.
        accuracy: mean accuracy on the held-out folds.
        deviation: standard deviation over the folds.
        control: the same for permuted labels; accuracy minus control is the selectivity (Hewitt and
            Liang, 2019, arXiv:1909.03368).
        weight: [K, F] of the probe that was fitted to all rows.
        bias: [K].
    """

    name: str
    accuracy: float
    deviation: float
    control: float
    weight: torch.Tensor = dataclasses.field(repr=False, compare=False)
    bias: torch.Tensor = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Probes:
    """Probes of several interfaces; prints as a table.

    Attributes:
        rows: one for each interface, in the order of the recording.
        recording: what they were fitted to.

    Example:
        >>> recording = gp.record(graph, images, at="hidden[*]", reduce="mean", to="activations")
        >>> probes = gp.probe(recording, torch.tensor([0, 1, 0, 1]), folds=2)
        >>> task = probes.compile(graph, "hidden[1]")
    """

    rows: tuple[Probed, ...]
    recording: Recording | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def best(self) -> Probed:
        """The probe with the highest accuracy on held-out folds."""
        return max(self.rows, key=lambda row: row.accuracy)

    def compile(self, model: Model, name: str | None = None) -> ReprogrammedModel:
        """Make a probe the linear head of a compiled model.

        Values with several axes are averaged, as ``reduce="mean"`` does; probes of values recorded
        otherwise fit only where the value is [B, F].

        Args:
            model: the graph or compiled model of the recording; the program of the latter is kept,
                but for its alignment.
            name: the interface; by default that of the best probe.

        Raises:
            DataError: there is no probe of this name.
            FileError: the recording was made with another graph or other weights.
            InterfaceError: the graph has no such interface.
        """
        known = {row.name: row for row in self.rows}
        row = self.best if name is None else known.get(name)
        if row is None:
            raise DataError(
                f"there is no probe of {name!r}", [", ".join(r.name for r in self.rows)]
            )
        graph = graph_of(model)
        if self.recording is not None:
            self.recording.require(graph)
        pooled = len(graph.interfaces().resolve(row.name).shape) > 2
        head = LinearHead(len(row.bias), at=row.name, pool="mean" if pooled else "none")
        state = {"program.align.weight": row.weight, "program.align.bias": row.bias}
        if isinstance(model, ReprogrammedModel):
            program = dataclasses.replace(model.spec, align=head)
            task = compile_program(model.base, program, model.seed)
            kept = model.program_state()
            state |= {key: kept[key] for key in task.program_state() if key not in state}
        else:
            task = compile_program(graph, Program(align=head))
        task.load_program_state(state)
        return task

    def boundary(self, name: str) -> tuple[torch.Tensor, float]:
        """Return w [F] and b of a probe of two classes: it says 1 where ``w·h + b > 0``.

        Raises:
            ProgramError: there is no probe of this name, or it has more classes.
        """
        row = next((row for row in self.rows if row.name == name), None)
        if row is None or len(row.bias) != 2:
            raise ProgramError(
                f"there is no probe of two classes at {name}",
                [f"there are probes at {[row.name for row in self.rows]}"],
            )
        return row.weight[1] - row.weight[0], float(row.bias[1] - row.bias[0])

    def __str__(self) -> str:
        rows = [
            (row.name, f"{row.accuracy:.3f} ± {row.deviation:.3f}", f"{row.control:.3f}")
            for row in self.rows
        ]
        return "\n".join(columns(rows, ("interface", "accuracy", "control")))

    def plot(self, path: Path | None = None) -> Figure:
        """Plot accuracy and control by depth; written to ``path``, if given."""
        drawing, (axis,) = figure(1, 7.0, 3.6)
        numbers = list(range(len(self.rows)))
        mean = [row.accuracy for row in self.rows]
        axis.errorbar(
            numbers, mean, [row.deviation for row in self.rows], fmt="o-", label="labels", capsize=3
        )
        axis.plot(numbers, [row.control for row in self.rows], "s--", label="permuted labels")
        axis.set_xticks(numbers, [row.name for row in self.rows], rotation=60, ha="right")
        axis.set_ylabel("accuracy on held-out folds")
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3)
        axis.legend()
        return keep(drawing, path)


def probe(
    recording: Recording,
    labels: torch.Tensor | Sequence[int] | None = None,
    at: Places | None = None,
    *,
    folds: int = 5,
    strength: float = 1.0,
    seed: int = 0,
    progress: bool | None = None,
) -> Probes:
    """Fit a linear probe to the values at each interface of a recording.

    A probe is a logistic regression on standardized values, cross-validated in stratified folds, by
    scikit-learn. Its control is the same with permuted labels.

    Args:
        recording: values that :func:`graphprog.record` wrote; with several axes they are flattened,
            so record with ``reduce="mean"`` or ``positions="last"``.
        labels: class of every row; by default the labels of the recording.
        at: names of the recording; by default all of them.
        folds: number of folds.
        strength: inverse of the regularization, scikit-learn's ``C``.
        seed: of the folds and of the permutation.
        progress: whether to show a bar; None shows it on a terminal.

    Raises:
        DataError: there are no labels, or not one for each row, or fewer rows of a class than
            folds; or a name is not in the recording.

    Example:
        >>> recording = gp.record(graph, images, at="features", to="activations")
        >>> probes = gp.probe(recording, torch.tensor([0, 1, 0, 1]), folds=2)
        >>> assert probes.best.name == "features"
    """
    targets = _targets(recording, labels, folds)
    chosen = [name for name in recording if name in recording.keys_of_interfaces]
    if at is not None:
        chosen = [at] if isinstance(at, str) else [*at]
    unknown = [name for name in chosen if name not in recording]
    if unknown:
        raise DataError(f"the recording has no {', '.join(unknown)}", [f"it has {[*recording]}"])
    rows = []
    for name in progress_bar(chosen, len(chosen), "probing", progress):
        values = recording[name].tensor().flatten(1).double().numpy()
        rows.append(_probed(name, values, targets, folds, strength, seed))
    return Probes(tuple(rows), recording)


def _targets(recording: Recording, labels: Any, folds: int) -> np.ndarray:
    if labels is None:
        if "labels" not in recording:
            raise DataError("the recording has no labels", ["pass labels="])
        labels = recording["labels"].tensor()
    targets = np.asarray(labels)
    if targets.shape != (recording.rows,):
        raise DataError(
            f"labels have shape {targets.shape}; {recording.rows} are needed, one for each row"
        )
    classes, counts = np.unique(targets, return_counts=True)
    if len(classes) < 2 or not np.array_equal(classes, np.arange(len(classes))):
        raise DataError("labels must be classes 0, 1, …, at least two")
    if folds < 2 or counts.min() < folds:
        raise DataError(
            f"class {classes[counts.argmin()]} has {counts.min()} rows, fewer than {folds} folds",
            ["record more rows, or pass fewer folds, at least 2"],
        )
    return targets


def _probed(
    name: str, values: np.ndarray, targets: np.ndarray, folds: int, strength: float, seed: int
) -> Probed:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    scores = cross_val_score(model, values, targets, cv=parts)
    permuted = np.random.default_rng(seed).permutation(targets)
    control = cross_val_score(model, values, permuted, cv=parts)
    model.fit(values, targets)
    scaler, regression = model[0], model[1]
    weight, bias = regression.coef_, regression.intercept_
    if len(bias) == 1:  # two classes: the logit of the second against the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    bias = bias - weight @ scaler.mean_
    return Probed(
        name,
        float(scores.mean()),
        float(scores.std()),
        float(control.mean()),
        torch.from_numpy(weight).float(),
        torch.from_numpy(bias).float(),
    )
