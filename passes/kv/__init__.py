"""Passes that prepend keys and values in attention, and that derive a KV cache.

Here positions and masks are shifted as for a longer sequence.
"""

from __future__ import annotations
