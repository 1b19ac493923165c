"""Soft prompts: trained parameters that start from text."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from graphprog.compiler.program import Program
from graphprog.errors import ProgramError
from graphprog.spec.checks import require_choice
from graphprog.text.prompting.demonstrations import Demonstrations
from graphprog.text.prompting.instruction import Instruction
from graphprog.text.prompting.part import Kept, TextPart

As = Literal["prefix", "tokens"]
_FORMS: dict[str, Kept] = {"prefix": "learned-prefix", "tokens": "learned-tokens"}


def soft_prompt(program: Program, by: As = "prefix") -> Program:
    """Turn a program of text into one that is trained and starts from the text.

    Compiled, its results are those of the text; :func:`graphprog.fit` then trains it.

    Args:
        program: with an instruction, or with demonstrations that all queries share.
        by: ``prefix`` trains the keys and values of the text, as cartridges do (Eyuboglu et al.,
            2025); ``tokens`` trains its token embeddings, as prompt tuning does, and also suits
            models that are not causal.

    Raises:
        ProgramError: the program has no such text.

    Example:
        >>> program = gp.text.soft_prompt(gp.Program([gp.Instruction("Be brief. ")]))
        >>> task = gp.compile(language, program)  # starts from the text, and trains
        >>> program.manipulations[0].kept
        'learned-prefix'
    """
    require_choice("soft_prompt", "by", by, get_args(As))
    texts = [part for part in program.manipulations if isinstance(part, TextPart)]
    soft = [part for part in texts if _is_soft(part)]
    if not soft:
        raise ProgramError(
            "the program has no text before all queries that training could start from",
            [
                "add gp.Instruction(text)",
                "add gp.Demonstrations(examples, template) in a fixed order",
            ],
        )
    chosen = {id(part): dataclasses.replace(part, kept=_FORMS[by]) for part in soft}
    parts = tuple(chosen.get(id(part), part) for part in program.manipulations)
    return dataclasses.replace(program, manipulations=parts)


def _is_soft(part: TextPart) -> bool:
    if isinstance(part, Demonstrations):
        return part.order != "nearest"
    return isinstance(part, Instruction) and part.place == "before"
