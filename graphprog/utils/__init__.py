"""Tools that know nothing of graphs or programs.

Here belong atomic files, strict JSON, plots, arrays and nested tensors, differences of results,
lazy names. What reads a graph belongs in :mod:`graphprog.ir`; what reads a program belongs above
it.
"""

from __future__ import annotations
