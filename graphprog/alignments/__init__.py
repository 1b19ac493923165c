"""Alignments: how source outputs are read as answers of the target task."""

from __future__ import annotations
