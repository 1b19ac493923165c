"""Passes that simplify a captured graph without changing its results.

They run at capture: regions are inlined, in-place operations become functional, asserts and
inactive dropout are removed.
"""

from __future__ import annotations
