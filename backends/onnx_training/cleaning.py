"""Removing what a trace does not need, before translation."""

from __future__ import annotations

import operator

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor, fake_value

_ATEN = torch.ops.aten
_SAME = {
    _ATEN.alias.default,
    _ATEN.clone.default,
    _ATEN.contiguous.default,
    _ATEN.detach.default,
    _ATEN.lift_fresh_copy.default,
}
_SHAPED = {
    _ATEN._to_copy.default,
    _ATEN._unsafe_view.default,
    _ATEN.expand.default,
    _ATEN.reshape.default,
    _ATEN.slice.Tensor,
    _ATEN.view.default,
}


def cleaned(traced: fx.GraphModule) -> fx.GraphModule:
    """Remove, in place, operations whose result equals their argument, and dead code.

    Views become ``reshape``, which holds for any strides: those of a decomposition may be others
    than those of the operation that it stands for.
    """
    for node in list(traced.graph.nodes):
        if node.target in _SAME or (node.target in _SHAPED and _same(node, node.args[0])):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
        elif node.target in (_ATEN.view.default, _ATEN._unsafe_view.default):
            node.target = _ATEN.reshape.default
        elif node.target is _ATEN.sym_numel.default:
            _write_out(node)
    traced.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    traced.recompile()
    return traced


def _write_out(count: fx.Node) -> None:
    """A number of entries as the product of the sizes, which ONNX has."""
    value = count.args[0]
    assert isinstance(value, fx.Node)
    product: int | fx.Node = 1
    with count.graph.inserting_before(count):
        for axis, size in enumerate(fake_value(value).shape):
            factor: int | fx.Node = size
            if not isinstance(size, int):
                factor = count.graph.call_function(_ATEN.sym_size.int, (value, axis))
                factor.meta["val"] = size
            joined = count.graph.call_function(operator.mul, (product, factor))
            joined.meta["val"] = _value(product) * size
            product = joined
    count.replace_all_uses_with(product)  # type: ignore[arg-type]  # a value has an axis here
    count.graph.erase_node(count)


def _value(size: int | fx.Node) -> int | torch.SymInt:
    found: int | torch.SymInt = fake_value(size) if isinstance(size, fx.Node) else size
    return found


def _same(node: fx.Node, before: fx.Node) -> bool:
    """Whether shape and dtype are those of the argument, at any size."""
    new, old = fake_tensor(node), fake_tensor(before)
    if new.dtype != old.dtype or new.ndim != old.ndim:
        return False
    return all(_equal(a, b) for a, b in zip(new.shape, old.shape, strict=True))


def _equal(one: int | torch.SymInt, other: int | torch.SymInt) -> bool:
    if isinstance(one, int) or isinstance(other, int):
        return isinstance(one, int) and isinstance(other, int) and one == other
    return bool(one.node.expr == other.node.expr)
