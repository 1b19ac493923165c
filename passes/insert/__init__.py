"""Passes that replace a value on edges, bind an input, or align an output.

They keep all later shapes. Passes that change a length belong in
:mod:`graphprog.passes.extend_axis`.
"""

from __future__ import annotations
