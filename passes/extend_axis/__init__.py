"""The pass that inserts entries along an axis and adapts everything downstream.

``extend_axis`` is the pass, ``propagate`` walks the graph, the other files hold the rules for one
kind of operation or input each. Where a rule cannot prove that a number is the axis, it refuses.
"""

from __future__ import annotations
