"""Mechanics of graph rewriting: editor, edges, fake values, inlining, refusals.

The editor is the only code that mutates operations. What to change, and why that is valid, belongs
to the passes in :mod:`graphprog.passes`.
"""

from __future__ import annotations
