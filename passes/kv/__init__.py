"""Passes that prepend keys and values in attention, and that derive a KV cache.

Positions and masks are shifted here as if the sequence were longer.
"""

from __future__ import annotations
