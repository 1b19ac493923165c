"""Weights in 8 or 4 bits, which are computed in full precision wherever a graph reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

_aten = torch.ops.aten
GROUP = 32
"""Entries that share a scale, in 4 bits."""
LARGEST = {8: 127, 4: 7}
"""Largest integer that an entry becomes, by bits."""

Call = Callable[..., Any]
"""Calls an operation, or writes the call into code."""


def run_now(target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call an operation."""
    return target(*args, **kwargs)


class PackedWeight(nn.Module):
    """A frozen weight of two axes or more as integers and scales.

    In 8 bits every channel of ``axis`` has a scale, in 4 bits every 32 entries of a channel have;
    the largest entry becomes 127 or 7, and zero stays zero. Two entries of 4 bits share a byte.

    Args:
        weight: the weight, in any floating dtype, which is that of the result.
        bits: 8 or 4.
        axis: of the channels: 0, or 1 for a matrix.

    Attributes:
        values: int8 of the weight's shape, or uint8 [channels, bytes].
        scale: in the weight's dtype: 1 wherever an axis is not that of the channels; or
            [channels, groups].
    """

    values: torch.Tensor
    scale: torch.Tensor

    def __init__(self, weight: torch.Tensor, bits: int, axis: int = 0) -> None:
        super().__init__()
        self.bits, self.axis, self.shape = bits, axis, tuple(weight.shape)
        pack = _eights if bits == 8 else _fours
        values, scale = pack(weight.detach(), axis)
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)

    @property
    def bytes(self) -> int:
        """Bytes that it takes."""
        return sum(one.numel() * one.element_size() for one in self.buffers())

    def unpack(self) -> torch.Tensor:
        """Compute the weight."""
        found: torch.Tensor = self.write(run_now, self.values, self.scale)
        return found

    def write(self, call: Call, values: Any, scale: Any) -> Any:
        """Compute the weight by calls of operations, of which each result is read once."""
        if self.bits == 8:
            whole = call(_aten._to_copy.default, values, dtype=self.scale.dtype)
            return call(_aten.mul_.Tensor, whole, scale)
        flat = self._write_fours(call, values, scale)
        if self.axis:
            return call(_aten.t.default, flat)
        return flat if len(self.shape) == 2 else call(_aten.view.default, flat, [*self.shape])

    def write_rows(self, call: Call, values: Any, scale: Any, pick: Call) -> Any:
        """Compute entries of axis 0 alone, which must be that of the channels.

        Args:
            call: as for :meth:`write`.
            values: likewise.
            scale: likewise.
            pick: from an argument of axis 0 to its entries; these are put before the other axes.
        """
        if self.bits == 8:
            whole = call(_aten._to_copy.default, pick(values), dtype=self.scale.dtype)
            return call(_aten.mul_.Tensor, whole, pick(scale))
        return self._write_fours(call, pick(values), pick(scale))

    def _write_fours(self, call: Call, values: Any, scale: Any) -> Any:
        """Compute entries [..., n] of bytes [..., n / 2]."""
        dtype, width = self.scale.dtype, self.values.shape[-1] * 2
        low = call(_aten.remainder.Scalar, values, 16)  # ONNX has no shifts of bytes for all
        high = call(_aten.div.Scalar_mode, values, 16, rounding_mode="floor")
        both = call(_aten.cat.default, [low, high], -1)
        whole = call(_aten.sub_.Scalar, call(_aten._to_copy.default, both, dtype=dtype), 8)
        groups = call(_aten.unflatten.int, whole, -1, [width // GROUP, GROUP])
        scaled = call(_aten.mul_.Tensor, groups, call(_aten.unsqueeze.default, scale, -1))
        flat = call(_aten.flatten.using_ints, scaled, -2, -1)
        own = self._per_channel
        return flat if own == width else call(_aten.slice.Tensor, flat, -1, 0, own)

    @property
    def _per_channel(self) -> int:
        size = 1
        for axis, length in enumerate(self.shape):
            size *= 1 if axis == self.axis else length
        return size


def _eights(weight: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    others = [one for one in range(weight.ndim) if one != axis]
    scale = _scales(weight.float().abs().amax(others, keepdim=True), LARGEST[8], weight.dtype)
    return _rounded(weight, scale, LARGEST[8]).to(torch.int8), scale


def _fours(weight: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = (weight.t() if axis else weight).flatten(1)
    padded = nn.functional.pad(rows, (0, -rows.shape[1] % GROUP))
    groups = padded.unflatten(1, (-1, GROUP))
    scale = _scales(groups.float().abs().amax(-1, keepdim=True), LARGEST[4], weight.dtype)
    entries = (_rounded(groups, scale, LARGEST[4]) + 8).to(torch.uint8).flatten(1)
    low, high = entries.chunk(2, 1)
    return low | (high << 4), scale.squeeze(-1)


def _scales(largest: torch.Tensor, integer: int, dtype: torch.dtype) -> torch.Tensor:
    found = (largest / integer).to(dtype)
    return torch.where(found > 0, found, torch.ones_like(found))


def _rounded(weight: torch.Tensor, scale: torch.Tensor, integer: int) -> torch.Tensor:
    return (weight.float() / scale.float()).round().clamp(-integer, integer)


def held_at(root: nn.Module, path: str) -> torch.Tensor | PackedWeight:
    """Return the tensor at a dotted path, or the packed weight that is there instead of it."""
    holder: Any = root
    for name in path.split("."):
        holder = getattr(holder, name)
    if not isinstance(holder, torch.Tensor | PackedWeight):
        raise AttributeError(f"{path} is not a tensor")
    return holder


def tensor_at(root: nn.Module, path: str) -> torch.Tensor:
    """Return the tensor at a dotted path, without gradient; a packed weight is computed."""
    found = held_at(root, path)
    return found.unpack() if isinstance(found, PackedWeight) else found.detach()


def packed_weights(root: nn.Module) -> Mapping[str, PackedWeight]:
    """Return the packed weights in a tree of modules by path; a tied one at each of its paths."""
    named = root.named_modules(remove_duplicate=False)
    return {path: one for path, one in named if isinstance(one, PackedWeight)}
