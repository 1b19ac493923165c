"""Alignments that read labels as words."""

from __future__ import annotations
