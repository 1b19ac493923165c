"""Graphs in which each row of a batch has its own program.

The program's operations are mapped over rows; rows that nobody reads are not computed.
"""

from __future__ import annotations
