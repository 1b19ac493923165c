"""The text that a program puts around a query, and its tokens.

Templates, instructions, demonstrations and their selection, calibration. Nothing here reads a
graph.
"""

from __future__ import annotations
