"""Passes that replace a value on edges, bind an input, or align an output.

They leave all shapes downstream unchanged. What changes a length is in
:mod:`graphprog.passes.extend_axis`.
"""

from __future__ import annotations
