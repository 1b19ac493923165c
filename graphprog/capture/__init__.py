"""From a PyTorch module, an exported program or a file to a graph."""

from __future__ import annotations
