"""Keys and values before those of attention, and the KV cache."""

from __future__ import annotations
