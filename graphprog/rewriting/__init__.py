"""Mechanics of changing a graph: the editor, edges, fake values, refusals."""

from __future__ import annotations
