"""What is put around prompts, and how answers are read."""

from __future__ import annotations

import dataclasses
from typing import Any

from graphprog.compiler.program import Program
from graphprog.text.parsing.answers import AnswerParser
from graphprog.text.prompting.part import TextPart
from graphprog.text.prompting.prompt import Prompt
from graphprog.text.prompting.tokenizer import require_tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Wording:
    """The words of a program.

    Attributes:
        prompt: puts its text around prompts and makes tokens of them; None without a tokenizer.
        parser: reads answers; None where the program has none.
    """

    prompt: Prompt | None = None
    parser: AnswerParser | None = None

    @property
    def tokenizer(self) -> Any:
        """The tokenizer; None without one."""
        return None if self.prompt is None else self.prompt.tokens.tokenizer

    @classmethod
    def of(cls, program: Program, tokenizer: Any) -> Wording:
        """The words of a program for a model with this tokenizer.

        Raises:
            ProgramError: what is given is no tokenizer.
        """
        texts, parser = words_of(program)
        if tokenizer is None:
            return cls(None, parser)
        return cls(Prompt(texts, require_tokenizer(tokenizer, "a prompt")), parser)


def words_of(program: Program) -> tuple[tuple[TextPart, ...], AnswerParser | None]:
    """The text parts of a program, and what reads its answers."""
    texts = tuple(part for part in program.manipulations if isinstance(part, TextPart))
    return texts, program.align if isinstance(program.align, AnswerParser) else None
