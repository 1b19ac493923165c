"""Manipulations that change a value at an interface by arithmetic or by a network.

Additive patterns, scaling, adapters, projections, mixtures, and modules of the user.
"""

from __future__ import annotations
