"""Values that do not depend on data: constant numbers, and integers that count entries."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import CASTS, VIEWS, ancestors, schema_name, values_of

_COPIES = CASTS | VIEWS | {"aten::unsqueeze", "aten::lift_fresh_copy"}


def number_in(value: Any) -> float | None:
    """Return a number, or the number that fills a value; None if it is not one."""
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, fx.Node):
        return None
    filled = {"aten::full": 1, "aten::full_like": 1, "aten::scalar_tensor": 0}
    if (name := schema_name(value)) in filled:
        return number_in(value.args[filled[name]])
    if name in ("aten::zeros", "aten::zeros_like", "aten::ones", "aten::ones_like"):
        return float("ones" in name)
    return number_in(value.args[0]) if name in _COPIES else None


def is_constant(node: Any) -> bool:
    """Whether a value does not depend on the values of inputs."""
    parts = ancestors(node, values_of) if isinstance(node, fx.Node) else []
    return not any(part.op == "placeholder" for part in parts)


def counts_entries(position: fx.Node) -> bool:
    """Whether integers count entries and are not data."""
    stack = [position]
    while stack:
        node = stack.pop()
        if node.op in ("placeholder", "get_attr"):
            return False
        stack += [
            part for part in node.all_input_nodes if isinstance(fake_tensor(part), torch.Tensor)
        ]
    return True
