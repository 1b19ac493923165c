"""Programs made of text: instructions, demonstrations, chains of thought, and parsed answers.

This package shows the public names; the code is in ``prompting`` (what is put around a query),
``parsing`` (what an answer says) and ``strategies`` (several calls for one answer). Generating text
belongs in :mod:`graphprog.generation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprog.utils.lazy import lazy_names

if TYPE_CHECKING:
    from graphprog.compiler.soft_prompt import soften as soften
    from graphprog.text.parsing.answers import AnswerParser as AnswerParser
    from graphprog.text.parsing.answers import Unparsed as Unparsed
    from graphprog.text.parsing.answers import unparsed_share as unparsed_share
    from graphprog.text.parsing.json_answers import ParseJSON as ParseJSON
    from graphprog.text.parsing.numbers import ParseNumber as ParseNumber
    from graphprog.text.parsing.parse import Parse as Parse
    from graphprog.text.parsing.scores import log_probability as log_probability
    from graphprog.text.parsing.scores import per_byte as per_byte
    from graphprog.text.parsing.scores import per_token as per_token
    from graphprog.text.parsing.scores import relative_to_prior as relative_to_prior
    from graphprog.text.parsing.vote import Vote as Vote
    from graphprog.text.parsing.vote import vote as vote
    from graphprog.text.prompting.calibration import CONTENT_FREE as CONTENT_FREE
    from graphprog.text.prompting.calibration import (
        contextual_calibration as contextual_calibration,
    )
    from graphprog.text.prompting.demonstrations import Demonstrations as Demonstrations
    from graphprog.text.prompting.demonstrations import Rendered as Rendered
    from graphprog.text.prompting.instruction import Instruction as Instruction
    from graphprog.text.prompting.leakage import check_leakage as check_leakage
    from graphprog.text.prompting.part import TextPart as TextPart
    from graphprog.text.prompting.prompt import Prompt as Prompt
    from graphprog.text.prompting.template import Template as Template
    from graphprog.text.prompting.tokenizer import TextTokens as TextTokens
    from graphprog.text.prompting.window import Window as Window
    from graphprog.text.strategies.dspy import load_demos as load_demos
    from graphprog.text.strategies.dspy import save_demos as save_demos
    from graphprog.text.strategies.least_to_most import LeastToMost as LeastToMost
    from graphprog.text.strategies.least_to_most import Solution as Solution
    from graphprog.text.strategies.zero_shot_cot import Reasoned as Reasoned
    from graphprog.text.strategies.zero_shot_cot import Trigger as Trigger

_PLACES = {
    "AnswerParser": "graphprog.text.parsing.answers:AnswerParser",
    "CONTENT_FREE": "graphprog.text.prompting.calibration:CONTENT_FREE",
    "Demonstrations": "graphprog.text.prompting.demonstrations:Demonstrations",
    "Instruction": "graphprog.text.prompting.instruction:Instruction",
    "LeastToMost": "graphprog.text.strategies.least_to_most:LeastToMost",
    "Parse": "graphprog.text.parsing.parse:Parse",
    "ParseJSON": "graphprog.text.parsing.json_answers:ParseJSON",
    "ParseNumber": "graphprog.text.parsing.numbers:ParseNumber",
    "Prompt": "graphprog.text.prompting.prompt:Prompt",
    "Reasoned": "graphprog.text.strategies.zero_shot_cot:Reasoned",
    "Rendered": "graphprog.text.prompting.demonstrations:Rendered",
    "Solution": "graphprog.text.strategies.least_to_most:Solution",
    "Template": "graphprog.text.prompting.template:Template",
    "TextPart": "graphprog.text.prompting.part:TextPart",
    "TextTokens": "graphprog.text.prompting.tokenizer:TextTokens",
    "Trigger": "graphprog.text.strategies.zero_shot_cot:Trigger",
    "Unparsed": "graphprog.text.parsing.answers:Unparsed",
    "Vote": "graphprog.text.parsing.vote:Vote",
    "Window": "graphprog.text.prompting.window:Window",
    "check_leakage": "graphprog.text.prompting.leakage:check_leakage",
    "contextual_calibration": "graphprog.text.prompting.calibration:contextual_calibration",
    "load_demos": "graphprog.text.strategies.dspy:load_demos",
    "log_probability": "graphprog.text.parsing.scores:log_probability",
    "per_byte": "graphprog.text.parsing.scores:per_byte",
    "per_token": "graphprog.text.parsing.scores:per_token",
    "relative_to_prior": "graphprog.text.parsing.scores:relative_to_prior",
    "save_demos": "graphprog.text.strategies.dspy:save_demos",
    "soften": "graphprog.compiler.soft_prompt:soften",
    "unparsed_share": "graphprog.text.parsing.answers:unparsed_share",
    "vote": "graphprog.text.parsing.vote:vote",
}
__all__ = sorted(_PLACES)
__getattr__ = lazy_names(__name__, _PLACES)
