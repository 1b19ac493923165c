"""The graph: operations, weights, interfaces, sizes, and how it prints, runs and is saved.

Here belongs the representation of a graph. Changing a graph belongs in :mod:`graphprog.rewriting`,
finding structure in it in :mod:`graphprog.analysis`. Nothing here knows about programs.
"""

from __future__ import annotations
