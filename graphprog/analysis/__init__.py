"""Facts about a graph, found by structure: blocks, towers, attention, token inputs, axes.

Every analysis reads a graph and returns facts; none changes it. No model class, library of models
or modality is named here.
"""

from __future__ import annotations
