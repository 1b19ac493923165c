"""The graph: operations, weights, interfaces, sizes, and how it prints, runs and is saved.

Here belongs what a captured graph is, whatever was done to it. Changing a graph belongs in
:mod:`graphprog.rewriting`, finding structure in it in :mod:`graphprog.analysis`. Nothing here knows
of programs.
"""

from __future__ import annotations
