"""Strategies of several calls for one answer, and demonstration files of DSPy.

They take any function from text to text; :func:`graphprog.generation.as_callable` makes one of a
task.
"""

from __future__ import annotations
