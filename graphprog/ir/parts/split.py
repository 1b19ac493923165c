"""Splitting a graph into parts of about equal cost, which run one after another."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.errors import ProgramError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.parts.cost import flops_of
from graphprog.ir.parts.cut import activations, bytes_of, input_name
from graphprog.ir.records import Site

_EVEN = 1.25
"""Parts are even if the largest costs at most this many times the mean."""


class Runnable(Protocol):
    """A part: a graph with named inputs and outputs."""

    @property
    def call_spec(self) -> CallSpec:
        """Names of the inputs."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""

    def run(self, flat: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        """Run on the flat inputs."""


PartType = TypeVar("PartType", bound=Runnable)


class Parts(tuple[PartType, ...]):
    """The parts of a graph, in order; called like the whole, they give the same result.

    Each part is a graph. Its inputs are outputs of earlier parts, or inputs of the whole, by name.
    """

    _call_spec: CallSpec
    _out_spec: pytree.TreeSpec
    _results: tuple[Any, ...]

    @classmethod
    def of(
        cls,
        parts: Iterable[PartType],
        call_spec: CallSpec,
        out_spec: pytree.TreeSpec,
        results: tuple[Any, ...],
    ) -> Parts[PartType]:
        """Make parts of a whole with these specs; results are names of values, or constants."""
        made = cls(parts)
        made._call_spec, made._out_spec, made._results = call_spec, out_spec, results
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run all parts, with the arguments and results of the whole."""
        flat = self._call_spec.bind(args, kwargs)
        values: dict[Any, Any] = dict(zip(self._call_spec.inputs, flat, strict=True))
        for part in self:
            found = part.run([values[name] for name in part.call_spec.inputs])
            values.update(zip(part.outputs, found, strict=True))
        results = [values[one.name] if isinstance(one, Result) else one for one in self._results]
        return pytree.tree_unflatten(results, self._out_spec)


@dataclasses.dataclass(frozen=True)
class Result:
    """A result that is a value of a part, or an input of the whole, by name."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Boundary:
    """A place between two operations, and the activations that cross it.

    Attributes:
        position: of the last operation before it.
        cost: floating-point operations before it.
        values: names of the activations, by node.
    """

    position: int
    cost: int
    values: Mapping[fx.Node, str]

    @property
    def bytes(self) -> int:
        """Bytes of the activations, at the sizes of the capture."""
        return sum(bytes_of(node.meta["val"]) for node in self.values)


def boundaries(
    code: fx.Graph, sites: Mapping[str, Site], aliases: Mapping[str, str], count: int
) -> list[Mapping[fx.Node, str]]:
    """Choose where to split a graph: ``count - 1`` boundaries, each the activations that cross it.

    Boundaries lie where few activations cross and all of them are interfaces. Of these, the
    costliest part costs the least.

    Raises:
        ProgramError: there are too few such places.
    """
    if count < 1:
        raise ProgramError(f"a graph is split in 1 part or more, not {count}")
    places = _places(code, sites, aliases)
    total = sum(flops_of(code).values())
    best: tuple[int, list[_Boundary]] | None = None
    for width in sorted({len(place.values) for place in places} or {1}):
        allowed = [place for place in places if len(place.values) <= width]
        found = _cheapest(allowed, total, count)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
        if best is not None and best[0] * count <= _EVEN * total:
            break
    if best is None:
        raise ProgramError(
            f"the graph cannot be split in {count} parts: it has {len(places)} places where all "
            "values that cross are interfaces",
            [f"ask for {len(places) + 1} parts at most"],
        )
    return [place.values for place in best[1]]


def _places(
    code: fx.Graph, sites: Mapping[str, Site], aliases: Mapping[str, str]
) -> list[_Boundary]:
    names: dict[str, str] = {}
    for alias, key in aliases.items():
        names.setdefault(sites[key].node, alias)
    for key, site in sites.items():
        if not key.startswith(("input:", "output:")):
            names.setdefault(site.node, key)
    costs, order = flops_of(code), {node: at for at, node in enumerate(code.nodes)}
    computed = activations(code)
    found, open_values, cost = [], {}, 0
    for node, position in order.items():
        cost += costs.get(node.name, 0)
        if node in computed:
            open_values[node] = max((order[user] for user in node.users), default=position)
        open_values = {one: last for one, last in open_values.items() if last > position}
        named = node in open_values and all(one.name in names for one in open_values)
        if named and any(user.op != "output" for user in node.users):
            found.append(_Boundary(position, cost, {one: names[one.name] for one in open_values}))
    return found


def _cheapest(
    places: Sequence[_Boundary], total: int, count: int
) -> tuple[int, list[_Boundary]] | None:
    """Return the cost of the costliest part, and the boundaries for which it is least.

    Of equal choices, the one with the fewest bytes at its boundaries.
    """
    Choice = tuple[int, int, list[_Boundary]]  # noqa: N806
    table: list[Choice | None] = [(place.cost, place.bytes, [place]) for place in places]
    for _ in range(count - 2):
        following: list[Choice | None] = []
        for at, place in enumerate(places):
            options = [
                (max(cost, place.cost - places[i].cost), size + place.bytes, [*chosen, place])
                for i, known in enumerate(table[:at])
                if known is not None
                for cost, size, chosen in [known]
            ]
            following.append(min(options, key=lambda one: one[:2], default=None))
        table = following
    if count == 1:
        return total, []
    ends = [
        (max(cost, total - place.cost), size, chosen)
        for known, place in zip(table, places, strict=True)
        if known is not None
        for cost, size, chosen in [known]
    ]
    if not ends:
        return None
    cost, _, chosen = min(ends, key=lambda one: one[:2])
    return cost, chosen


def steps_of(
    crossing: Sequence[Mapping[fx.Node, str]], results: Sequence[Any], outputs: Sequence[str]
) -> list[tuple[list[str], list[str]]]:
    """Return the interfaces from which each part starts, and those that it returns.

    Args:
        crossing: the boundaries.
        results: results of the graph: nodes or constants.
        outputs: their names.
    """
    last = {
        node: f"output:{name}"
        for node, name in zip(results, outputs, strict=True)
        if isinstance(node, fx.Node) and node.op != "placeholder"
    }
    edges: list[Mapping[fx.Node, str]] = [{}, *crossing, last]
    known: set[fx.Node] = set()
    found = []
    for before, after in itertools.pairwise(edges):
        fresh = [name for node, name in after.items() if node not in known]
        known |= set(after)
        found.append((list(before.values()), fresh))
    return found


def result_names(
    crossing: Sequence[Mapping[fx.Node, str]], results: Sequence[Any], outputs: Sequence[str]
) -> tuple[Any, ...]:
    """Return for each result the name of its value among inputs and parts, or the constant."""
    known = {node: input_name(name) for values in crossing for node, name in values.items()}
    found: list[Any] = []
    for node, name in zip(results, outputs, strict=True):
        if not isinstance(node, fx.Node):
            found.append(node)
        elif node.op == "placeholder":
            found.append(Result(str(node.target)))
        else:
            found.append(Result(known.get(node, input_name(f"output:{name}"))))
    return tuple(found)
