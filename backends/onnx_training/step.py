"""The computation of one training step, traced as operations that have a translation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.export import Dim, ExportedProgram

from graphprog.backends.onnx_training.cleaning import cleaned
from graphprog.backends.onnx_training.gradients.translated import require_translations, traced
from graphprog.backends.onnx_training.layout import (
    LABELS,
    LOSS,
    NEW,
    NORM,
    RATE,
    READ,
    STEP,
    Layout,
)
from graphprog.errors import BackendError, TrainingError
from graphprog.ir.fake import fake_value
from graphprog.train.optimizers import Optimizer

Tensor = torch.Tensor
Values = dict[str, Tensor]


def step_program(
    loss: ExportedProgram, layout: Layout, optimizer: Optimizer, example: Mapping[str, Tensor]
) -> ExportedProgram:
    """A training step as an exported program.

    Args:
        loss: of :func:`graphprog.backends.onnx_training.forward.exported_loss`.
        layout: names of the arguments and results of the step, which it has in this order.
        optimizer: what is done with gradients.
        example: a value for each argument.

    Raises:
        BackendError: operations have no translation: all of them.
        TrainingError: the loss does not depend on something that is trained.
    """
    tensors = _tensors(loss)
    fakes = _fake_values(loss, tensors, layout, example)
    frozen = [name for name in tensors if name not in layout.arguments]
    names = [*frozen, *layout.arguments]

    def step(*given: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(names, given, strict=True))
        results = _computed(loss, list(tensors), layout, optimizer, values)
        return tuple(results[name] for name in layout.results)

    whole = traced(step, [fakes[name] for name in names])
    whole = cleaned(_with_weights(whole, {name: tensors[name] for name in frozen}))
    require_translations(whole.graph.nodes)
    axes = tuple(
        {axis: Dim.DYNAMIC for axis, size in enumerate(fakes[name].shape) if varies(size)}
        for name in layout.arguments
    )
    arguments = tuple(example[name].detach().contiguous().clone() for name in layout.arguments)
    try:
        return torch.export.export(whole, arguments, dynamic_shapes=axes, strict=False)
    except Exception as error:
        raise BackendError(
            f"the training step cannot be exported: {str(error).strip()[:600]}"
        ) from error


def varies(size: int | torch.SymInt) -> bool:
    """Whether an axis may have another length; tracing may have found that a symbol cannot."""
    return isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None


def _tensors(loss: ExportedProgram) -> Values:
    """The tensors that the program of a loss reads, by their names in the task, in its order."""
    signature, found = loss.graph_signature, {}
    for node in loss.graph.find_nodes(op="placeholder"):
        held = (
            signature.inputs_to_parameters.get(node.name)
            or signature.inputs_to_buffers.get(node.name)
            or signature.inputs_to_lifted_tensor_constants.get(node.name)
        )
        if held is not None:
            value = loss.state_dict[held] if held in loss.state_dict else loss.constants[held]
            found[held.removeprefix("graph.")] = value
    return found


def _fake_values(
    loss: ExportedProgram, tensors: Values, layout: Layout, example: Mapping[str, Tensor]
) -> Values:
    """A value in the fake mode of the loss for each tensor, and for each argument of the step."""
    placeholders = [fake_value(node) for node in loss.graph.find_nodes(op="placeholder")]
    found = dict(zip([*tensors, *layout.inputs, LABELS], placeholders, strict=True))
    mode = placeholders[0].fake_mode
    for name in layout.arguments:
        if name not in found:
            found[name] = mode.from_tensor(example[name], static_shapes=True)
    return found


def _computed(
    loss: ExportedProgram,
    tensors: Sequence[str],
    layout: Layout,
    optimizer: Optimizer,
    values: Values,
) -> Values:
    """What the step computes, by the names of the layout."""
    leaves = {name: values[name].detach().requires_grad_() for name in layout.trained}
    read = {**values, **leaves}
    with torch.enable_grad():
        found = loss.graph_module(*(read[name] for name in (*tensors, *layout.inputs, LABELS)))
        gradients = _gradients(found[0], leaves)
    norm = _norm(gradients)
    gradients = _clipped(gradients, norm, optimizer.clip)
    count = values[STEP] + 1
    new: Values = {STEP: count}
    for name in layout.trained:
        own = [moment for moment in layout.moments if moment.endswith(f".{name}")]
        new |= _updated(optimizer, name, own, gradients[name], count, values)
    names = (*layout.outputs, *((READ,) if layout.counted else ()), *layout.updated)
    others = dict(zip(names, found[1:], strict=True))
    new |= {name: others[name] for name in layout.updated}
    return {
        **{name: value.detach() for name, value in others.items()},
        **{NEW + name: value for name, value in new.items()},
        LOSS: found[0].detach(),
        NORM: norm,
    }


def _gradients(loss: Tensor, leaves: Values) -> Values:
    """The gradient of each tensor that is trained.

    Raises:
        TrainingError: the loss does not depend on one, or is not a scalar.
    """
    if loss.ndim != 0:
        raise TrainingError("the loss function must return a scalar tensor, the mean of the batch")
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    missing = [name for name, one in zip(leaves, found, strict=True) if one is None]
    if missing:
        raise TrainingError(
            f"no gradient reaches {', '.join(missing)}: the loss does not depend on it",
            ["put it at an interface that the logits are computed from: see print(graph)"],
        )
    return {name: one for name, one in zip(leaves, found, strict=True) if one is not None}


def _norm(gradients: Values) -> Tensor:
    """Of the gradient of all tensors together."""
    return torch.stack([value.square().sum() for value in gradients.values()]).sum().sqrt()


def _clipped(gradients: Values, norm: Tensor, limit: float | None) -> Values:
    """As ``torch.nn.utils.clip_grad_norm_``."""
    if limit is None:
        return gradients
    factor = (limit / (norm + 1e-6)).clamp_max(1.0)
    return {name: value * factor for name, value in gradients.items()}


def _updated(
    optimizer: Optimizer,
    name: str,
    moments: Sequence[str],
    gradient: Tensor,
    count: Tensor,
    values: Values,
) -> Values:
    """New values of a tensor and of its moments."""
    value = values[name]
    shape = value.shape or (1,)
    new, news = optimizer.update(
        value.reshape(shape),
        gradient.reshape(shape),
        tuple(values[moment].reshape(shape) for moment in moments),
        count,
        values[RATE].to(value.dtype),
    )
    pairs = zip((name, *moments), (new, *news), strict=True)
    return {key: one.reshape(value.shape) for key, one in pairs}


def _with_weights(found: fx.GraphModule, weights: Values) -> fx.GraphModule:
    """The trace with its first arguments as attributes of their names."""
    placeholders = found.graph.find_nodes(op="placeholder")
    held: dict[str, Any] = {
        str(node.target): getattr(found, str(node.target))
        for node in found.graph.find_nodes(op="get_attr")
    }
    for node, name in zip(placeholders, weights, strict=False):
        with found.graph.inserting_before(node):
            constant = found.graph.create_node("get_attr", name)
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
        found.graph.erase_node(node)
    return fx.GraphModule({**held, **weights}, found.graph, "TrainingStep")
