"""Alignments that map source labels to target labels, by rule or counted."""

from __future__ import annotations
