"""From a PyTorch module, an exported program or a file to a graph.

Tracing, taps that record interfaces, and lifting the trace into a :class:`graphprog.Graph`.
Simplifying the graph afterwards is done by the passes in :mod:`graphprog.passes.normalize`.
"""

from __future__ import annotations
