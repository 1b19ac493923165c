"""Layers found in a graph: affine layers, those of attention and feed-forward, and norms.

What they are is decided by operations and what these read, never by the names of modules.
"""

from __future__ import annotations
