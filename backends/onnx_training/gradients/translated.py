"""Operations with a translation to ONNX, and replacements for the others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.onnx._internal.exporter._registration import ONNXRegistry

from graphprog.backends.onnx_training.gradients import activations, backward
from graphprog.backends.onnx_training.gradients.table import Table
from graphprog.errors import BackendError

TABLE = Table({**backward.TABLE, **activations.TABLE})

_INEXACT = (
    torch.ops.aten.nll_loss_forward.default,
    torch.ops.aten.nll_loss2d_forward.default,
)
"""Operations whose translations leave out what only their gradients read."""


@functools.cache
def _registry() -> ONNXRegistry:
    return ONNXRegistry.from_torchlib()


@functools.cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """Operation to a function of simpler ones, where ONNX has not the operation itself."""
    known = {**torch._decomp.decomposition_table, **torch.export.default_decompositions()}
    others = {
        operation: function
        for operation, function in known.items()
        if isinstance(operation, torch._ops.OpOverload)
        and (operation in _INEXACT or not _registry().is_registered(operation))
    }
    return {**others, **TABLE}


def traced(
    function: Callable[..., Any], values: Sequence[torch.Tensor], mode: str = "symbolic"
) -> fx.GraphModule:
    """Operations of a function, each simple enough for ONNX where that can be had.

    Args:
        function: of tensors to tensors; it may call autograd.
        values: examples; fake ones keep their sizes, which may vary.
        mode: of ``make_fx``; ``fake`` fixes the sizes of real examples.
    """
    options: dict[str, Any] = {"tracing_mode": mode, "_allow_non_fake_inputs": True}
    with torch.no_grad():
        found = make_fx(function, decompositions(), **options)(*values)
        if any(writes(node) for node in found.graph.nodes):  # autograd does, to save memory
            found = make_fx(torch.func.functionalize(found), decompositions(), **options)(*values)
    return found


def writes(node: fx.Node) -> bool:
    """Whether an operation changes its argument."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def require_translations(nodes: Iterable[fx.Node]) -> None:
    """Refuse operations that have no translation.

    Raises:
        BackendError: names all of them.
    """
    missing: dict[str, int] = {}
    for node in nodes:
        target = node.target
        if isinstance(target, torch._ops.OpOverload) and not _registry().is_registered(target):
            missing[str(target)] = missing.get(str(target), 0) + 1
    if missing:
        names = [f"{name} ({count} times)" for name, count in sorted(missing.items())]
        raise BackendError(
            "a training step needs operations that have no translation to ONNX: "
            + ", ".join(names),
            [
                "put the program after them: at a later interface, they are not differentiated",
                'gp.fit(task, data), whose engine is "pytorch"',
            ],
        )
