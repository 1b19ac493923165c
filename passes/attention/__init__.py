"""Attention written out, found and matched into one operation."""

from __future__ import annotations
