"""Utilities that know nothing about graphs or programs.

Here belong atomic files, strict JSON, plots, arrays and nested tensors, differences of results,
lazy names. Code that reads a graph belongs in :mod:`graphprog.ir`; code that reads a program
belongs in a layer above it.
"""

from __future__ import annotations
