"""Passes that replace a value on edges, bind an input, or align an output.

They keep every shape after them. What changes a length is in :mod:`graphprog.passes.extend_axis`.
"""

from __future__ import annotations
