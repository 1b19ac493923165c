"""The largest number of bytes that tensors take at once during a block of code."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make inside the block, as long as they live.

    The backward pass counts, too. What operations use inside of themselves does not, nor do
    tensors that were there before.

    Attributes:
        peak: the largest number of bytes at once, so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._known: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, and count what it makes."""
        for given in pytree.tree_leaves((args, kwargs)):
            if _is_real(given):
                self._see(given, 0)
        result = function(*args, **(kwargs or {}))
        for made in pytree.tree_leaves(result):
            if _is_real(made):
                self._see(made, made.untyped_storage().nbytes())
        self.peak = max(self.peak, self._now)
        return result

    def _see(self, value: torch.Tensor, size: int) -> None:
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._now += size
            self._known[key] = weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self._now -= size

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)  # type: ignore[no-untyped-call]
        for one in self._known.values():
            one.detach()
        self._known.clear()


def _is_real(value: Any) -> bool:
    """Whether a value is a tensor with memory of its own, as fake ones are not."""
    return type(value) in (torch.Tensor, torch.nn.Parameter) and not value.is_meta
