"""Parse and score generated answers: patterns, numbers, JSON, votes, log-probabilities.

Parsers are alignments, so they can be the ``align=`` of a program.
"""

from __future__ import annotations
