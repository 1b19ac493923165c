"""Cost of the operations of a graph, at the sizes of its capture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from graphprog.ir.fake import fake_value


def flops_of(code: fx.Graph) -> Mapping[str, int]:
    """Count the floating-point operations of every node, by PyTorch's own counter.

    It counts products (matrices, convolutions, attention), two for each multiplication and
    addition; elementwise operations count as 0.
    """
    known: dict[Any, int] = {}
    found = {}
    for node in code.nodes:
        if node.op == "call_function":
            call = pytree.tree_map(_on_meta, (node.args, node.kwargs))
            alike = (node.target, str(pytree.tree_map_only(torch.Tensor, _kind, call)))
            if alike not in known:
                known[alike] = _flops(node.target, *call)
            found[node.name] = known[alike]
    return found


def _kind(value: torch.Tensor) -> tuple[torch.Size, torch.dtype]:
    return value.shape, value.dtype


def _flops(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    if not isinstance(target, torch._ops.OpOverload):
        return 0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        try:
            target(*args, **kwargs)
        except (NotImplementedError, RuntimeError):  # its shape depends on data: no product does
            return 0
    return int(counter.get_total_flops())


def example_size(size: Any) -> Any:
    """Return the size that an axis had at capture, or has with the entries that a program added.

    A size that depends on data is 1.
    """
    if not isinstance(size, torch.SymInt | torch.SymFloat):
        return size
    environment, found = size.node.shape_env, size.node.expr
    make = environment.create_symfloatnode
    if isinstance(size, torch.SymInt):
        make = environment.create_symintnode
    again = make(found, hint=None)  # the hint that a size keeps may be that of a stand-in
    hint = again.node.hint if isinstance(again, torch.SymInt | torch.SymFloat) else again
    return 1 if hint is None else hint


def _on_meta(leaf: Any) -> Any:
    """Replace a node by a tensor without data, or by the number that it was at capture."""
    if not isinstance(leaf, fx.Node):
        return torch.device("meta") if isinstance(leaf, torch.device) else leaf
    return pytree.tree_map(_tensor_on_meta, fake_value(leaf))


def _tensor_on_meta(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return example_size(value)
    shape = [example_size(size) for size in value.shape]
    return torch.empty(shape, dtype=value.dtype, device="meta")
