"""Activations and their gradients, of operations that ONNX Runtime is quick at.

A selection by a mask takes it longer than a product with one; an entry that is not finite and that
a mask drops becomes NaN by the product, and a step that meets one is refused.
"""

from __future__ import annotations

import math

import torch

from graphprog.backends.onnx_training.gradients.table import Table

aten = torch.ops.aten
Tensor = torch.Tensor
TABLE = Table()


@TABLE.of(aten.threshold_backward.default)
def threshold(gradient: Tensor, result: Tensor, limit: float) -> Tensor:
    """Gradient where a rectifier lets through."""
    return gradient * (result > limit).to(gradient.dtype)


@TABLE.of(aten.hardtanh_backward.default)
def hardtanh(gradient: Tensor, inputs: Tensor, least: float, most: float) -> Tensor:
    """Gradient between two limits.

    It reads the result, for then nothing but the rectifier reads the input, and a runtime may
    compute the rectifier along with the operation before it.
    """
    result: Tensor = aten.hardtanh.default(inputs, least, most)
    return gradient * ((result > least) & (result < most)).to(gradient.dtype)


@TABLE.of(aten.softshrink_backward.default, aten.hardshrink_backward.default)
def shrink(gradient: Tensor, inputs: Tensor, threshold: float) -> Tensor:
    """Gradient where the absolute value is beyond a threshold."""
    return gradient * (inputs.abs() > threshold).to(gradient.dtype)


@TABLE.of(aten.gelu.default)
def gelu(inputs: Tensor, approximate: str = "none") -> Tensor:
    """Times the normal distribution, which the gradient reads too (Hendrycks and Gimpel 2016)."""
    if approximate == "tanh":
        found: Tensor = torch._decomp.decomposition_table[aten.gelu.default](inputs, approximate)
        return found
    return inputs * _distribution(inputs)


@TABLE.of(aten.gelu_backward.default)
def gelu_backward(gradient: Tensor, inputs: Tensor, approximate: str = "none") -> Tensor:
    """Distribution and input times density: of u = x / sqrt(2), u exp(-u^2) / sqrt(pi)."""
    if approximate == "tanh":
        known = torch._decomp.decomposition_table[aten.gelu_backward.default]
        found: Tensor = known(gradient, inputs, approximate)
        return found
    u = inputs * math.sqrt(0.5)
    density = (math.log(1 / math.sqrt(math.pi)) - u * u).exp()
    return gradient * (_distribution(inputs) + u * density)


def _distribution(inputs: Tensor) -> Tensor:
    return (inputs * math.sqrt(0.5)).erf() * 0.5 + 0.5
