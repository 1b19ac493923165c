"""Metrics of a split: by name, computed by torchmetrics; its objects; or functions."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.utils import _pytree as pytree

from graphprog.errors import GraphprogError, TrainingError
from graphprog.train.loop.engine import Engine
from graphprog.train.metric_kinds import NAMES, Parts, made_by_name
from graphprog.train.objective import Objective, Supervised

Metric = Any
"""A name, a function of predictions and labels to a number, or an object of torchmetrics."""

Given = str | Iterable[Metric] | Mapping[str, Metric]

_FORMS = [
    f"names: {', '.join(NAMES)}",
    "functions of the predictions and labels of a split: metrics={'name': function}",
    "objects of torchmetrics",
]


def named_metrics(given: Given) -> dict[str, Metric]:
    """Return metrics by name.

    Args:
        given: a name, several metrics, or metrics by a name of one's own.

    Raises:
        TrainingError: something else, an unknown name, or two metrics of one name.
    """
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, str) or not isinstance(given, Iterable):
        pairs = [(_name_of(given), given)]
    else:
        pairs = [(_name_of(metric), metric) for metric in given]
    for name, metric in pairs:
        known = metric in NAMES if isinstance(metric, str) else callable(metric)
        if not known or not isinstance(name, str):
            raise TrainingError(f"metrics: {metric!r:.80} is not a metric", _FORMS)
        if [other for other, _ in pairs].count(name) > 1:
            raise TrainingError(
                f"metrics: two are called {name!r}", ["metrics={'name': metric, ...}"]
            )
    return dict(pairs)


def _name_of(metric: Metric) -> str:
    if isinstance(metric, str):
        return metric
    if _is_object(metric):
        return type(metric).__name__
    name = str(getattr(metric, "__name__", type(metric).__name__))
    if name == "<lambda>":
        raise TrainingError("metrics: a lambda has no name", ["metrics={'name': function}"])
    return name


def _is_object(metric: Metric) -> bool:
    return all(callable(getattr(metric, name, None)) for name in ("update", "compute", "reset"))


class _Accumulator(Protocol):
    def update(self, predictions: Any, labels: Any) -> None: ...

    def value(self, engine: Engine) -> Any: ...


class Metrics:
    """Accumulates the metrics of one pass over a split.

    Args:
        metrics: metrics by name.
        objective: gives predictions and labels of a batch.
    """

    def __init__(self, metrics: Mapping[str, Metric], objective: Objective) -> None:
        self.objective = objective
        self.batches = 0
        self.parts: dict[str, _Accumulator] = {}
        for name, metric in metrics.items():
            if isinstance(metric, str):
                self.parts[name] = _Named(metric)
            elif _is_object(metric):
                self.parts[name] = _Object(metric)
            else:
                self.parts[name] = _Function(metric)

    def add(self, outputs: Any, labels: Any) -> None:
        """Add the outputs and labels of a batch.

        Raises:
            TrainingError: a metric cannot be computed from them.
        """
        if not self.parts:
            return
        self.batches += 1
        predictions, wanted = pairs_of(self.objective, outputs, labels)
        for name, part in self.parts.items():
            with _explained(name, predictions, wanted):
                part.update(predictions, wanted)

    def values(self, engine: Engine) -> dict[str, float]:
        """Return the metrics over all processes.

        Raises:
            TrainingError: a metric is not one finite number, or a process has no row of the split.
        """
        if self.parts and 0 in (batches := engine.gathered([self.batches])):
            raise TrainingError(
                f"metrics: {batches.count(0)} of {len(batches)} processes have no row of this "
                "split",
                ["evaluate on more rows", "run fewer processes"],
            )
        found = {}
        for name, part in self.parts.items():
            with _explained(name):
                value = part.value(engine)
            if isinstance(value, torch.Tensor) and value.numel() != 1:
                raise TrainingError(
                    f"metric {name!r} has {value.numel()} values, but one number is needed",
                    ["a metric that averages over the classes", "one metric for each value"],
                )
            found[name] = float(value)
            if not math.isfinite(found[name]):
                raise TrainingError(
                    f"metric {name!r} is {found[name]} on this split: its labels do not determine "
                    "it, for example because all are the same",
                    ["evaluate on more examples", "leave the metric out"],
                )
        return found


def pairs_of(objective: Objective, outputs: Any, labels: Any) -> tuple[Any, Any]:
    """Return the predictions and labels of a batch that metrics compare.

    Those of an output by token are [N, K] and [N], without inserted entries; else they are what the
    loss takes.
    """
    pairs = getattr(objective, "pairs", None)
    if callable(pairs):
        predictions, wanted = pairs(outputs, labels)
        return predictions, wanted
    taken = objective.taken(outputs) if isinstance(objective, Supervised) else outputs
    return taken, labels


@dataclasses.dataclass
class _Named:
    """A metric by name; which kind it is depends on the first batch."""

    name: str
    kind: Parts | None = None

    def update(self, predictions: Any, labels: Any) -> None:
        if not isinstance(predictions, torch.Tensor) or not isinstance(labels, torch.Tensor):
            raise TrainingError(
                f"metric {self.name!r} compares one tensor of outputs with one of labels",
                _FORMS[1:],
            )
        if self.kind is None:
            self.kind = made_by_name(self.name, predictions, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.kind.update(predictions, labels)

    def value(self, engine: Engine) -> Any:
        assert self.kind is not None
        with warnings.catch_warnings():  # about classes without examples, which do not count
            warnings.simplefilter("ignore")
            return self.kind.value()


@dataclasses.dataclass
class _Object:
    """An object of torchmetrics, or one with the same methods."""

    metric: Any

    def __post_init__(self) -> None:
        self.metric.reset()

    def update(self, predictions: Any, labels: Any) -> None:
        if isinstance(predictions, torch.Tensor) and isinstance(self.metric, torch.nn.Module):
            self.metric.to(predictions.device)
        self.metric.update(predictions, labels)

    def value(self, engine: Engine) -> Any:
        return self.metric.compute()


class _Function:
    """A function of all predictions and labels of a split, on the CPU."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function
        self.batches: list[tuple[Any, Any]] = []

    def update(self, predictions: Any, labels: Any) -> None:
        self.batches.append(
            pytree.tree_map(lambda part: part.detach().cpu(), (predictions, labels))
        )

    def value(self, engine: Engine) -> Any:
        batches = engine.gathered(self.batches)
        predictions, labels = pytree.tree_map(lambda *parts: torch.cat(parts), *batches)
        return self.function(predictions, labels)


@contextmanager
def _explained(name: str, *given: Any) -> Iterator[None]:
    """Turn the error of a metric into one that names the metric and what it was given."""
    try:
        yield
    except GraphprogError:
        raise
    except Exception as error:
        shapes = [
            ", ".join(str(list(part.shape)) for part in pytree.tree_leaves(value))
            for value in given
        ]
        place = f" on predictions {shapes[0]} and labels {shapes[1]}" if shapes else ""
        raise TrainingError(
            f"metric {name!r} fails{place}: {type(error).__name__}: {str(error).strip():.300}",
            ["look at what the metric takes", "leave it out"],
        ) from error
