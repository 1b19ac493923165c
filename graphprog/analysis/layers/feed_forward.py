"""Feed-forward networks: two affine layers around an activation, added to the residual stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from torch import fx

from graphprog.analysis.layers.affine import AffineLayer, layers_behind
from graphprog.ir.ops import CASTS, RESHAPES, ancestors, schema_name, values_of

FEED_FORWARD = ("up_proj", "gate_proj", "gate_up_proj", "down_proj")

_SUMS = ("aten::add", "aten::add_")
_LINEAR = (
    CASTS
    | RESHAPES
    | {"aten::add", "aten::transpose", "aten::permute", "aten::flatten", "aten::dropout"}
    | {"aten::squeeze", "aten::unsqueeze", "aten::alias", "aten::layer_norm", "aten::expand"}
)
_SPLITS = ("aten::chunk", "aten::split", "aten::split_with_sizes", "aten::slice")


@dataclasses.dataclass(frozen=True)
class FeedForward:
    """A feed-forward network of affine layers.

    Attributes:
        up: the first layer; the one without an activation if there are two.
        down: the last layer.
        gate: the first layer whose result an activation gates; None without one.
        is_fused: whether ``up`` also computes the gate.
    """

    up: AffineLayer
    down: AffineLayer
    gate: AffineLayer | None = None
    is_fused: bool = False

    @property
    def layers(self) -> dict[str, AffineLayer]:
        """The layers by name, one of :data:`FEED_FORWARD`."""
        found = {"gate_up_proj" if self.is_fused else "up_proj": self.up, "down_proj": self.down}
        return found if self.gate is None else {**found, "gate_proj": self.gate}


def feed_forwards(code: fx.Graph, active: Collection[fx.Node]) -> list[FeedForward]:
    """Find the feed-forward networks of a graph, in order.

    The first layers, at most two, read one value. Their results go through an activation to the
    last layer alone, whose result is added to a value from which their input was computed.
    """
    found = []
    for node in code.nodes:
        down = AffineLayer.of(node)
        if down is None:
            continue
        first, between, mixing = layers_behind(down.input, active)
        if mixing is not None or len({layer.input for layer in first}) != 1 or len(first) > 2:
            continue
        if all(schema_name(one) in _LINEAR for one in between):
            continue
        if _is_added(down, first[0].input, active):
            found.append(_sorted(first, down, between))
    return found


def _is_added(down: AffineLayer, value: fx.Node, active: Collection[fx.Node]) -> bool:
    """Whether the result of a layer is added to what a value is computed from."""
    before = {*ancestors(value, values_of)}
    waiting, seen = [*down.output.users], {down.output}
    while waiting:
        node = waiting.pop()
        others = [part for part in values_of(node) if part in active and part not in seen]
        if schema_name(node) in _SUMS:
            if not before.isdisjoint(others):
                return True
        elif others or node.op != "call_function" or AffineLayer.of(node):
            continue
        if node not in seen:
            seen.add(node)
            waiting += node.users
    return False


def _sorted(first: list[AffineLayer], down: AffineLayer, between: list[fx.Node]) -> FeedForward:
    inside = {*between}
    if len(first) == 1:
        users = [user for user in first[0].output.users if user in inside]
        splits = [user for user in users if schema_name(user) in _SPLITS]
        return FeedForward(first[0], down, is_fused=bool(splits) and len(splits) == len(users))
    gated = [layer for layer in first if _is_activated(layer, inside)]
    gate = gated[0] if len(gated) == 1 else first[0]
    up = next(layer for layer in first if layer is not gate)
    return FeedForward(up, down, gate)


def _is_activated(layer: AffineLayer, inside: Collection[fx.Node]) -> bool:
    """Whether an activation, instead of the product with the other layer, reads a result."""
    before = {*ancestors(layer.output, values_of)}
    for user in layer.output.users:
        operands = [part for part in values_of(user) if part in inside or part is layer.output]
        if user in inside and before.issuperset(operands) and schema_name(user) not in _LINEAR:
            return True
    return False
