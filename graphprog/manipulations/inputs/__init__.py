"""Manipulations that compute the source model's input from the target's.

Resizing, grids of images, other vocabularies, inputs held constant, normalization.
"""

from __future__ import annotations
