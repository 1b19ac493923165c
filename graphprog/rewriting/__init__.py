"""The mechanics of changing a graph: editor, edges, fake values, inlining, refusals.

The editor is the only code that mutates operations. Which change is made, and why it is valid,
belongs to a pass in :mod:`graphprog.passes`.
"""

from __future__ import annotations
