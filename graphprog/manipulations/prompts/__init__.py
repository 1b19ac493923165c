"""Manipulations that insert or replace entries along an axis, or keys and values before attention.

One file per operator; the entries themselves are values of :mod:`graphprog.values`.
"""

from __future__ import annotations
