"""ONNX files with one program per row: the tensors of programs are stacked.

Besides the model's inputs, such a file takes ``program.row`` [batch] int64, the index of each row's
program; every tensor of a program under its name, [programs, *S]; and, if programs may differ in
their number of classes, ``program.classes`` [programs] int64, the number of each. Tensors are then
padded on that axis, and logits of classes that a row's program does not have are -inf.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.nn import functional

from graphprog.backends.onnx_model.export_program import export_module, output_names, output_nodes
from graphprog.backends.onnx_model.external_data import (
    checked_session,
    describe_model,
    save_proved,
)
from graphprog.backends.onnx_model.lower import lower_program
from graphprog.backends.onnx_model.program_files import CLASSES, ROW
from graphprog.backends.onnx_model.range_check import check_range_inside
from graphprog.backends.parity.report import Inputs, ParityReport
from graphprog.backends.parity.rows import perturbed, prove_rows
from graphprog.backends.program_rows.vmap import ProgramRows, expression
from graphprog.compiler.compile import compile
from graphprog.compiler.data_checks import class_count
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError, GraphprogError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.inputs import InputSpec, batch_axis
from graphprog.passes.attention.split_kv import SplitKV
from graphprog.passes.selection.push_down import push_down_selection

_PROGRAMS = "programs"


@dataclasses.dataclass(frozen=True)
class PerRowModel:
    """The ONNX model of a task with one program per row.

    Attributes:
        model: the model, without metadata.
        axes: see :attr:`graphprog.backends.onnx_model.metadata.Deployed.per_row`.
        tasks: tasks to compare with: the task, one with other tensors, and, if the number of
            classes may differ, one with one more class.
    """

    model: ir.Model
    axes: Mapping[str, int | None]
    tasks: tuple[ReprogrammedModel, ...]


def export_per_row(
    task: ReprogrammedModel,
    path: str | os.PathLike[str],
    batches: Sequence[Inputs],
    example: Inputs,
    opset: int | None,
    tolerance: float,
    check_range: bool = False,
) -> ParityReport:
    """Export a task with one program per row; see :func:`graphprog.backends.onnx.export`.

    Args:
        task: a folded task.
        path: the file.
        batches: batches to compare on.
        example: example to trace with.
        opset: as in ``export``.
        tolerance: likewise.
        check_range: likewise.
    """
    lowered = lower_per_row(task, example, opset)
    if check_range:
        check_range_inside(lowered.model, task.spec.contract.range)
    describe_model(lowered.model, task, "per_row", lowered.axes, check_range)

    def prove(temporary: Path) -> ParityReport:
        run = checked_session(temporary, task.graph).evaluate
        return prove_rows(lowered.tasks, run, batches, tolerance)

    return save_proved(lowered.model, path, prove)


def lower_per_row(
    task: ReprogrammedModel, example: Inputs, opset: int | None = None
) -> PerRowModel:
    """Make the ONNX model of a task with one program per row.

    The number of classes is dynamic if the graph allows it.

    Args:
        task: the task to lower.
        example: inputs of two rows to trace with.
        opset: as in :func:`graphprog.backends.onnx.export`.

    Raises:
        BackendError: the graph has no batch axis, or an operation mixes program and batch so that
            rows cannot have their own programs.
    """
    tasks = [task, perturbed(task)]
    other = _with_one_more_class(task)
    if other is not None:
        axes = _class_axes(task, other)
        try:
            return PerRowModel(_lower(task, example, axes, opset), axes, (*tasks, other))
        except BackendError:  # the number of classes is part of an operation
            pass
    fixed = dict.fromkeys(task.program_state())
    return PerRowModel(_lower(task, example, fixed, opset), fixed, tuple(tasks))


def _with_one_more_class(task: ReprogrammedModel) -> ReprogrammedModel | None:
    """Return the task with one more class; None if its program has no number of classes."""
    align = task.spec.align
    names = {field.name for field in dataclasses.fields(align)}
    classes = getattr(align, "classes", None)
    if "classes" not in names or classes is None or class_count(task.graph) != classes:
        return None
    contract = dataclasses.replace(task.spec.contract, labels=())
    more: dict[str, Any] = {"classes": classes + 1}
    try:
        spec = dataclasses.replace(
            task.spec, align=dataclasses.replace(align, **more), contract=contract
        )
        return compile(task.base, spec, task.seed)
    except GraphprogError:  # the source may have no class left for one more
        return None


def _class_axes(task: ReprogrammedModel, other: ReprogrammedModel) -> dict[str, int | None]:
    """Return the class axis of every tensor of the program, if it has one."""
    own = task.program_state()
    axes: dict[str, int | None] = {}
    for name, tensor in other.program_state().items():
        pairs = enumerate(zip(tensor.shape, own[name].shape, strict=True))
        axes[name] = next((axis for axis, (more, less) in pairs if more != less), None)
    return axes


def _lower(
    task: ReprogrammedModel, example: Inputs, axes: Mapping[str, int | None], opset: int | None
) -> ir.Model:
    letter = batch_axis(task.inputs)
    if letter is None:
        raise BackendError(
            f"{task.base.name} has no axis of examples, so no rows that could have programs",
            ["capture it with a dynamic batch", 'program="overridable"'],
        )
    graph = SplitKV()(task.graph)
    device = task.device
    module = graph.executable(output_nodes(task), device)
    push_down_selection(module)
    state = task.program_state()
    read = {str(node.target) for node in module.graph.find_nodes(op="get_attr")}
    names = [name for name in state if name in read]
    padded = any(axes[name] is not None for name in names)
    specs = [*task.inputs, InputSpec(ROW, (letter,), torch.int64)]
    specs += [InputSpec(CLASSES, (_PROGRAMS,), torch.int64)] if padded else []
    specs += [_stack(name, state[name], axes[name]) for name in names]
    given: list[torch.Tensor] = [*example, torch.tensor([0, 2])]
    given += [torch.ones(3, dtype=torch.int64)] if padded else []
    given += [
        _with_room(state[name], axes[name]).expand(3, *(-1,) * state[name].ndim) for name in names
    ]
    placeholder = next(
        node
        for node, spec in zip(graph.placeholders, task.inputs, strict=True)
        if spec.shape[:1] == (letter,)
    )
    symbol = expression(fake_tensor(placeholder).shape[0])
    rows = ProgramRows(module, names, symbol, padded)
    traced = export_module(rows, given, specs, device, task.base.name)
    model = lower_program(traced, specs, output_names(task), opset)
    own = {name: state[name] for name in names}
    _set_default(model, own, class_count(task.graph) if padded else None)
    return model


def _stack(name: str, tensor: torch.Tensor, axis: int | None) -> InputSpec:
    sizes: list[int | str] = list(tensor.shape)
    if axis is not None:
        sizes[axis] = "classes"
    return InputSpec(name, (_PROGRAMS, *sizes), tensor.dtype)


def _with_room(tensor: torch.Tensor, axis: int | None) -> torch.Tensor:
    """With room for one more class, so that no example has an axis of length 1."""
    if axis is None:
        return tensor
    widths = [0, 0] * (tensor.ndim - 1 - axis) + [0, 1]
    return functional.pad(tensor, widths)


def _set_default(model: ir.Model, state: Mapping[str, torch.Tensor], classes: int | None) -> None:
    """Make the task's own program the default: a stack of one."""
    own = {name: tensor[None].numpy() for name, tensor in state.items()}
    if classes is not None:
        own[CLASSES] = np.array([classes])
    for value in model.graph.inputs:
        if value.name in own:
            value.const_value = ir.tensor(own[value.name], name=value.name)
            model.graph.register_initializer(value)
