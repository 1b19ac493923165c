"""Passes that replace a value on edges, or align an output."""

from __future__ import annotations
