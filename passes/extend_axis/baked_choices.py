"""Choices baked into a graph: paddings and windows that Python computed from a length.

Such a choice is not an operation in the graph, but at another length it would be different.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import schema_name
from graphprog.ir.sizes import Size, is_symbolic, same_size
from graphprog.passes.extend_axis.context import Context
from graphprog.rewriting.edges import leaves_of
from graphprog.rewriting.refusal import RefusalError

_PADS = {"aten::pad", "aten::constant_pad_nd"}


def refuse_baked_choice(context: Context, node: fx.Node) -> None:
    """Refuse an operation whose numbers suggest that they depend on the length.

    Raises:
        RefusalError: it pads up to a length, pads to a multiple of a stride, or cuts into windows
            that no longer fit.
    """
    name = schema_name(node)
    if name in _PADS and context.axis.symbolic:
        _refuse_cropping(context, node)
    elif name in _PADS:
        _refuse_uneven(context, node)
    elif name == "aten::im2col" and not context.axis.symbolic:
        _refuse_remainder(context, node)


def _refuse_cropping(context: Context, node: fx.Node) -> None:
    """Refuse to pad less the longer the axis is: beyond the length padded up to, it would crop."""
    for leaf in leaves_of(node):
        amount = context.old_value(leaf) if isinstance(leaf, fx.Node) else None
        if is_symbolic(amount) and context.axis.growth(amount).is_negative:
            raise RefusalError(node, "it pads up to a length that does not grow with the axis")


def _refuse_uneven(context: Context, node: fx.Node) -> None:
    """Refuse one entry more after than before, as convolutions pad to a multiple of a stride."""
    amounts: Any = node.args[1]
    old, new = _lengths(context, node)
    for pair in range(len(amounts) // 2):
        first, last = amounts[2 * pair : 2 * pair + 2]
        moves = not same_size(old[-1 - pair], new[-1 - pair])
        if moves and isinstance(first, int) and isinstance(last, int) and last - first == 1:
            raise RefusalError(
                node,
                f"whether padding by {first} and {last} was chosen for this length cannot be "
                "determined (let it vary)",
            )


def _refuse_remainder(context: Context, node: fx.Node) -> None:
    """Refuse windows that covered an axis and would leave out its last entries."""
    windows, dilations, paddings, strides = node.args[1:5]
    old, new = _lengths(context, node)
    for dim in (-2, -1):
        one, gap, pad, stride = (
            int(numbers[dim])  # type: ignore[index, arg-type]
            for numbers in (windows, dilations, paddings, strides)
        )
        before, after = (
            (size[dim] + 2 * pad - gap * (one - 1) - 1) % stride for size in (old, new)
        )
        if before == 0 and after != 0:
            raise RefusalError(node, f"windows of {one} do not cover the longer axis")


def _lengths(context: Context, node: fx.Node) -> tuple[list[Size], list[Size]]:
    """Return the sizes of a node's operands, before and after."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return list(context.old_value(source).shape), list(fake_tensor(source).shape)
