"""What a generated answer says: patterns, numbers, JSON, votes, scores.

Parsers are alignments, so that they stand in ``align=`` of a program.
"""

from __future__ import annotations
