"""Alignments for labels that are words or whole answers.

Label words, their tokens, and scores of answers. Text around the query belongs in
:mod:`graphprog.text.prompting`.
"""

from __future__ import annotations
