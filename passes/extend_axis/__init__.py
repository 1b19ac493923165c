"""The pass that inserts entries along an axis and adapts everything downstream.

``extend_axis`` is the pass, ``propagate`` walks the graph, and each other file has the rules for
one kind of operation or input. A rule that cannot prove that a number is the axis refuses.
"""

from __future__ import annotations
