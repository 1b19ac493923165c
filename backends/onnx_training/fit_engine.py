"""Steps that ONNX Runtime takes, in the loop that is PyTorch's too."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from graphprog.backends.onnx_training.export import export_training
from graphprog.backends.onnx_training.forward import returned
from graphprog.backends.onnx_training.trainer import Trainer as Steps
from graphprog.errors import TrainingError
from graphprog.train.data.batches import Batch
from graphprog.train.loop.epoch import Trainer
from graphprog.train.loop.meter import DivergenceError, Meter, Scores
from graphprog.train.recipe import Recipe


@dataclass
class OnnxTrainer(Trainer):
    """A trainer whose steps are those of an exported graph.

    Between epochs, the task and the optimizer of PyTorch hold what was learned, as they do without
    this engine; so checkpoints, mappings and what is measured know nothing of it.
    """

    on_processor = True

    @classmethod
    def require(cls, recipe: Recipe) -> None:
        """Refuse accumulation, mixed precision, and an optimizer that is a function."""
        if recipe.accumulate != 1 or recipe.precision != "no":
            name = "accumulate" if recipe.accumulate != 1 else "precision"
            raise TrainingError(
                f"steps of ONNX Runtime have one batch each, in the precision of the source: "
                f"{name}={getattr(recipe, name)!r} is not for them",
                [f"leave {name} out", 'engine="pytorch"'],
            )
        _ = recipe.description

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine.share.count > 1:
            raise TrainingError(
                "steps of ONNX Runtime are taken in one process", ['engine="pytorch"']
            )

    @functools.cached_property
    def steps(self) -> Steps:
        """The exported step, when the first one is due: a run may be over already."""
        batches = self.split.in_order().batches(self.recipe.batch_size, self.engine.share)
        first = next(batches)
        if not isinstance(first.labels, torch.Tensor):
            raise TrainingError(
                f"steps of ONNX Runtime take one tensor of labels, not a "
                f"{type(first.labels).__name__} of several",
                ['engine="pytorch"'],
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "step.onnx"
            export_training(
                self.engine.task,
                path,
                loss=self.objective,
                optimizer=self.recipe.description,
                inputs=first.inputs,
                labels=first.labels,
            )
            return Steps(path)

    def train(self, epoch: int) -> tuple[Scores, torch.Tensor | None]:
        """As :meth:`Trainer.train`."""
        task = self.engine.task
        self.steps.load_state({**task.program_state(), **self._optimizer_state()})
        scores, counts = super().train(epoch)
        task.load_program_state(self.steps.program_state())
        self._keep_optimizer_state()
        return scores, counts if counts is None else self.steps.counts

    def _take_step(
        self, group: list[Batch], meter: Meter, accumulated: torch.Tensor | None
    ) -> torch.Tensor:
        (batch,) = group
        assert self.optimizer is not None
        self.steps.lr = self.optimizer.param_groups[0]["lr"]
        try:
            loss = torch.tensor(self.steps.step(*batch.inputs, batch.labels))
        except TrainingError as error:
            raise DivergenceError(error.what) from error
        tensors = (torch.from_numpy(value) for value in self.steps.outputs.values())
        outputs = returned(self.engine.task, tensors)
        meter.add(loss, self.objective, outputs, batch)
        return loss

    def _optimizer_state(self) -> dict[str, torch.Tensor]:
        """What PyTorch's optimizer holds, by the names of the step; nothing before the first."""
        assert self.optimizer is not None
        found: dict[str, torch.Tensor] = {}
        for name, parameter in self.parameters.items():
            held = self.optimizer.state.get(parameter, {})
            for kind in self.recipe.description.moments:
                if isinstance(value := held.get(kind), torch.Tensor):
                    found[f"optimizer.{kind}.program.{name}"] = value
            if "step" in held:
                found["optimizer.step"] = torch.tensor(int(held["step"]))
        return found

    def _keep_optimizer_state(self) -> None:
        """Let PyTorch's optimizer hold what that of the step holds."""
        assert self.optimizer is not None
        state = self.steps.optimizer_state()
        for name, parameter in self.parameters.items():
            held = self.optimizer.state[parameter]
            held["step"] = state["optimizer.step"].float()
            for kind in self.recipe.description.moments:
                held[kind] = state[f"optimizer.{kind}.program.{name}"]
