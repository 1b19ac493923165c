"""All families."""

from __future__ import annotations

import functools

from sweep.families import graph_networks, huggingface, timm_models
from sweep.family import Family


@functools.cache
def families() -> tuple[Family, ...]:
    """All families, library after library."""
    return (*graph_networks.families(), *timm_models.families(), *huggingface.families())


def family_named(name: str) -> Family:
    """One family.

    Raises:
        LookupError: there is none of that name.
    """
    for family in families():
        if family.name == name:
            return family
    raise LookupError(f"no family {name!r}; python -m sweep --list shows all")
