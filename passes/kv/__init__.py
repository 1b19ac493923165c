"""Passes that put keys and values before those of attention, and that derive a KV cache.

Positions and masks are shifted here as for a longer sequence.
"""

from __future__ import annotations
