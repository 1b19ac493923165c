"""Training data: tensors, datasets and loaders as batches, and splits."""

from __future__ import annotations
