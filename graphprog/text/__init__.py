"""Programs made of text: instructions, demonstrations, chains of thought, and reading answers."""

from __future__ import annotations

from graphprog.text.parsing.answers import AnswerParser, Unparsed, unparsed_share
from graphprog.text.parsing.json_answers import ParseJSON
from graphprog.text.parsing.numbers import ParseNumber
from graphprog.text.parsing.parse import Parse
from graphprog.text.parsing.scores import log_probability, per_byte, per_token, relative_to_prior
from graphprog.text.parsing.vote import Vote, vote
from graphprog.text.prompting.calibration import CONTENT_FREE, contextual_calibration
from graphprog.text.prompting.demonstrations import Demonstrations, Rendered
from graphprog.text.prompting.instruction import Instruction
from graphprog.text.prompting.leakage import check_leakage
from graphprog.text.prompting.part import TextPart
from graphprog.text.prompting.prompt import Prompt
from graphprog.text.prompting.template import Template
from graphprog.text.prompting.tokenizer import TextTokens
from graphprog.text.prompting.window import Window
from graphprog.text.strategies.dspy import load_demos, save_demos
from graphprog.text.strategies.least_to_most import LeastToMost, Solution
from graphprog.text.strategies.zero_shot_cot import Reasoned, Trigger

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
