"""Models that make parameters, buffers or layers at their first call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphprog.errors import CaptureError

_KINDS = ("_parameters", "_buffers", "_modules")


class FirstCall:
    """Notices what a model makes at the first call of its ``forward``.

    Args:
        model: the model, before it is traced.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.made: set[str] = set()
        self._before = _names(model)
        self._state = {
            module: (dict(vars(module)), {kind: dict(vars(module)[kind]) for kind in _KINDS})
            for module in model.modules()
        }

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """Notice what calls inside the block make."""

        def compare(*_: Any) -> None:
            self.made |= _names(self.model) - self._before

        handle = self.model.register_forward_hook(compare, always_call=True)
        try:
            yield
        finally:
            handle.remove()

    def make(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Undo what tracing made, and call the model, so that it makes it for good.

        Raises:
            CaptureError: a second call returns something else: the model keeps state.
        """
        for module, (own, registered) in self._state.items():
            vars(module).clear()
            vars(module).update(own)
            for kind, entries in registered.items():
                vars(module)[kind].clear()
                vars(module)[kind].update(entries)
        with torch.no_grad():
            first, second = (pytree.tree_leaves(self.model(*args, **kwargs)) for _ in range(2))
        if len(first) != len(second) or not all(map(_same, first, second)):
            names = ", ".join(sorted(self.made)[:4])
            raise CaptureError(
                f"{type(self.model).__name__} makes {names} at its first call, and returns "
                "something else at the second: it keeps state between calls",
                ["make them in __init__", "pass the state as an argument, and return it"],
            )


def _names(model: nn.Module) -> set[str]:
    """Return the paths of all parameters, buffers and modules that are there."""
    return {
        ".".join(filter(None, (path, name)))
        for path, module in model.named_modules()
        for kind in _KINDS
        for name, value in vars(module)[kind].items()
        if value is not None
    }


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.shape == second.shape and bool(
            torch.isclose(first, second, equal_nan=True).all()
        )
    return type(first) is type(second)
