"""Graphs as text for people: folded texts, tables of interfaces, differences, summaries.

Code here only displays. The canonical text, from which fingerprints are computed, is that of
:mod:`graphprog.ir.printing`.
"""

from __future__ import annotations
