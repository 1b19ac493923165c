"""The loss of a task as an exported program, which a training step differentiates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from graphprog.backends.onnx_model.export_program import output_nodes
from graphprog.backends.onnx_training.gradients.attention import attention
from graphprog.backends.onnx_training.gradients.translated import writes
from graphprog.backends.onnx_training.layout import Layout
from graphprog.backends.parity.report import Inputs
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError
from graphprog.passes.selection.push_down import push_down_selection
from graphprog.train.objective import Loss

_aten = torch.ops.aten


def _pooled(value: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """``adaptive_avg_pool2d``; where it is a mean, ATen writes the strides by hand."""
    if list(sizes) == [1, 1]:
        return value.mean((-2, -1), keepdim=True)
    found: torch.Tensor = _aten.adaptive_avg_pool2d.default(value, sizes)
    return found


_WRITTEN_OUT = {
    _aten.scaled_dot_product_attention.default: attention,
    _aten.adaptive_avg_pool2d.default: _pooled,
}


class Forward(nn.Module):
    """What training computes for a batch.

    Forward: inputs of the task and labels to the loss, the tensors that the task returns, what a
    counted alignment reads, and new values of the program's buffers.

    Args:
        task: which task.
        loss: of what the task returns and the labels.
        layout: tells whether to return outputs, and what the alignment reads.
    """

    def __init__(self, task: ReprogrammedModel, loss: Loss, layout: Layout) -> None:
        super().__init__()
        nodes = output_nodes(task)
        aligned = [item.original for item in task.graph.insertions if item.kind == "output"]
        read = aligned if layout.counted else []
        self._hidden = 0 if layout.outputs else len(nodes)
        self.graph = task.graph.executable((*nodes, *read), training=True)
        self._task, self._loss = (task,), loss  # in a tuple, as it is not part of what is traced

    def forward(self, inputs: Inputs, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As the class says."""
        found = self.graph(*inputs)
        loss = self._loss(returned(*self._task, found), labels)
        return (loss, *found[self._hidden :])


def returned(task: ReprogrammedModel, tensors: Iterable[torch.Tensor]) -> Any:
    """What a task returns, of the tensors in it; what it returns beside them is constant."""
    names, left = output_nodes(task), iter(tensors)
    leaves = [
        next(left) if isinstance(value, fx.Node) and value.name in names else value
        for value in task.graph.output_nodes
    ]
    return pytree.tree_unflatten(leaves, task.graph.out_spec)


def exported_loss(
    task: ReprogrammedModel, loss: Loss, layout: Layout, inputs: Inputs, labels: torch.Tensor
) -> ExportedProgram:
    """The program of :class:`Forward`, attention written out, for batches of any size.

    Args:
        task: which task; it is not changed.
        loss: as in :class:`Forward`.
        layout: likewise.
        inputs: of two rows, to trace with.
        labels: that belong to them.

    Raises:
        BackendError: the loss cannot be traced.
    """
    axes = tuple(
        {axis: Dim.DYNAMIC for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in task.inputs
    )
    try:
        program = torch.export.export(
            Forward(task, loss, layout),
            (tuple(value.contiguous().detach().clone() for value in inputs), labels.clone()),
            dynamic_shapes=(axes, dict.fromkeys(range(labels.ndim), Dim.AUTO)),
            strict=False,
        )
        if any(writes(node) for node in program.graph.nodes):
            program = program.run_decompositions({})
    except Exception as error:
        raise BackendError(
            f"{task.base.name}: the loss cannot be traced: "
            f"{type(error).__name__}: {str(error).strip()[:600]}",
            [
                "write it without conditions on values, and without .item()",
                "inputs=... and labels=..., where labels are no class numbers",
            ],
        ) from error
    push_down_selection(program.graph_module)
    for operation, function in _WRITTEN_OUT.items():
        for node in program.graph.find_nodes(op="call_function", target=operation):
            node.target = function
    program.graph_module.recompile()
    return program
