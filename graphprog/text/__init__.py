"""Programs made of text: instructions, demonstrations, chains of thought, and reading answers."""

from __future__ import annotations

from graphprog.text.demonstrations import Demonstrations, Rendered
from graphprog.text.instruction import Instruction
from graphprog.text.leakage import check_leakage
from graphprog.text.template import Template
from graphprog.text.trigger import Reasoned, Trigger
from graphprog.text.window import Window

__all__ = [
    "Demonstrations",
    "Instruction",
    "Reasoned",
    "Rendered",
    "Template",
    "Trigger",
    "Window",
    "check_leakage",
]
