"""Logging of a run to TensorBoard, through accelerate's tracker."""

from __future__ import annotations

from typing import Any

import torch

from graphprog.train.history import EpochRecord
from graphprog.train.loop.engine import Engine

_NAMES = {
    "train_loss": "loss/training",
    "validation_loss": "loss/validation",
    "train_accuracy": "accuracy/training",
    "validation_accuracy": "accuracy/validation",
    "lr": "lr",
    "mapping_changes": "mapping/changes",
}


class Board:
    """Writes one point per epoch; nothing if no log folder was given."""

    def __init__(self, engine: Engine, active: bool) -> None:
        self.engine = engine
        self.active = active
        if active:
            engine.accelerator.init_trackers("")

    def log(self, record: EpochRecord) -> None:
        """Write the metrics of an epoch, and patterns as images."""
        if not self.active:
            return
        values: dict[str, Any] = {
            name: getattr(record, field)
            for field, name in _NAMES.items()
            if getattr(record, field) is not None
        }
        values |= {f"{name}/validation": value for name, value in record.metrics.items()}
        if record.mapping:
            values["mapping/report"] = record.mapping
        accelerator = self.engine.accelerator
        accelerator.log(values, step=record.epoch)
        images = {
            f"program/{name}": _image(pattern)
            for name, pattern in self.engine.task.program.patterns().items()
            if pattern.ndim == 3 and pattern.shape[0] in (1, 3)
        }
        for tracker in accelerator.trackers:
            tracker.log_images(images, step=record.epoch)

    def close(self) -> None:
        """Flush; ``end_training`` would also end the process group, which the run did not start."""
        for tracker in self.engine.accelerator.trackers:
            tracker.finish()


def _image(pattern: torch.Tensor) -> Any:
    """Return a pattern [C, H, W] as a batch of one image, rescaled if it leaves [0, 1]."""
    low, high = pattern.aminmax()
    if low < 0 or high > 1:
        pattern = (pattern - low) / (high - low).clamp_min(1e-12)
    return pattern.unsqueeze(0).float().cpu().numpy()
