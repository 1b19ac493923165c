"""Checks of the examples to capture a model with, and of the axes that vary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from graphprog.errors import CaptureError, DataError
from graphprog.ir.call_spec import dense


def require_axes(wanted: object, name: str) -> None:
    """Check that dynamic axes map inputs to axes, and axes to names.

    Args:
        wanted: what the user gave.
        name: of the first input, for the message.

    Raises:
        CaptureError: they do not; shows how to write them.
    """
    every: list[object] = list(wanted.values()) if isinstance(wanted, Mapping) else [wanted]
    for axes in every:
        pairs: Iterable[Any] = axes.items() if isinstance(axes, Mapping) else [(None, None)]
        if not all(isinstance(axis, int) and isinstance(text, str) for axis, text in pairs):
            raise CaptureError(
                f"dynamic_axes must name axes by their numbers, not {wanted!r:.120}",
                [f'dynamic_axes={{"{name}": {{0: "batch", 1: "sequence"}}}}'],
            )


def require_values(model: nn.Module, names: list[tuple[str, Any]]) -> None:
    """Check that examples and weights are dense and have values.

    A model on the meta device is traced on examples there, to be looked at.

    Args:
        model: the model.
        names: name and value of every example.

    Raises:
        CaptureError: names what is sparse, nested or without values.
    """
    weights = dict(model.named_parameters()) | dict(model.named_buffers())
    empty = [name for name, value in weights.items() if value.device.type == "meta"]
    for name, value in names:
        if not isinstance(value, torch.Tensor) or (empty and value.device.type == "meta"):
            continue
        try:
            dense(name, value)
        except DataError as error:
            what = f"the example cannot be traced: {error.what}"
            raise CaptureError(what, error.remedies) from error
        if empty:
            raise CaptureError(
                f"weights of {type(model).__name__} have no values: {', '.join(empty[:3])} "
                f"{'and more are' if len(empty) > 3 else 'is'} on the meta device",
                ["load the weights first: model.to_empty(device='cpu'), then load_state_dict"],
            )
