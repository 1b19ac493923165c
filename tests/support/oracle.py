"""Eager references: what happens inside of a module is read and changed by forward hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

Change = Callable[[torch.Tensor], torch.Tensor]


def _steps(path: tuple[Any, ...]) -> str:
    return "".join(f"[{step.idx if hasattr(step, 'idx') else step.key}]" for step in path)


def _leaves(tree: Any, end: str) -> list[tuple[str, Any]]:
    """Keys of the leaves of a module's result, or of its (arguments, keywords)."""
    found, _ = pytree.tree_flatten_with_path(tree)
    # the first step only says whether it is an argument or a keyword
    skip = 1 if end.endswith(":in") else 0
    alone = sum(isinstance(leaf, torch.Tensor) for _, leaf in found) == 1
    return [(end if alone else end + _steps(path[skip:]), leaf) for path, leaf in found]


@contextmanager
def visiting(model: nn.Module, visit: Callable[[str, Any], Any]) -> Iterator[None]:
    """Let ``visit(key, value)`` take the place of every value entering or leaving a module."""
    calls: Counter[str] = Counter()
    opened: list[str] = []
    handles = []

    def rebuilt(tree: Any, end: str) -> Any:
        values = [
            visit(key, leaf) if isinstance(leaf, torch.Tensor) else leaf
            for key, leaf in _leaves(tree, end)
        ]
        return pytree.tree_unflatten(values, pytree.tree_structure(tree))

    def enter(path: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> Any:
            opened.append(path if not calls[path] else f"{path}@{calls[path]}")
            calls[path] += 1
            return rebuilt((args, kwargs), opened[-1] + ":in")

        return hook

    def leave(_: nn.Module, args: Any, result: Any) -> Any:
        return rebuilt(result, opened.pop() + ":out")

    for path, module in model.named_modules():
        if path:
            handles.append(module.register_forward_pre_hook(enter(path), with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def values_of(model: nn.Module, args: Any, kwargs: Any) -> dict[str, torch.Tensor]:
    """The value at every interface, as it was when it passed."""
    found: dict[str, torch.Tensor] = {}

    def keep(key: str, value: torch.Tensor) -> torch.Tensor:
        found[key] = value.detach().clone()
        return value

    with visiting(model, keep):
        model(*args, **kwargs)
    return found


def changed(model: nn.Module, changes: Mapping[str, Change], args: Any, kwargs: Any) -> Any:
    """The model's result when the values at some interfaces are changed."""
    missed = set(changes)

    def change(key: str, value: torch.Tensor) -> torch.Tensor:
        missed.discard(key)
        return changes[key](value) if key in changes else value

    with visiting(model, change):
        result = model(*args, **kwargs)
    assert not missed, f"the model has no {missed}"
    return result
