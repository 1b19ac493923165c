"""The training loop: epochs, steps, checkpoints, meters, and counted mappings.

What is minimized belongs to the objective, one level up.
"""

from __future__ import annotations
