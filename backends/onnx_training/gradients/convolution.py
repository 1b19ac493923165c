"""Gradients of convolutions, as convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

Sizes = Sequence[int]


class Geometry(NamedTuple):
    """How a convolution steps over its input: sizes by axis, and the number of groups."""

    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int


_aten = torch.ops.aten
_NEAREST: dict[int, Callable[..., torch.Tensor]] = {
    1: _aten.upsample_nearest1d.default,
    2: _aten.upsample_nearest2d.default,
    3: _aten.upsample_nearest3d.default,
}


def _convolution(*arguments: Any) -> torch.Tensor:
    found: torch.Tensor = _aten.convolution.default(*arguments)
    return found


def convolution_backward(
    gradient: torch.Tensor,
    inputs: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: Sizes | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of input, weight and bias, each where the mask asks for it."""
    axes = weight.ndim - 2
    stride, padding, dilation = (each(sizes, axes) for sizes in (stride, padding, dilation))
    geometry = Geometry(stride, padding, dilation, groups)
    of_inputs = of_weight = of_bias = None
    if output_mask[0]:
        find = _of_transposed if transposed else _of_inputs
        of_inputs = find(gradient, inputs, weight, geometry)
    if output_mask[1]:
        # a transposed convolution is the gradient of one: its input stands for that one's result
        wide, narrow = (gradient, inputs) if transposed else (inputs, gradient)
        of_weight = _of_weight(wide, narrow, weight, geometry)
    if output_mask[2]:
        of_bias = gradient.sum([0, *range(2, gradient.ndim)])
    return of_inputs, of_weight, of_bias


def each(sizes: Sizes, axes: int) -> list[int]:
    """A size an axis, where one may stand for all."""
    return list(sizes) * axes if len(sizes) == 1 else list(sizes)


def cut(full: torch.Tensor, start: Sizes, sizes: Sizes, most: Sizes) -> torch.Tensor:
    """Entries of the last axes from ``start`` on, where up to ``most - 1`` zeros are missing."""
    missing = [size for count in reversed(most) for size in (0, count - 1)]
    full = functional.pad(full, missing) if any(missing) else full
    for axis, (first, size) in enumerate(zip(start, sizes, strict=True), 2):
        full = full.narrow(axis, first, size)
    return full


def _of_transposed(
    gradient: torch.Tensor,
    inputs: torch.Tensor,
    weight: torch.Tensor,
    geometry: Geometry,
) -> torch.Tensor:
    zeros = [0] * len(geometry.stride)
    return _convolution(gradient, weight, None, *geometry[:3], False, zeros, geometry.groups)


def _of_inputs(
    gradient: torch.Tensor,
    inputs: torch.Tensor,
    weight: torch.Tensor,
    geometry: Geometry,
) -> torch.Tensor:
    stride, padding, dilation, groups = geometry
    zeros = [0] * len(stride)
    reach = [d * (size - 1) for d, size in zip(dilation, weight.shape[2:], strict=True)]
    left = [r - p for p, r in zip(padding, reach, strict=True)]
    if (all(s == 1 for s in stride) or groups > 1) and min(left) >= 0:
        # a plain convolution: its weight is computed when the step is exported, and it is faster;
        # with strides, where a transposed one would go through group after group
        mirrored, ones = _mirrored(weight, groups), [1] * len(stride)
        apart = _spread(gradient, stride)
        found = _convolution(apart, mirrored, None, ones, left, dilation, False, zeros, groups)
        return cut(found, zeros, inputs.shape[2:], ones) if apart is not gradient else found
    full = _convolution(gradient, weight, None, stride, zeros, dilation, True, zeros, groups)
    return cut(full, padding, inputs.shape[2:], stride)


def _spread(gradient: torch.Tensor, stride: Sizes) -> torch.Tensor:
    """Entries with ``stride - 1`` zeros after each.

    Repeated, and then masked: ONNX Runtime takes several times as long to put zeros in between.
    """
    if all(step == 1 for step in stride):
        return gradient
    sizes = [size * step for size, step in zip(gradient.shape[2:], stride, strict=True)]
    wide: torch.Tensor = _NEAREST[len(stride)](gradient, sizes, *map(float, stride))
    for axis, step in enumerate(stride, 2):
        first = torch.arange(wide.shape[axis], device=wide.device) % step == 0
        wide = wide * first.to(wide.dtype).reshape(-1, *[1] * (wide.ndim - axis - 1))
    return wide


def _mirrored(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """The weight [O, I/G, ...] of a convolution, as that of its gradient [I, O/G, ...]."""
    out, inner, *kernel = weight.shape
    apart = weight.reshape(groups, out // groups, inner, *kernel).transpose(1, 2)
    joined = apart.reshape(groups * inner, out // groups, *kernel)
    return joined.flip(list(range(2, weight.ndim)))


def _of_weight(
    wide: torch.Tensor,
    narrow: torch.Tensor,
    weight: torch.Tensor,
    geometry: Geometry,
) -> torch.Tensor:
    """What a convolution reads, convolved with the gradient of its result; the rows are summed."""
    stride, padding, dilation, groups = geometry
    rows, channels, *sizes = wide.shape
    apart = wide.reshape(rows, groups, channels // groups, *sizes).transpose(0, 2)
    images = apart.reshape(channels // groups, groups * rows, *sizes)
    kernels = narrow.transpose(0, 1)
    zeros = [0] * len(stride)
    found = _convolution(images, kernels, None, dilation, padding, stride, False, zeros, groups)
    for axis, size in enumerate(weight.shape[2:], 2):
        found = found.narrow(axis, 0, size)
    return found.transpose(0, 1)
