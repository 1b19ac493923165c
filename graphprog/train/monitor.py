"""What determines the best epoch of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from graphprog.errors import TrainingError
from graphprog.spec.checks import require_choice
from graphprog.train.history import EpochRecord
from graphprog.train.metric_kinds import SMALLER_IS_BETTER
from graphprog.train.metrics import Metric


@dataclasses.dataclass(frozen=True)
class Monitor:
    """The value on the validation data by which epochs are compared.

    Attributes:
        name: ``accuracy``, ``loss`` or the name of a metric; empty takes the accuracy, or the loss
            where labels are not right or wrong.
        smaller: whether a smaller value is better.
    """

    name: str = ""
    smaller: bool = False

    @classmethod
    def of(cls, monitor: str | None, metrics: Mapping[str, Metric]) -> Monitor:
        """Return the monitor that an argument of ``fit`` names.

        Args:
            monitor: a name; a minus before it says that smaller is better.
            metrics: metrics of the run, by name.

        Raises:
            TrainingError: there is no such value.
        """
        if monitor is None:
            return cls()
        name = str(monitor).removeprefix("-")
        choices = tuple(dict.fromkeys(("accuracy", "loss", *metrics)))
        remedies = ["add it to metrics", "put a minus before the name if smaller is better"]
        require_choice("", "monitor", name, choices, remedies, TrainingError)
        metric = metrics.get(name, name)
        smaller = metric in SMALLER_IS_BETTER if isinstance(metric, str) else False
        known = getattr(metric, "higher_is_better", None) is False
        return cls(name, smaller or known or monitor.startswith("-"))

    def called(self, record: EpochRecord) -> str:
        """Return the name of the value that is compared."""
        return self.name or ("loss" if record.validation_accuracy is None else "accuracy")

    def merit(self, record: EpochRecord) -> tuple[float, float]:
        """Return the sort key of an epoch: larger is better; then the lower loss.

        Without validation, later is better.

        Raises:
            TrainingError: the value is the accuracy, and there is none.
        """
        loss = record.validation_loss
        if loss is None:
            return float(record.epoch), 0.0
        name = self.called(record)
        value = record.metrics.get(name)
        if value is None:
            value = loss if name == "loss" else record.validation_accuracy
        if value is None:
            raise TrainingError(
                "monitor='accuracy': the labels are not right or wrong", ["monitor='loss'"]
            )
        smaller = self.smaller or name == "loss"
        return (-value if smaller else value), -loss
