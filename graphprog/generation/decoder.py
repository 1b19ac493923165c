"""Decoders: anything that gives logits for new tokens, and the format of their prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from graphprog.analysis.roles import Roles
from graphprog.compiler.program import Program
from graphprog.text.parsing.answers import AnswerParser
from graphprog.text.prompting.part import TextPart
from graphprog.text.prompting.prompt import Prompt
from graphprog.text.prompting.tokenizer import require_tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class PromptFormat:
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
    def of(cls, program: Program, tokenizer: Any) -> PromptFormat:
        """The words of a program for a model with this tokenizer.

        Raises:
            ProgramError: what is given is no tokenizer.
        """
        texts, parser = text_parts(program)
        if tokenizer is None:
            return cls(None, parser)
        return cls(Prompt(texts, require_tokenizer(tokenizer, "a prompt")), parser)


def text_parts(program: Program) -> tuple[tuple[TextPart, ...], AnswerParser | None]:
    """The text parts of a program, and what reads its answers."""
    texts = tuple(part for part in program.manipulations if isinstance(part, TextPart))
    return texts, program.align if isinstance(program.align, AnswerParser) else None


@runtime_checkable
class Decoder(Protocol):
    """A model that is run token after token; see :func:`graphprog.with_kv_cache`.

    Attributes:
        roles: what its inputs are.
        prompt_format: what is put around prompts, and how answers are read.
    """

    @property
    def roles(self) -> Roles:
        """What its inputs are."""

    @property
    def prompt_format(self) -> PromptFormat:
        """What is put around prompts, and how answers are read."""

    def advance(
        self, inputs: Mapping[str, torch.Tensor], memory: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """Compute what is new.

        Args:
            inputs: of all tokens so far, by name.
            memory: what the call before returned; None at first.

        Returns:
            Logits [B, T, V] of at least the last tokens, and the new memory.
        """

    def select(self, memory: Any, rows: torch.Tensor) -> Any:
        """The memory of some rows, in that order; a row may be there several times."""
