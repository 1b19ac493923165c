"""The public names of graphprog, and the modules that define them."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import graphprog as gp


def public_names() -> dict[str, str]:
    """Return ``gp.NAME`` -> the dotted path of its definition, each definition once."""
    found: dict[str, str] = {}
    _collect("gp", gp, found)
    return found


def _collect(prefix: str, namespace: Any, found: dict[str, str]) -> None:
    modules = {}
    for name in namespace.__all__:
        item = getattr(namespace, name)
        if isinstance(item, ModuleType):
            modules[f"{prefix}.{name}"] = item
        elif inspect.isclass(item) or inspect.isfunction(item):
            place = f"{item.__module__}.{item.__qualname__}"
            if place not in found.values():
                found[f"{prefix}.{name}"] = place
    for name, module in modules.items():
        if hasattr(module, "__all__"):
            _collect(name, module, found)
