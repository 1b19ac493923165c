"""Writing a training step as an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor
from torch.export import ExportedProgram

from graphprog.alignments.label_mapping.statistical import StatisticalAlignment
from graphprog.backends.onnx_model.export_program import output_names
from graphprog.backends.onnx_model.external_data import describe_model, save_proved
from graphprog.backends.onnx_model.lower import lower_program
from graphprog.backends.onnx_training import step_file
from graphprog.backends.onnx_training.forward import exported_loss
from graphprog.backends.onnx_training.layout import LABELS, RATE, Layout
from graphprog.backends.onnx_training.losses import loss_of
from graphprog.backends.onnx_training.parity import Batch, batches_of, compared, initial
from graphprog.backends.onnx_training.step import step_program, varies
from graphprog.backends.parity.report import Inputs, ParityReport
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import TrainingError
from graphprog.instruments.divergence import TOLERANCE
from graphprog.ir.fake import fake_tensor
from graphprog.ir.inputs import InputSpec
from graphprog.train.objective import Loss, Supervised
from graphprog.train.optimizers import Adam, Optimizer


def layout_of(task: ReprogrammedModel, optimizer: Optimizer, logits: bool = True) -> Layout:
    """What the step of a task takes and returns.

    Raises:
        TrainingError: nothing of the program is trained.
    """
    program = task.program
    trained = [name for name, value in program.named_parameters() if value.requires_grad]
    if not trained:
        raise TrainingError(
            "the program has nothing to train: its mapping is counted, or it is fixed",
            ["gp.fit(task, data), which counts mappings"],
        )
    counted: list[str] = []
    if isinstance(task.spec.align, StatisticalAlignment):
        counted = [name for name in program.state_dict() if name.startswith("align.")]
    return Layout(
        inputs=tuple(spec.name for spec in task.inputs),
        counted=tuple(f"program.{name}" for name in counted if name not in trained),
        trained=tuple(f"program.{name}" for name in trained),
        updated=tuple(path for mode in task.graph.modes for path in mode.updates),
        moments=tuple(
            f"optimizer.{kind}.program.{name}" for name in trained for kind in optimizer.moments
        ),
        outputs=output_names(task) if logits else (),
    )


def export_training(
    task: ReprogrammedModel,
    path: str | os.PathLike[str],
    *,
    loss: str | Loss = "cross_entropy",
    optimizer: Optimizer | None = None,
    logits: bool = True,
    inputs: Inputs | None = None,
    labels: torch.Tensor | None = None,
    opset: int | None = None,
    tolerance: float = TOLERANCE,
) -> ParityReport:
    """Export a training step as an ONNX file, after comparing it with PyTorch.

    The file takes a batch, its labels, the learning rate, the tensors of the program and the state
    of the optimizer, and returns the loss, the norm of the gradient, and the new tensors and
    state: :class:`graphprog.backends.onnxruntime.Trainer` goes on from there. Its operations are
    those of inference; the source is constant. It holds the program as it is now, so that no
    other file is needed to begin.

    Args:
        task: what to train; it is not changed.
        path: the file, written atomically; weights of 2 GiB and more lie beside it.
        loss: ``cross_entropy`` of logits [B, K] and labels int64 [B]; ``mse`` of the first output
            and labels of its shape; ``causal_lm`` of logits [B, S, V] and token ids [B, S]; one of
            :mod:`graphprog.losses`, or a function of outputs and labels to a mean loss, without
            conditions on values.
        optimizer: ``gp.SGD``, ``gp.Adam`` or ``gp.AdamW``; None: Adam.
        logits: whether a step returns the outputs of the task as well.
        inputs: examples to trace and compare with; None takes random ones.
        labels: of these examples; needed where ``loss`` is a function of other labels than
            class numbers.
        opset: version of the operator set, 18 or above; None takes the exporter's default.
        tolerance: largest difference of the loss, the outputs and the gradients that counts as
            equal, absolute or relative to the largest magnitude.

    Returns:
        How the step compares with PyTorch, in batches of two sizes.

    Raises:
        BackendError: operations without a translation, all of them; a loss that cannot be traced;
            or results that differ.
        FileError: the place cannot be written. As with every error, an old file stays.
        TrainingError: nothing is trained, or the loss does not depend on it.

    Example:
        >>> report = gp.backends.onnxruntime.export_training(task, "step.onnx")
        >>> trainer = gp.backends.onnxruntime.Trainer("step.onnx")
        >>> loss = trainer.step(images, labels)
    """
    optimizer = optimizer or Adam()
    if not isinstance(optimizer, Optimizer):
        raise TrainingError(
            f"optimizer must be a description, not {optimizer!r:.80}",
            ["gp.Adam(1e-2), gp.AdamW(1e-2) or gp.SGD(1e-1)"],
        )
    function = loss_of(task, loss)
    layout = layout_of(task, optimizer, logits)
    batches = batches_of(task, function, inputs, labels)
    model = lower(task, layout, function, optimizer, batches[0], opset)
    _describe(model, task, layout, function, optimizer)

    def prove(temporary: Path) -> ParityReport:
        return compared(temporary, task, layout, function, optimizer, batches, tolerance)

    return save_proved(model, path, prove)


def lower(
    task: ReprogrammedModel,
    layout: Layout,
    loss: Loss,
    optimizer: Optimizer,
    batch: Batch,
    opset: int | None = None,
) -> ir.Model:
    """Make the ONNX model of a step, without metadata.

    Args:
        task: what is trained.
        layout: names of arguments and results.
        loss: of what the task returns and labels.
        optimizer: what is done with gradients.
        batch: two rows to trace with.
        opset: as in :func:`export_training`.
    """
    forward = exported_loss(task, loss, layout, batch.inputs, batch.labels)
    example = {**initial(task, layout), **batch.named(layout), RATE: torch.tensor(optimizer.lr)}
    program = step_program(forward, layout, optimizer, example)
    specs = _specs(forward, task, layout, example)
    return lower_program(program, specs, layout.results, opset)


def _specs(
    forward: ExportedProgram, task: ReprogrammedModel, layout: Layout, example: Mapping[str, Tensor]
) -> list[InputSpec]:
    """Name, shape and dtype of each argument; an axis of the labels is called as that of an input.

    Two axes have one name where tracing found that they must be equal.
    """
    *_, labels = (fake_tensor(node) for node in forward.graph.find_nodes(op="placeholder"))
    inputs = [fake_tensor(node) for node in forward.graph.find_nodes(op="placeholder")]
    inputs = inputs[-1 - len(task.inputs) : -1]
    letters = {
        str(size): letter
        for value, spec in zip(inputs, task.inputs, strict=True)
        for size, letter in zip(value.shape, spec.shape, strict=True)
        if varies(size)
    }
    sizes = tuple(
        letters.get(str(size), f"labels_{axis}") if varies(size) else int(size)
        for axis, size in enumerate(labels.shape)
    )
    shapes = {spec.name: spec.shape for spec in task.inputs} | {LABELS: sizes}
    return [
        InputSpec(name, shapes.get(name, tuple(example[name].shape)), example[name].dtype)
        for name in layout.arguments
    ]


def _describe(
    model: ir.Model, task: ReprogrammedModel, layout: Layout, loss: Loss, optimizer: Optimizer
) -> None:
    function = loss.function if isinstance(loss, Supervised) else loss
    name = getattr(function, "__qualname__", type(function).__qualname__)
    describe_model(model, task, "training")
    model.metadata_props.update(step_file.entries(task, layout, name, optimizer))
