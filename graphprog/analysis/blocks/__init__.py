"""Blocks of a network: the residual stream, what repeats along it, and the stages of a hierarchy.

What they are called is decided in :mod:`graphprog.analysis.aliases`.
"""

from __future__ import annotations
