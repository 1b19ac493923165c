"""The largest number of bytes that the tensors of a run hold at a time."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class PeakMemory(TorchDispatchMode):
    """Counts the storages that operations make, until they are freed.

    Attributes:
        peak: bytes of those that were alive at the same time, at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._alive = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = [*pytree.tree_leaves((args, kwargs))]
        for value in given:
            if isinstance(value, torch.Tensor):  # of before the run: not counted
                self._known.add(value.untyped_storage()._cdata)
        result = function(*args, **(kwargs or {}))
        for value in pytree.tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._known:
            return
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self._alive += size
        self.peak = max(self.peak, self._alive)

        def freed() -> None:
            self._known.discard(key)
            self._alive -= size

        weakref.finalize(storage, freed)
