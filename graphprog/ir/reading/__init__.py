"""How graphs are shown to people: folded texts, tables of interfaces, differences, summaries.

Here belongs what only shows. The canonical text, which fingerprints are taken of, is that of
:mod:`graphprog.ir.printing`.
"""

from __future__ import annotations
