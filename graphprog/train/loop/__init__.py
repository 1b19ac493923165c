"""The training loop: epochs, steps, checkpoints, meters, counted mappings."""

from __future__ import annotations
