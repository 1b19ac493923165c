"""Prompting strategies that call a model several times, and DSPy demonstration files.

They take any function from text to text; :func:`graphprog.generation.as_callable` turns a task
into one.
"""

from __future__ import annotations
