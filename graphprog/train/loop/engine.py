"""The machine under a run: device, precision and processes, all of accelerate's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import GradientAccumulationPlugin
from torch import nn

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import TrainingError
from graphprog.train.data.batches import Batch, Share


class Step(nn.Module):
    """What is run in one step, as the one module that accelerate wraps.

    Forward: a batch's inputs to what the task returns, and to what the alignment reads [B, ...],
    or None where that is not asked for.
    """

    def __init__(self, task: ReprogrammedModel) -> None:
        super().__init__()
        self.task = task
        # DistributedDataParallel would send every source tensor between processes otherwise
        self._ddp_params_and_buffers_to_ignore = [
            f"task.source.{name}"
            for name, _ in (*task.source.named_parameters(), *task.source.named_buffers())
        ]

    def forward(
        self, inputs: tuple[torch.Tensor, ...], read: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run the task."""
        if read:
            return self.task.both(*inputs)
        return self.task(*inputs), None


class Engine:
    """A task on its device, in its precision, beside its fellow processes.

    Attributes:
        task: what runs.
        accelerator: accelerate's own object.
        step: :class:`Step`, wrapped for training in many processes.
        alone: the same without what many processes add, for reading data at one's own pace.
        share: which of the processes this is.
    """

    def __init__(
        self, task: ReprogrammedModel, precision: str, log_dir: str | None, cpu: bool = False
    ) -> None:
        self.task = task
        self.accelerator = Accelerator(
            cpu=cpu,
            mixed_precision=precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            log_with=None if log_dir is None else "tensorboard",
            project_dir=log_dir,
        )
        if precision != "no" and not self.accelerator.native_amp:
            raise TrainingError(
                f"precision {precision!r} is not available on {self.device.type}",
                ['precision="bf16"' if precision == "fp16" else 'precision="no"'],
            )
        self.step: nn.Module = self.accelerator.prepare_model(Step(task))
        self.alone: nn.Module = self.accelerator.unwrap_model(self.step)
        self.share = Share(self.accelerator.process_index, self.accelerator.num_processes)

    @property
    def device(self) -> torch.device:
        """Where the task is."""
        device: torch.device = self.accelerator.device
        return device

    def forward(self, batch: Batch, read: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Outputs, and what the alignment reads, of a batch on the device; for no training."""
        logits, values = self.alone(batch.inputs, read)
        return logits, values

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, on the CPU; exact for whole numbers in float64."""
        if self.share.count == 1:
            return values.cpu()
        home = values if self.device.type == "cpu" else values.to(self.device)
        summed: torch.Tensor = self.accelerator.reduce(home, "sum")
        return summed.cpu()


@contextmanager
def running(
    task: ReprogrammedModel,
    precision: str = "no",
    log_dir: str | os.PathLike[str] | None = None,
    cpu: bool = False,
) -> Iterator[Engine]:
    """An engine for a task, which is back where it was, in eval mode, after the block.

    Args:
        task: what runs.
        precision: ``no``, ``bf16`` or ``fp16``.
        log_dir: folder for TensorBoard.
        cpu: stay on the processor, whatever else there is.

    Raises:
        TrainingError: the device lacks the precision.
    """
    with _own_accelerate_state(cpu), _placement_kept(task):
        try:
            yield Engine(task, precision, None if log_dir is None else os.fspath(log_dir), cpu)
        finally:
            task.eval()


@contextmanager
def _own_accelerate_state(cpu: bool) -> Iterator[None]:
    """Settings of accelerate for the block only: it keeps them in classes, for the process."""
    kinds: list[Any] = [AcceleratorState, GradientState]
    if cpu and PartialState._shared_state.get("num_processes", 1) == 1:
        kinds.append(PartialState)  # the device; where there are several processes, also those
    kept = [(kind, dict(kind._shared_state)) for kind in kinds]
    try:
        for kind, _ in kept:
            kind._shared_state.clear()
        yield
    finally:
        for kind, before in kept:
            kind._shared_state.clear()
            kind._shared_state.update(before)


@contextmanager
def _placement_kept(task: ReprogrammedModel) -> Iterator[None]:
    """Give the source tensors their own memory back, which others share, after the block."""
    kept = [
        (module, name, tensor, tensor.data)
        for module in task.source.modules()
        for name, tensor in (
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        )
    ]
    own = (*task.program.parameters(), *task.program.buffers())
    home = own[0].device if own else None
    try:
        yield
    finally:
        for module, name, tensor, data in kept:
            tensor.data = data
            setattr(module, name, tensor)
        if home is not None:
            task.program.to(home)
