"""Programs made of text: instructions, demonstrations, chain of thought, and parsed answers.

This package has the public names; the code is in ``prompting`` (the text around a query),
``parsing`` (reading answers) and ``strategies`` (several calls for one answer). Generating text
belongs in :mod:`graphprog.generation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprog.utils.lazy import import_when_used

if TYPE_CHECKING:
    from graphprog.compiler.soft_prompt import soft_prompt as soft_prompt
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
    from graphprog.text.strategies.zero_shot_cot import ZeroShotCoT as ZeroShotCoT

import_when_used(__name__)
