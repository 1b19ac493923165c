"""Fake values of nodes: shape, dtype and device, without data."""

from __future__ import annotations

from typing import Any

import torch


def fake_value(node: Any) -> Any:
    """Return the fake value of a node: a tensor, a tuple of them, a symbolic size, or a number."""
    return node.meta["val"]


def fake_tensor(node: Any) -> torch.Tensor:
    """Return the fake value of a node that computes a tensor."""
    value: torch.Tensor = node.meta["val"]
    return value
