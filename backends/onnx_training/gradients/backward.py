"""Gradients that ONNX has no translation of, one function an operation of ATen.

Each function has the signature of its operation, is made of operations that can be translated, and
holds for sizes that vary. Most of them follow from two remarks: a gradient of a convolution is a
convolution, and the gradient of a linear map along an axis is the transposed matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from graphprog.backends.onnx_training.gradients import linear_maps as maps
from graphprog.backends.onnx_training.gradients.convolution import convolution_backward, cut, each
from graphprog.backends.onnx_training.gradients.table import Table

aten = torch.ops.aten
Tensor = torch.Tensor
TABLE = Table({aten.convolution_backward.default: convolution_backward})


@TABLE.of(
    aten.max_pool2d_with_indices_backward.default, aten.max_pool3d_with_indices_backward.default
)
def max_pool(gradient: Tensor, inputs: Tensor, *arguments: Any) -> Tensor:
    """Gradient at the places of the maxima, which are numbered over the pooled axes."""
    *_, indices = arguments
    return _scattered(gradient, inputs, indices, 3 if len(arguments[0]) == 3 else 2)


def _scattered(gradient: Tensor, inputs: Tensor, indices: Tensor, axes: int) -> Tensor:
    zeros = torch.zeros_like(inputs).flatten(-axes)
    found = zeros.scatter_add(-1, indices.flatten(-axes), gradient.flatten(-axes))
    return found.reshape(inputs.shape)


@TABLE.of(aten.avg_pool2d_backward.default, aten.avg_pool3d_backward.default)
def avg_pool(
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Each entry of the result's gradient, shared out over its window."""
    axes = len(kernel)
    strides, paddings = each(stride or kernel, axes), each(padding, axes)
    shares = gradient if divisor is None else gradient / divisor
    if divisor is None:
        for axis, window in enumerate(zip(kernel, strides, paddings, strict=True), -axes):
            counts = _window_sizes(inputs, gradient, axis, window, count_include_pad)
            shares = shares / counts.reshape(-1, *[1] * (-1 - axis))
    ones = torch.ones([1, 1, *kernel], dtype=gradient.dtype, device=gradient.device)
    sizes = inputs.shape[-axes:]
    planes = shares.reshape(-1, 1, *gradient.shape[-axes:])
    options = (strides, [0] * axes, [1] * axes, True, [0] * axes, 1)
    full = aten.convolution(planes, ones, None, *options)
    return cut(full, paddings, sizes, strides).reshape(inputs.shape)


def _window_sizes(
    inputs: Tensor, gradient: Tensor, axis: int, window: tuple[int, int, int], with_padding: bool
) -> Tensor:
    """How many entries along an axis each window counts."""
    kernel, stride, padding = window
    size = inputs.shape[axis]
    first = torch.arange(gradient.shape[axis], device=gradient.device) * stride - padding
    last = (first + kernel).clamp_max(size + padding)
    if not with_padding:
        first, last = first.clamp_min(0), last.clamp_max(size)
    return (last - first).to(gradient.dtype)


@TABLE.of(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default)
def adaptive_avg_pool(inputs: Tensor, sizes: Sequence[int]) -> Tensor:
    """Means of as many stretches of each axis."""
    for axis, size in enumerate(sizes, -len(sizes)):
        matrix = maps.adaptive_average(inputs.shape[axis], size, inputs)
        inputs = maps.applied(inputs, matrix, axis)
    return inputs


def _adaptive(gradient: Tensor, inputs: Tensor, axes: int) -> Tensor:
    for axis in range(-axes, 0):
        matrix = maps.adaptive_average(inputs.shape[axis], gradient.shape[axis], gradient)
        gradient = maps.transposed(gradient, matrix, axis)
    return gradient


def _resized(
    gradient: Tensor, before: Sequence[int], scales: Sequence[Any], resize: Any, *options: bool
) -> Tensor:
    """Each axis by itself: interpolation is a product of maps along the axes."""
    axes = gradient.ndim - 2
    scales = [*scales, *[None] * (axes - len(scales))]
    for axis, scale in enumerate(scales, -axes):
        unit = maps.identity(before[axis], gradient)[None, :, :, None]
        matrix = resize(unit, [gradient.shape[axis], 1], *options, scale, None)[0, :, :, 0]
        gradient = maps.transposed(gradient, matrix, axis)
    return gradient


def _resizing(resize: Any, options: int = 0) -> Callable[..., Tensor]:
    """Gradient of interpolation with so many options, which stand before the scales."""

    def resized(
        gradient: Tensor, sizes: Sequence[int], before: Sequence[int], *rest: Any
    ) -> Tensor:
        return _resized(gradient, before, rest[options:], resize, *rest[:options])

    return resized


_nearest = _resizing(aten.upsample_nearest2d.default)
_nearest_exact = _resizing(aten._upsample_nearest_exact2d.default)
_linear = _resizing(aten.upsample_bilinear2d.default, 1)
TABLE |= {
    aten.adaptive_max_pool2d_backward.default: partial(_scattered, axes=2),
    aten.adaptive_max_pool3d_backward.default: partial(_scattered, axes=3),
    aten._adaptive_avg_pool2d_backward.default: partial(_adaptive, axes=2),
    aten._adaptive_avg_pool3d_backward.default: partial(_adaptive, axes=3),
    aten.upsample_nearest1d_backward.default: _nearest,
    aten.upsample_nearest2d_backward.default: _nearest,
    aten.upsample_nearest3d_backward.default: _nearest,
    aten._upsample_nearest_exact1d_backward.default: _nearest_exact,
    aten._upsample_nearest_exact2d_backward.default: _nearest_exact,
    aten.upsample_linear1d_backward.default: _linear,
    aten.upsample_bilinear2d_backward.default: _linear,
    aten.upsample_trilinear3d_backward.default: _linear,
    aten.upsample_bicubic2d_backward.default: _resizing(aten.upsample_bicubic2d.default, 1),
}


@TABLE.of(
    aten.replication_pad1d_backward.default,
    aten.replication_pad2d_backward.default,
    aten.replication_pad3d_backward.default,
)
def replication_pad(gradient: Tensor, inputs: Tensor, padding: Sequence[int]) -> Tensor:
    """Gradient of padding with what is at the edges."""
    for number in range(len(padding) // 2):
        axis = -1 - number
        unit = maps.identity(inputs.shape[axis], gradient)[None]
        ends = padding[2 * number : 2 * number + 2]
        gradient = maps.transposed(gradient, aten.replication_pad1d(unit, ends)[0], axis)
    return gradient


@TABLE.of(aten.index_add.default)
def index_add(
    inputs: Tensor, axis: int, index: Tensor, source: Tensor, *, alpha: float = 1
) -> Tensor:
    """Sums at numbered entries of an axis; no gradient, but ONNX has it in another form only."""
    shape = [1] * source.ndim
    shape[axis] = -1
    places = index.reshape(shape).expand(source.shape)
    return inputs.scatter_add(axis, places, source if alpha == 1 else source * alpha)


@TABLE.of(aten.unfold_backward.default)
def unfold(gradient: Tensor, sizes: Sequence[int], axis: int, size: int, step: int) -> Tensor:
    """Gradient of windows of an axis, whose entries are the last axis."""
    axis %= len(sizes)
    flat = gradient.movedim(-1, axis + 1).flatten(axis, axis + 1)
    starts, places = (
        torch.arange(count, device=gradient.device) for count in (gradient.shape[axis], size)
    )
    numbers = (starts[:, None] * step + places).flatten()
    zeros = gradient.new_zeros(sizes)
    found: Tensor = index_add(zeros, axis, numbers, flat)
    return found


@TABLE.of(aten.slice_backward.default)
def sliced(
    gradient: Tensor, sizes: Sequence[int], axis: int, start: int, end: int, step: int
) -> Tensor:
    """Gradient among zeros, where entries of an axis were taken."""
    if step != 1:
        found: Tensor = aten.slice_scatter(
            gradient.new_zeros(sizes), gradient, axis, start, end, step
        )
        return found
    axis %= len(sizes)
    size = sizes[axis]
    before = min(start if start >= 0 else max(start + size, 0), size)
    after = size - before - gradient.shape[axis]
    behind = [0, 0] * (len(sizes) - axis - 1)
    wide: Tensor = aten.constant_pad_nd(gradient, [*behind, before, after])
    return wide


@TABLE.of(aten.select_backward.default)
def selected(gradient: Tensor, sizes: Sequence[int], axis: int, index: int) -> Tensor:
    """As :func:`sliced`, of one entry."""
    axis %= len(sizes)
    end = index + 1 if index != -1 else sizes[axis]
    found: Tensor = sliced(gradient.unsqueeze(axis), sizes, axis, index, end, 1)
    return found
