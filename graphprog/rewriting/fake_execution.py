"""Running operations on fake values, once per combination of types.

The layers of a model repeat the same operations on the same types, and a fake kernel with varying
sizes takes about a millisecond. Values of equal type are interchangeable, so they are shared.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from graphprog.ir.fake import fake_tensor
from graphprog.ir.sizes import expression
from graphprog.rewriting.edges import leaves_of


class FailedError(Exception):
    """An operation does not run on these values."""


def run_on(node: fx.Node, values: list[Any]) -> Any:
    """Run the operation of a node on other leaves than its own, with fake values.

    Raises:
        FailedError: the operation cannot take them.
    """
    tree = pytree.tree_structure((node.args, node.kwargs))
    args, kwargs = pytree.tree_unflatten(values, tree)
    assert callable(node.target)
    try:
        return node.target(*args, **kwargs)
    except Exception as error:  # operations raise exceptions of every kind
        raise FailedError(str(error)) from error


def read_values(node: fx.Node) -> list[Any]:
    """Return the leaves of a node's arguments, with the values of the nodes that it reads."""
    return [fake_tensor(leaf) if isinstance(leaf, fx.Node) else leaf for leaf in leaves_of(node)]


class Kernels:
    """Cached fake kernels; used inside :func:`graphprog.rewriting.fake_tracing.running`."""

    def __init__(self) -> None:
        self._results: dict[Any, Any] = {}
        self._types: dict[int, tuple[Any, Any]] = {}

    def run(self, node: fx.Node) -> Any:
        """Compute the value of a node by running its operation on the values that it reads."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda inner: fake_tensor(inner))
        # as in an executable graph: rewritten values may have other strides
        viewing = node.target is torch.ops.aten.view.default
        target: Any = torch.ops.aten.reshape.default if viewing else node.target
        leaves, tree = pytree.tree_flatten((args, kwargs))
        key = (node.target, str(tree), *map(self._type, leaves))
        if None in key:
            return target(*args, **kwargs)
        if key not in self._results:
            self._results[key] = target(*args, **kwargs)
        return self._results[key]

    def _type(self, value: Any) -> Any:
        """Return what determines the type of the result; None if the value itself does."""
        if not isinstance(value, torch.Tensor):
            symbolic = isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool)
            return (type(value), expression(value) if symbolic else value)
        known = self._types.get(id(value))
        if known is None:
            constant = getattr(value, "constant", None) is not None
            known = (value, None if constant else _layout(value))  # keeps the value, and so its id
            self._types[id(value)] = known
        return known[1]


def kernels_of(mode: FakeTensorMode) -> Kernels:
    """Return the cached kernels that all graphs of one capture share; they live with its mode."""
    kernels: Kernels = vars(mode).setdefault("graphprog_kernels", Kernels())
    return kernels


def _layout(value: torch.Tensor) -> tuple[Any, ...]:
    sizes = tuple(map(expression, value.shape))
    return (value.dtype, value.device, sizes, tuple(map(expression, value.stride())))
