"""Taps: named identity operations that hooks put into a graph during capture.

A tap marks the value that enters or leaves one call of a module. It is exact for repeated calls,
tuples of tensors and modules that compute nothing, for which module metadata alone is not enough.
The alias annotation keeps in-place semantics. Taps are removed before a graph is returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

_LIBRARY = torch.library.Library("graphprog", "DEF")
_LIBRARY.define("tap(Tensor(a) x, str key) -> Tensor(a)")
_LIBRARY.impl("tap", lambda x, key: torch.ops.aten.alias(x), "CompositeImplicitAutograd")


def _leaf_suffix(path: tuple[Any, ...], count: int) -> str:
    """Return ``""`` for a single leaf, else ``[0]`` or ``[name]``."""
    if count == 1:
        return ""
    return "".join(
        f"[{getattr(step, 'idx', None) if hasattr(step, 'idx') else getattr(step, 'key', step)}]"
        for step in path
    )


def _tap_tree(tree: Any, key: str) -> Any:
    """Tap every tensor leaf of a pytree; other leaves pass through."""
    leaves, spec = pytree.tree_flatten_with_path(tree)
    count = sum(isinstance(leaf, torch.Tensor) for _, leaf in leaves)
    tapped = [
        torch.ops.graphprog.tap(leaf, key + _leaf_suffix(path, count))
        if isinstance(leaf, torch.Tensor)
        else leaf
        for path, leaf in leaves
    ]
    return pytree.tree_unflatten(tapped, spec)


@contextmanager
def tapping(model: nn.Module) -> Iterator[None]:
    """Tap the inputs and outputs of every submodule call inside the block.

    Keys are ``path:in`` and ``path:out``; the second call of a module is ``path@1``; one of
    several leaves gets ``[index]`` or ``[name]``. Hooks are removed even after an exception.
    """
    calls: Counter[str] = Counter()
    open_calls: list[str] = []
    handles = []

    def enter(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number = calls[path]
        calls[path] += 1
        open_calls.append(f"{path}@{number}" if number else path)
        leaves, _ = pytree.tree_flatten((args, kwargs))
        key = open_calls[-1] + ":in"
        if sum(isinstance(leaf, torch.Tensor) for leaf in leaves) == 1:
            return _tap_tree(args, key), _tap_tree(kwargs, key)
        tapped = tuple(_tap_tree(value, f"{key}[{index}]") for index, value in enumerate(args))
        return tapped, {name: _tap_tree(value, f"{key}[{name}]") for name, value in kwargs.items()}

    def leave(result: Any) -> Any:
        return _tap_tree(result, open_calls.pop() + ":out")

    try:
        for path, module in model.named_modules():
            if path:
                handles.append(
                    module.register_forward_pre_hook(
                        lambda _m, a, k, path=path: enter(path, a, k), with_kwargs=True
                    )
                )
                handles.append(module.register_forward_hook(lambda _m, _a, result: leave(result)))
        yield
    finally:
        for handle in handles:
            handle.remove()
