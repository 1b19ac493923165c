"""Operations of a graph: their names, and where their values come from."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from graphprog.ir.memory.packed import tensor_at
from graphprog.ir.sizes import same_size
from graphprog.ir.weights import Weights

RESHAPES = frozenset({"aten::view", "aten::reshape", "aten::_unsafe_view", "aten::unflatten"})
"""Operations that take the shape of their result as an argument."""

REGROUPS = RESHAPES | {"aten::flatten"}
"""Operations that keep the order of the elements."""

VIEWS = REGROUPS | {"aten::expand"}

CASTS = frozenset({"aten::to", "aten::_to_copy", "aten::clone", "aten::contiguous", "aten::detach"})

_LIKE = {f"aten::{name}_like" for name in ("zeros", "ones", "full", "empty", "rand", "randn")}


def schema_name(node: fx.Node) -> str:
    """Return a name such as ``aten::relu``; empty if the node does not call an operator."""
    target = node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else ""


def bound(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of an operator by name, with defaults."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {}
    found = {}
    for number, argument in enumerate(node.target._schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        given = node.args[number] if number < len(node.args) else default
        found[argument.name] = node.kwargs.get(argument.name, given)
    return found


def sources_of(node: fx.Node) -> list[fx.Node]:
    """Return what values or shape of a result depend on; ``x.new_ones(4)`` takes only x's dtype."""
    typed = schema_name(node).startswith("aten::new_")
    return [part for part in node.all_input_nodes if not (typed and part is node.args[0])]


def values_of(node: fx.Node) -> list[fx.Node]:
    """Return what the values of a result depend on.

    ``zeros_like(x)`` and ``y.view_as(x)`` take only x's shape.
    """
    name = schema_name(node)
    like = node.args[0] if name in _LIKE else node.args[1] if name.endswith("_as") else None
    kept = node.args[0] if name.endswith("_as") else None
    return [part for part in sources_of(node) if part is not like or part is kept]


def ancestors(
    node: fx.Node,
    parts: Callable[[fx.Node], Iterable[fx.Node]] = operator.attrgetter("all_input_nodes"),
) -> list[fx.Node]:
    """Return a node and all nodes that it is computed from.

    Args:
        node: the node to begin with.
        parts: returns the operands of a node.
    """
    found, stack = {node: None}, [node]
    while stack:
        fresh = [part for part in parts(stack.pop()) if part not in found]
        found.update(dict.fromkeys(fresh))
        stack += fresh
    return list(found)


def number_of(value: Any, weights: Weights) -> float | None:
    """Return the constant that an argument is for any inputs; None if it is not constant.

    Args:
        value: a number, or a node of one entry that is computed from the model's own tensors.
        weights: the tensors.
    """
    if isinstance(value, int | float):
        return float(value)
    found = _computed(value, weights) if isinstance(value, fx.Node) else None
    return None if found is None else float(found.item())


def _computed(node: fx.Node, weights: Weights) -> torch.Tensor | None:
    """Compute a node that does not depend on inputs, if all its ancestors have one entry."""
    value = node.meta.get("val")
    single = isinstance(value, torch.Tensor) and all(same_size(size, 1) for size in value.shape)
    if not single or node.op == "placeholder":
        return None
    if node.op == "get_attr":
        return tensor_at(weights, str(node.target))
    parts = {part: _computed(part, weights) for part in node.all_input_nodes}
    target = node.target
    random = torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())
    if random or any(part is None for part in parts.values()) or not callable(target):
        return None
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), parts.__getitem__)
    with torch.no_grad():
        result: torch.Tensor = target(*args, **kwargs)
    return result
