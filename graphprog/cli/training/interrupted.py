"""Interruption of a command, with what is saved and how to go on."""

from __future__ import annotations


class InterruptedRunError(Exception):
    """The user pressed Ctrl-C; the text says how to go on."""
