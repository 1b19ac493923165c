"""The fake value of a node: shape, dtype and device of what it computes, without numbers."""

from __future__ import annotations

from typing import Any

import torch


def fake_value(node: Any) -> Any:
    """The fake value of a node: a tensor, a tuple of them, a symbolic size, or a number."""
    return node.meta["val"]


def fake_tensor(node: Any) -> torch.Tensor:
    """The fake value of a node that computes a tensor."""
    value: torch.Tensor = node.meta["val"]
    return value
