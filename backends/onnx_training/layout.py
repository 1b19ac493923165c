"""Names of what a training step takes and returns."""

from __future__ import annotations

import dataclasses

LABELS, RATE, STEP = "labels", "learning_rate", "optimizer.step"
LOSS, NORM, READ, NEW = "loss", "gradient_norm", "read", "new."


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names of what a step takes and returns, in order; a part of the document of a step file.

    Attributes:
        inputs: of the task.
        counted: tensors of the program that the step reads, and that counting changes.
        trained: tensors of the program that have a gradient.
        updated: further tensors of the program that the step changes, such as statistics.
        moments: of the optimizer, one a kind for each trained tensor.
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
        """What a step replaces."""
        return (*self.trained, *self.updated, STEP, *self.moments)

    @property
    def arguments(self) -> tuple[str, ...]:
        """All inputs of the step."""
        return (*self.inputs, LABELS, RATE, *self.counted, *self.state)

    @property
    def results(self) -> tuple[str, ...]:
        """All outputs of the step; where something is counted, also what the counting reads."""
        read = (READ,) if self.counted else ()
        return (LOSS, NORM, *(NEW + name for name in self.state), *self.outputs, *read)
