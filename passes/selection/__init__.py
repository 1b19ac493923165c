"""Selections that move up through a graph, so that only what is read is computed.

Here belong the kinds of selections, the rules by which operations let them pass, and the pass. The
exports to ONNX use the same functions on exported programs.
"""

from __future__ import annotations
