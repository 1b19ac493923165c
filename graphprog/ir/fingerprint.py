"""Fingerprints, which identify the source model of a program."""

from __future__ import annotations

import dataclasses
import hashlib

import torch
from torch import nn


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of a graph's canonical text and of its source weights, in hexadecimal."""

    text: str
    weights: str

    @classmethod
    def of(cls, text: str, source: nn.Module) -> Fingerprint:
        """Compute the fingerprint of a graph's text without provenance and its current weights."""
        return cls(hashlib.sha256(text.encode()).hexdigest(), weight_hash(source))

    def __str__(self) -> str:
        return f"graph {self.text[:12]} weights {self.weights[:12]}"


def weight_hash(source: nn.Module) -> str:
    """Compute SHA-256 over name, dtype, shape and bytes of every parameter and buffer."""
    digest = hashlib.sha256()
    tensors: list[tuple[str, torch.Tensor]] = [
        *source.named_parameters(remove_duplicate=False),
        *source.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        data = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()
