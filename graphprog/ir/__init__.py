"""The graph: operations, weights, interfaces, sizes, and how it prints and runs."""

from __future__ import annotations
