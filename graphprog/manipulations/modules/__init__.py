"""Manipulations that change values at an interface by arithmetic or a network."""

from __future__ import annotations
