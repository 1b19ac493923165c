"""Passes that make a graph faster within a stated tolerance."""

from __future__ import annotations
