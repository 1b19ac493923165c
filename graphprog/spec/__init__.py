"""Specs: frozen dataclasses that print as text, parse back, and are checked where they are read."""

from __future__ import annotations

from graphprog.spec.registry import (
    ENTRY_POINTS,
    Spec,
    format_spec,
    from_json,
    parse_spec,
    register_lazily,
    spec,
    to_json,
)

__all__ = [
    "ENTRY_POINTS",
    "Spec",
    "format_spec",
    "from_json",
    "parse_spec",
    "register_lazily",
    "spec",
    "to_json",
]
