"""Specs: frozen dataclasses that print as text, parse back, and are checked where they are read.

Here belong the registry, the grammar of the text, and checks of fields. What a spec means belongs
to the class that is registered: a manipulation, an alignment, a value, a pass.
"""

from __future__ import annotations

from graphprog.spec.registry import (
    ENTRY_POINTS,
    Spec,
    format_spec,
    from_json,
    parse_spec,
    spec,
    to_json,
)

__all__ = [
    "ENTRY_POINTS",
    "Spec",
    "format_spec",
    "from_json",
    "parse_spec",
    "spec",
    "to_json",
]
