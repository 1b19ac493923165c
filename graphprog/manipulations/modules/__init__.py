"""Manipulations that change a value at an interface by arithmetic or a network.

Additive patterns, scaling, adapters, projections, mixtures, and modules of your own.
"""

from __future__ import annotations
