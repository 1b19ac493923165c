"""Passes that simplify a captured graph and change no result."""

from __future__ import annotations
