"""Affine layers in a graph: y = x Wᵀ + b, with a weight of the source."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from torch import fx

from graphprog.analysis.blocks.residual_stream import mixes
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import RESHAPES, ancestors, bound, schema_name, values_of
from graphprog.ir.sizes import same_size
from graphprog.rewriting.edges import Slot, uses_of

_TRANSPOSES = ("aten::t", "aten::transpose", "aten::permute", "aten::numpy_T")
_OPERANDS = {  # positions of input, weight and bias
    "aten::linear": (0, 1, 2),
    "aten::addmm": (1, 2, 0),
    "aten::mm": (0, 1, None),
    "aten::matmul": (0, 1, None),
}


@dataclasses.dataclass(frozen=True)
class AffineLayer:
    """An affine operation with weights of the source.

    Attributes:
        node: the operation.
        weight: the weight: a tensor of the source, or computed from one.
        bias: the bias, likewise; None without one.
        transposed: whether the weight is stored as [n, m] instead of [m, n].
        input: its input [..., n], before it is flattened to a matrix.
        reading: where it reads the input.
        output: its result [..., m], with the bias.
    """

    node: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    transposed: bool
    input: fx.Node
    reading: tuple[Slot, ...]
    output: fx.Node

    @classmethod
    def of(cls, node: fx.Node) -> AffineLayer | None:
        """Return the layer of an operation; None if it is not one."""
        positions = _OPERANDS.get(schema_name(node))
        if positions is None or len(fake_tensor(node).shape) < 2:
            return None
        given = [None if one is None else _argument(node, one) for one in positions]
        value, weight, bias = given
        if value is None or weight is None:
            return None
        weight, turned = _stored(weight)
        if fake_tensor(weight).ndim != 2 or not _is_constant(weight) or _is_constant(value):
            return None
        if bias is not None and not (fake_tensor(bias).ndim == 1 and _is_constant(bias)):
            return None
        transposed = turned == (schema_name(node) == "aten::linear")
        value, reading = _unflattened(node, value)
        output = _unflattened_result(node)
        if bias is None and positions[2] is None:
            output, bias = _with_bias(output)
        return cls(node, weight, bias, transposed, value, reading, output)


def layer_of(value: fx.Node) -> AffineLayer | None:
    """Return the affine layer whose result is a value; None if it is another operation's."""
    layers = [AffineLayer.of(node) for node in (value, *value.all_input_nodes)]
    return next((layer for layer in layers if layer and layer.output is value), None)


def layers_behind(
    value: fx.Node, active: Collection[fx.Node]
) -> tuple[list[AffineLayer], list[fx.Node], fx.Node | None]:
    """Find the affine layers that a value is computed from, with no layers between.

    Args:
        value: an activation.
        active: the activations of the graph.

    Returns:
        The layers; the operations between them and the value; and, if there is one, an operation
        between them that mixes entries, but is not an affine layer.
    """
    found: list[AffineLayer] = []
    between: list[fx.Node] = []
    stack, seen = [value], {value}
    while stack:
        node = stack.pop()
        if layer := AffineLayer.of(node):
            found.append(layer)
            continue
        if mixes(node):
            return found, between, node
        between.append(node)
        fresh = [part for part in values_of(node) if part in active and part not in seen]
        seen.update(fresh)
        stack += fresh
    return sorted(found, key=lambda layer: layer.node), between, None


def layer_after(value: fx.Node, active: Collection[fx.Node]) -> AffineLayer | None:
    """Find the affine layer that reads a value, with no other activations or layers between."""
    reached, waiting = {value}, sorted(value.users)
    while waiting:
        node = waiting.pop(0)
        operands = [part for part in values_of(node) if part in active]
        if node in reached or not operands or not reached.issuperset(operands):
            continue
        if layer := AffineLayer.of(node):
            return layer
        if mixes(node) or node.op != "call_function":
            continue
        reached.add(node)
        waiting = sorted({*waiting, *node.users})
    return None


def _argument(node: fx.Node, position: int) -> fx.Node | None:
    value = [*bound(node).values()][position]
    return value if isinstance(value, fx.Node) else None


def _stored(weight: fx.Node) -> tuple[fx.Node, bool]:
    """Return a weight as it is stored, and whether it is read transposed."""
    turned = False
    while schema_name(weight) in _TRANSPOSES and fake_tensor(weight).ndim == 2:
        turned = not turned if _swaps(weight) else turned
        (weight,) = weight.all_input_nodes
    return weight, turned


def _swaps(node: fx.Node) -> bool:
    if schema_name(node) == "aten::permute":
        return [axis % 2 for axis in node.args[1]] == [1, 0]  # type: ignore[union-attr, operator]
    if schema_name(node) == "aten::transpose":
        return node.args[1] % 2 != node.args[2] % 2  # type: ignore[operator]
    return True


def _is_constant(value: fx.Node) -> bool:
    """Whether a value is computed from tensors of the source alone."""
    return all(part.op != "placeholder" for part in ancestors(value))


def _unflattened(node: fx.Node, value: fx.Node) -> tuple[fx.Node, tuple[Slot, ...]]:
    """Return the input of a layer before it is flattened, and where that is read."""
    if schema_name(value) in RESHAPES and [*value.users] == [node]:
        (whole, *_) = value.all_input_nodes
        if _same_last(whole, value):
            return whole, ((value, 0),)
    return value, tuple(use for use in uses_of(value) if use[0] is node)


def _unflattened_result(node: fx.Node) -> fx.Node:
    """Return the result of a layer after it gets the shape of the input back."""
    users = [*node.users]
    if len(users) == 1 and schema_name(users[0]) in RESHAPES:
        flattened = fake_tensor(users[0]).ndim > fake_tensor(node).ndim == 2
        if flattened and _same_last(users[0], node):
            return users[0]
    return node


def _same_last(one: fx.Node, other: fx.Node) -> bool:
    return same_size(fake_tensor(one).shape[-1], fake_tensor(other).shape[-1])


def _with_bias(output: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """Return the sum of a result and a bias, and the bias, where one is added to it."""
    users = [*output.users]
    if len(users) == 1 and schema_name(users[0]) == "aten::add":
        for part in users[0].all_input_nodes:
            if part.op == "get_attr" and fake_tensor(part).ndim == 1 and _same_last(part, output):
                return users[0], part
    return output, None
