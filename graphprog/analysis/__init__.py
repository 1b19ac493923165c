"""Analyses of a graph: blocks, towers, attention, token inputs, the lineage of an axis.

An analysis reads a graph and returns facts; it never changes the graph. Facts are found by
structure: no model class, model library or modality is named here.
"""

from __future__ import annotations
