"""Manipulations that compute the source model's input from the target example.

Resizing and padding, image grids, other vocabularies, constant inputs, normalization.
"""

from __future__ import annotations
