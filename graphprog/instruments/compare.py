"""Comparing two models interface by interface: where and how much their values differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import InterfaceError
from graphprog.instruments.places import Inputs, Model, Places, flat_inputs, graph_of, places_of
from graphprog.ir.graph import Graph
from graphprog.ir.interface import Interface
from graphprog.rewriting.effects import require_computed
from graphprog.utils.columns import columns
from graphprog.utils.numerics import difference, wide
from graphprog.utils.plots.figures import Path, figure, keep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LARGEST = 8192
"""Rows, or features, up to which their alignment is computed: products of all pairs are kept."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """How the values of two models differ at one interface.

    Attributes:
        name: the interface.
        absolute: largest absolute difference; infinite if shapes differ.
        relative: largest absolute difference, as a share of the largest magnitude in the first.
        cosine: cosine of the two values, over all their entries; None if shapes differ.
        cka: linear centered kernel alignment over the rows (Kornblith et al., 2019,
            arXiv:1905.00414): 1 if one is a rotation of the other. None for a single row, and
            for more than 8,192 rows of as many features.
    """

    name: str
    absolute: float
    relative: float
    cosine: float | None
    cka: float | None

    def within(self, tolerance: float) -> bool:
        """Whether the absolute or the relative difference is within the tolerance."""
        return min(self.absolute, self.relative) <= tolerance


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of two models; prints as a table.

    Attributes:
        rows: one for each interface, in the order of the first model.

    Example:
        >>> comparison = gp.compare(graph, task, images, at="hidden[*]")
        >>> comparison.rows[0].name, comparison.parts_at(1e-6)  # its pattern is still zero
        ('hidden[0]', None)
    """

    rows: tuple[Compared, ...]

    def parts_at(self, tolerance: float) -> str | None:
        """Return the first interface whose relative difference is larger; None if there is none."""
        return next((row.name for row in self.rows if not row.relative <= tolerance), None)

    def __str__(self) -> str:
        rows = [
            (row.name, f"{row.relative:.2e}", _number(row.cosine), _number(row.cka))
            for row in self.rows
        ]
        return "\n".join(columns(rows, ("interface", "relative", "cosine", "CKA")))

    def plot(self, path: Path | None = None) -> Figure:
        """Plot difference and alignment by depth; written to ``path``, if given."""
        drawing, (axis,) = figure(1, 7.0, 3.6)
        numbers = range(len(self.rows))
        axis.plot(numbers, [row.relative for row in self.rows], "o-", label="relative difference")
        for label, values in (
            ("cosine", [row.cosine for row in self.rows]),
            ("CKA", [row.cka for row in self.rows]),
        ):
            axis.plot(
                numbers, [float("nan") if v is None else v for v in values], ".-", label=label
            )
        axis.set_xticks(list(numbers), [row.name for row in self.rows], rotation=60, ha="right")
        axis.set_xlabel("interface")
        axis.set_ylabel("difference, similarity")
        axis.grid(alpha=0.3)
        axis.legend()
        return keep(drawing, path)


class Runner(Protocol):
    """What runs elsewhere, such as :class:`graphprog.backends.onnxruntime.Session`."""

    def run(self, *inputs: torch.Tensor, outputs: Sequence[str]) -> Mapping[str, Any]:
        """Return the named values."""


def compare(
    first: Model, second: Model | Runner, inputs: Inputs, at: Places = "hidden[*]"
) -> Comparison:
    """Compare two models interface by interface on the same inputs.

    For two checkpoints, a source and its program, or two precisions: a session on a file of int8
    that returns the interfaces is the second model, too.

    Args:
        first: a graph or compiled model.
        second: likewise, with the same interfaces; or a session with outputs of their names.
        inputs: inputs of both, in order or by name.
        at: the interfaces to compare.

    Raises:
        DataError: the inputs do not fit.
        InterfaceError: an interface is not in both models, or comes after what the alignment of
            a program reads.

    Example:
        >>> comparison = gp.compare(graph, graph, images)
        >>> assert comparison.parts_at(0.0) is None
    """
    graph = graph_of(first, at)
    places, flat = places_of(graph, at), flat_inputs(graph, inputs)
    require_computed(graph, places)
    keys = [place.key for place in places.values()]
    values = graph.evaluate(keys, flat).values()
    if isinstance(second, Graph | ReprogrammedModel):
        found = _values_of(graph_of(second, at), places, inputs)
    else:
        results = second.run(*flat, outputs=[*places])
        found = [results[name] for name in places]
    return Comparison(tuple(map(compare_values, places, values, found)))


def _values_of(graph: Graph, places: Mapping[str, Interface], inputs: Inputs) -> list[torch.Tensor]:
    table = graph.interfaces()
    missing = [name for name, place in places.items() if place.key not in table]
    if missing:
        raise InterfaceError(
            f"the second model has no {', '.join(missing[:4])}",
            ["compare interfaces that both have: at=[...]"],
        )
    require_computed(graph, {name: table[place.key] for name, place in places.items()})
    keys = [place.key for place in places.values()]
    return [*graph.evaluate(keys, flat_inputs(graph, inputs)).values()]


def compare_values(name: str, value: Any, other: Any) -> Compared:
    """Compare a value with that of another model.

    Args:
        name: of the interface or output.
        value: tensor or array, the reference.
        other: likewise.
    """
    left, right = (torch.tensor(wide(one)) for one in (value, other))
    cosine = None
    if left.shape == right.shape:
        cosine = float(torch.cosine_similarity(left.flatten(), right.flatten(), dim=0))
    cka = None
    if left.ndim and right.ndim and len(left) == len(right) > 1:
        cka = _alignment(left.flatten(1), right.flatten(1)) if left.ndim > 1 < right.ndim else None
    gap = difference(left, right)
    return Compared(name, gap.absolute, gap.relative, cosine, cka)


def _alignment(left: torch.Tensor, right: torch.Tensor) -> float | None:
    """Return the linear centered kernel alignment of two sets of rows; None if one is constant.

    It is that of products of rows, and of products of features: the fewer ones are taken.
    """
    left, right = (rows - rows.mean(0) for rows in (left, right))
    features = max(left.shape[1], right.shape[1])
    if min(len(left), features) > _LARGEST:
        return None
    if len(left) <= features:
        grams = left @ left.T, right @ right.T
        product = float((grams[0] * grams[1]).sum())
    else:
        grams = left.T @ left, right.T @ right
        product = float((left.T @ right).square().sum())
    scale = float(grams[0].norm() * grams[1].norm())
    return product / scale if scale else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
