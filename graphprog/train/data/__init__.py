"""Training data as batches: tensors, map-style data sets, loaders and splits.

Checks of values against the contract belong to the compiled model, not here.
"""

from __future__ import annotations
