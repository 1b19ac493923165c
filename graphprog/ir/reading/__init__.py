"""Graphs as text for people: folded texts, tables of interfaces, differences, summaries.

Here belongs display only. The canonical text, the input of fingerprints, belongs in
:mod:`graphprog.ir.printing`.
"""

from __future__ import annotations
