"""What a graph is found to be: blocks, attention, towers, token inputs, what depends on what."""

from __future__ import annotations
