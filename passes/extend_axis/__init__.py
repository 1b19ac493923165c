"""The pass that inserts entries along an axis and re-derives all that follows."""

from __future__ import annotations
