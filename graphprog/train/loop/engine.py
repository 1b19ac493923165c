"""Device, precision and processes of a run, managed by accelerate."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import GradientAccumulationPlugin, gather_object
from torch import nn

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import TrainingError
from graphprog.ir.graph import Graph
from graphprog.train.data.batches import Batch, Share
from graphprog.train.objective import Places
from graphprog.train.reuse.stages import Stages
from graphprog.utils.files import make_folder
from graphprog.utils.torch_modes import plain_modes


class Step(nn.Module):
    """The forward pass of one step, as the single module that accelerate wraps.

    Forward: inputs of a batch, or values that were kept of them, to the outputs of the task and the
    values that the alignment reads [B, ...], or None if these are not requested.

    Attributes:
        stages: the task in two stages, if values are kept.
    """

    def __init__(self, task: ReprogrammedModel) -> None:
        super().__init__()
        self.task = task
        self.stages: Stages | None = None
        # otherwise DistributedDataParallel would broadcast every source tensor
        self._ddp_params_and_buffers_to_ignore = [
            f"task.source.{name}"
            for name, _ in (*task.source.named_parameters(), *task.source.named_buffers())
        ]

    def forward(
        self,
        inputs: tuple[torch.Tensor, ...],
        read: bool,
        kept: bool = False,
        places: Places | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run the task, or the rest of it; of one output, perhaps some places only."""
        if places is not None:
            return self.task.at(places.output, places.positions, *inputs), None
        if kept:
            assert self.stages is not None
            return self.stages.rest(inputs, read, self.training)
        if read:
            return self.task.both(*inputs)
        return self.task(*inputs), None


class Engine:
    """A task on its device, in its precision, in one of several processes.

    Attributes:
        task: the task that runs.
        accelerator: accelerate's own object.
        step: :class:`Step`, wrapped for training in many processes.
        alone: the same without the wrapper, so that processes need not run in lockstep.
        share: this process's share of a batch.
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
        self._own = Step(task)
        self.step: nn.Module = self.accelerator.prepare_model(self._own)
        self.alone: nn.Module = self.accelerator.unwrap_model(self.step)
        self.share = Share(self.accelerator.process_index, self.accelerator.num_processes)

    @property
    def device(self) -> torch.device:
        """The device of the task."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def stages(self) -> Stages | None:
        """The task in two stages, if values are kept of samples."""
        found: Stages | None = self._own.stages
        return found

    @stages.setter
    def stages(self, stages: Stages) -> None:
        self._own.stages = stages

    def first(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Return the values to keep of samples, in the precision of the run."""
        assert self.stages is not None
        with self.accelerator.autocast():
            return self.stages.first(batch.inputs)

    def forward(self, batch: Batch, read: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return outputs and the values that the alignment reads, without gradient."""
        logits, values = self.alone(batch.inputs, read, batch.kept)
        return logits, values

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes, on the CPU; exact for integers in float64."""
        if self.share.count == 1:
            return values.cpu()
        home = values if self.device.type == "cpu" else values.to(self.device)
        summed: torch.Tensor = self.accelerator.reduce(home, "sum")
        return summed.cpu()

    def gathered(self, items: list[Any]) -> list[Any]:
        """Return the items of all processes."""
        if self.share.count == 1:
            return items
        found: list[Any] = gather_object(items)
        return found


@contextmanager
def running(
    task: ReprogrammedModel,
    precision: str = "no",
    log_dir: str | os.PathLike[str] | None = None,
    cpu: bool = False,
) -> Iterator[Engine]:
    """Yield an engine for a task; afterwards, the task is back on its device, in eval mode.

    Args:
        task: the task to run.
        precision: ``no``, ``bf16`` or ``fp16``.
        log_dir: folder for TensorBoard.
        cpu: use the CPU even if there is a GPU.

    Raises:
        TrainingError: the device lacks the precision.
        FileError: the log folder cannot be written.
    """
    if log_dir is not None:
        make_folder(log_dir)
    with plain_modes(), _own_accelerate_state(cpu), _placement_kept(task):
        try:
            yield Engine(task, precision, None if log_dir is None else os.fspath(log_dir), cpu)
        finally:
            task.eval()


def require_task(task: Any) -> None:
    """Check that an argument is a compiled task.

    Raises:
        TrainingError: it is not; says how to make one.
    """
    if not isinstance(task, ReprogrammedModel):
        compiled = "gp.compile(graph, gp.Program([...], align=...))"
        first = [] if isinstance(task, Graph) else ["graph = gp.capture(model, (example,))"]
        raise TrainingError(
            f"a compiled task is needed, not a {type(task).__name__}",
            ["; ".join([*first, f"task = {compiled}"])],
        )


def require_trainable(task: ReprogrammedModel) -> None:
    """Check that nothing of a task belongs to inference mode.

    Raises:
        TrainingError: ``torch.inference_mode()`` is on, or was when a tensor was made.
    """
    if torch.is_inference_mode_enabled():
        raise TrainingError(
            "under torch.inference_mode() nothing can be trained",
            ["call gp.fit outside of the block; it measures without gradients by itself"],
        )
    for name, tensor in itertools.chain(task.named_parameters(), task.named_buffers()):
        if tensor.is_inference():
            raise TrainingError(
                f"{name} was made under torch.inference_mode(), and cannot be trained",
                ["make the model and the task outside of torch.inference_mode()"],
            )


@contextmanager
def _own_accelerate_state(cpu: bool) -> Iterator[None]:
    """Restrict accelerate's settings, which it keeps per process, to the block."""
    kinds: list[Any] = [AcceleratorState, GradientState]
    if cpu and PartialState._shared_state.get("num_processes", 1) == 1:
        kinds.append(PartialState)  # the device, and the process group if there is one
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
    """Restore the original, shared memory of the source tensors after the block."""
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
