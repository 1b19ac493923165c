"""Passes that make a graph faster within a stated tolerance.

Each reports what it saved; :func:`graphprog.optimize` runs them.
"""

from __future__ import annotations
