"""What a graph is found to be: blocks, towers, attention, token inputs, the lineage of an axis.

Every analysis reads a graph and returns facts; none changes it. Facts are found by structure, so
that no model class, library of models or modality is named here.
"""

from __future__ import annotations
