"""The meaning of inputs other than tokens: presence, types, positions or data."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import schema_name

_COMPARES = {"aten::eq", "aten::ne"}
_ORDERS = {"aten::gt", "aten::ge", "aten::lt", "aten::le"}
_ADDS = {"aten::add", "aten::add_", "aten::scaled_dot_product_attention"}
_SAME_VALUE = {
    *("aten::view", "aten::reshape", "aten::to", "aten::_to_copy", "aten::unsqueeze"),
    *("aten::expand", "aten::slice", "aten::cat", "aten::constant_pad_nd", "aten::clone"),
}
_LOOKS_UP = {"aten::embedding", "aten::index_select", "aten::embedding_bag"}


def inferred_meaning(node: fx.Node) -> str:
    """Infer the meaning of an input from its uses in the graph.

    Returns:
        ``present`` or ``zero``; empty if the graph does not determine it.
    """
    value = fake_tensor(node)
    if value.dtype == torch.bool:
        return "present"
    if any(schema_name(user) == "aten::diff" for user in _readers(node)):
        return ""  # neither presence nor types increase by steps
    if not value.dtype.is_floating_point:
        return "zero" if _looked_up(node) else "present"
    added = {schema_name(user) for user in _readers(node)} <= _ADDS
    return "zero" if added else ""


def _readers(node: fx.Node) -> list[fx.Node]:
    """Return the readers of a value, also in another shape."""
    found: list[fx.Node] = []
    stack = list(node.users)
    while stack:
        user = stack.pop()
        if schema_name(user) in _SAME_VALUE:
            stack += user.users
        elif isinstance(user.meta.get("val"), torch.Tensor):
            found.append(user)
    return found


def compared_with(node: fx.Node) -> list[int]:
    """Return the numbers that an input is compared with, such as the id of padding."""
    readers = [user for user in _readers(node) if schema_name(user) in _COMPARES]
    return sorted({user.args[1] for user in readers if isinstance(user.args[1], int)})


def _looked_up(node: fx.Node) -> bool:
    return any(schema_name(user) in _LOOKS_UP for user in _readers(node))


def neutral_entry(node: fx.Node, meaning: str) -> Any:
    """Return the value of an input at inserted entries."""
    if meaning == "present":
        return True if fake_tensor(node).dtype == torch.bool else 1
    if fake_tensor(node).dtype.is_floating_point:
        return 0.0
    # an id that the model compares with, such as the one of padding, would be taken for it
    special: set[Any] = set(compared_with(node))
    for user in _readers(node):  # whether it is more than 0, say, asks for padding as well
        if schema_name(user) in _ORDERS and user.args[1] in (0, 1):
            special |= {0, user.args[1]}
    return next(number for number in range(len(special) + 1) if number not in special)
