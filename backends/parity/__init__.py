"""Results of a backend beside those of PyTorch, and where they part."""

from __future__ import annotations
