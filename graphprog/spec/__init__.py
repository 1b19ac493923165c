"""Specs: frozen dataclasses that print as text, parse back, and are checked where they are read."""

from __future__ import annotations
