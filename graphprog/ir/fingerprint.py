"""Fingerprints, which identify the source model of a program."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of a graph's canonical text and of its source weights, in hexadecimal."""

    text: str
    weights: str

    def __str__(self) -> str:
        return f"graph {self.text[:12]} weights {self.weights[:12]}"


class WeightHash:
    """SHA-256 over name, dtype, shape and bytes of every parameter and buffer, as they are now.

    What it hashed before is kept: a later call starts at the first tensor, in the order of the
    names, that is another one or was written to.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[_Seen, Any]] = []

    def __reduce__(self) -> Any:
        return WeightHash, ()  # a copy belongs to other tensors

    def __call__(self, source: nn.Module) -> str:
        """Return the hash of the tensors of a module, in hexadecimal."""
        tensors = (*source.named_parameters(remove_duplicate=False), *_buffers(source))
        named = sorted(tensors, key=lambda item: item[0])
        now = [_Seen.of(name, tensor) for name, tensor in named]
        pairs = zip(now, self._seen, strict=False)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1][0], pairs))
        seen = self._seen[:same]
        digest = seen[-1][1].copy() if seen else hashlib.sha256()
        for (name, tensor), state in zip(named[same:], now[same:], strict=True):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_bytes(tensor).cpu().numpy().data)
            seen.append((state, digest.copy()))
        self._seen = seen
        return str(digest.hexdigest())


def _buffers(source: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(source.named_buffers(remove_duplicate=False))


@dataclasses.dataclass(frozen=True, eq=False)
class _Seen:
    """A tensor when it was hashed: its memory, how often it was written to, and its sum.

    The sum finds what the version does not count, such as writes to ``tensor.data``. The weak
    reference keeps the number of the storage from being given to another one.
    """

    name: str
    kind: tuple[Any, ...]
    storage: StorageWeakRef
    version: int
    sum: int

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> _Seen:
        kind = (tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset())
        storage = StorageWeakRef(tensor.untyped_storage())
        version = 0 if tensor.is_inference() else tensor._version
        return cls(name, kind, storage, version, _sum(tensor))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Seen):
            return NotImplemented
        one, two = (
            (item.name, item.kind, item.storage.cdata, item.version, item.sum)
            for item in (self, other)
        )
        return one == two


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _sum(tensor: torch.Tensor) -> int:
    """Return the sum of the words of a tensor, at the speed of the memory."""
    data = _bytes(tensor)
    if data.storage_offset() % 8:
        data = data.clone()
    whole = len(data) // 8 * 8
    return int(data[:whole].view(torch.int64).sum()) + int(data[whole:].sum())
