"""The training loop: epochs, steps, checkpoints, meters and statistical mappings.

The objective, which defines what is minimized, belongs one level up.
"""

from __future__ import annotations
