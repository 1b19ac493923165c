"""Manipulations that insert or replace entries along an axis, or keys and values of attention.

The entries themselves are values of :mod:`graphprog.values`.
"""

from __future__ import annotations
