"""Alignments that read labels as words or as whole answers.

Here belong label words, their tokens, and scores of answers. Text around the query belongs in
:mod:`graphprog.text.prompting`.
"""

from __future__ import annotations
