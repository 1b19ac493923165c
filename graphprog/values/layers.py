"""Layers of program modules, initialized from a random generator."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
"""Activations by the names that specs use; ``silu`` is also called swish."""


class Affine(nn.Linear):
    """Linear layer with float32 parameters for any float dtype: [..., n] -> [..., m]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map the last axis."""
        bias: torch.Tensor | None = self.bias  # torch annotates it as always present
        bias = None if bias is None else bias.to(x.dtype)
        return functional.linear(x, self.weight.to(x.dtype), bias)


def affine(
    inputs: int, outputs: int, generator: torch.Generator, bias: bool = True, zero: bool = False
) -> Affine:
    """Make a linear layer, initialized as zeros or as usual: U(±1/√inputs)."""
    layer = Affine(inputs, outputs, bias=bias)
    restart(layer, generator)
    if zero:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return layer


def restart(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all linear layers and convolutions from a generator: U(±1/√fan_in)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
