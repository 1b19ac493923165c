"""Capture of a PyTorch module, an exported program or a ``.pt2`` file as a graph.

Here belong tracing, taps that record interfaces, and lifting the trace into a
:class:`graphprog.Graph`.
The passes in :mod:`graphprog.passes.normalize` simplify the graph afterwards.
"""

from __future__ import annotations
