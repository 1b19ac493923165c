"""Steering: directions between two sets of inputs, their strength, and files of them.

Here belongs finding what to add to values; the manipulations that add it are
:class:`graphprog.Additive` and :class:`graphprog.ConditionalSteering`.
"""

from __future__ import annotations
