"""Names of the inputs and outputs of a training step."""

from __future__ import annotations

import dataclasses

LABELS, RATE, STEP = "labels", "learning_rate", "optimizer.step"
LOSS, NORM, READ, NEW = "loss", "gradient_norm", "read", "new."


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names of the inputs and outputs of a step, in order; part of a step file's document.

    Attributes:
        inputs: of the task.
        counted: tensors of the program that the step reads, and that counting changes.
        trained: tensors of the program that have a gradient.
        updated: further tensors of the program that the step changes, such as statistics.
        moments: moments of the optimizer, one of each kind per trained tensor.
        outputs: of the task that are returned.
    """

    inputs: tuple[str, ...]
    counted: tuple[str, ...]
    trained: tuple[str, ...]
    updated: tuple[str, ...]
    moments: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def state(self) -> tuple[str, ...]:
        """The tensors that a step updates."""
        return (*self.trained, *self.updated, STEP, *self.moments)

    @property
    def arguments(self) -> tuple[str, ...]:
        """All inputs of the step."""
        return (*self.inputs, LABELS, RATE, *self.counted, *self.state)

    @property
    def results(self) -> tuple[str, ...]:
        """All outputs of the step, including those that counting reads, if any."""
        read = (READ,) if self.counted else ()
        return (LOSS, NORM, *(NEW + name for name in self.state), *self.outputs, *read)
