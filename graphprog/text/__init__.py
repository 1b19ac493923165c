"""Programs made of text: instructions, demonstrations, chains of thought, and reading answers."""

from __future__ import annotations

from graphprog.text.answers import AnswerParser, Unparsed, unparsed_share
from graphprog.text.calibration import CONTENT_FREE, contextual_calibration
from graphprog.text.demonstrations import Demonstrations, Rendered
from graphprog.text.dspy import load_demos, save_demos
from graphprog.text.instruction import Instruction
from graphprog.text.json_answers import ParseJSON
from graphprog.text.leakage import check_leakage
from graphprog.text.least_to_most import LeastToMost, Solution
from graphprog.text.numbers import ParseNumber
from graphprog.text.parse import Parse
from graphprog.text.part import TextPart
from graphprog.text.prompt import Prompt
from graphprog.text.scores import log_probability, per_byte, per_token, relative_to_prior
from graphprog.text.template import Template
from graphprog.text.tokens import TextTokens
from graphprog.text.trigger import Reasoned, Trigger
from graphprog.text.vote import Vote, vote
from graphprog.text.window import Window

__all__ = [
    "CONTENT_FREE",
    "AnswerParser",
    "Demonstrations",
    "Instruction",
    "LeastToMost",
    "Parse",
    "ParseJSON",
    "ParseNumber",
    "Prompt",
    "Reasoned",
    "Rendered",
    "Solution",
    "Template",
    "TextPart",
    "TextTokens",
    "Trigger",
    "Unparsed",
    "Vote",
    "Window",
    "check_leakage",
    "contextual_calibration",
    "load_demos",
    "log_probability",
    "per_byte",
    "per_token",
    "relative_to_prior",
    "save_demos",
    "unparsed_share",
    "vote",
]
