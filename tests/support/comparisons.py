"""What is compared of two results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves


def same(left: Any, right: Any) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(tree_leaves(left), tree_leaves(right), strict=True)
    )


def equal(left: Any, right: Any) -> bool:
    (mine, tree), (theirs, other) = tree_flatten(left), tree_flatten(right)
    return tree == other and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(mine, theirs, strict=True)
    )


def gap(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest number; NaN agrees with anything."""
    difference = (found - wanted)[~wanted.isnan()].abs().max()
    return float(difference / wanted.nan_to_num().abs().max())
