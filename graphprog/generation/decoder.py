"""The protocol of decoders, which return logits of new tokens, and the format of prompts."""

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
    """How a program turns prompts into tokens and parses answers.

    Attributes:
        prompt: adds the program's text to prompts and tokenizes them; None without a tokenizer.
        parser: parses answers; None if the program has none.
    """

    prompt: Prompt | None = None
    parser: AnswerParser | None = None

    @property
    def tokenizer(self) -> Any:
        """The tokenizer; None without one."""
        return None if self.prompt is None else self.prompt.tokens.tokenizer

    @classmethod
    def of(cls, program: Program, tokenizer: Any) -> PromptFormat:
        """Return the prompt format of a program for a model with this tokenizer.

        Raises:
            ProgramError: the object is not a tokenizer.
        """
        texts, parser = text_parts(program)
        if tokenizer is None:
            return cls(None, parser)
        return cls(Prompt(texts, require_tokenizer(tokenizer, "a prompt")), parser)


def text_parts(program: Program) -> tuple[tuple[TextPart, ...], AnswerParser | None]:
    """Return the text parts of a program, and its answer parser."""
    texts = tuple(part for part in program.manipulations if isinstance(part, TextPart))
    return texts, program.align if isinstance(program.align, AnswerParser) else None


@runtime_checkable
class Decoder(Protocol):
    """A model that is run token by token; see :func:`graphprog.with_kv_cache`.

    Attributes:
        roles: roles of its inputs.
        prompt_format: how prompts become tokens, and how answers are parsed.
    """

    @property
    def roles(self) -> Roles:
        """The roles of its inputs."""

    @property
    def prompt_format(self) -> PromptFormat:
        """How prompts become tokens, and how answers are parsed."""

    def advance(
        self, inputs: Mapping[str, torch.Tensor], cache: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """Compute the logits of new tokens.

        Args:
            inputs: of all tokens so far, by name.
            cache: the cache that the previous call returned; None at first.

        Returns:
            Logits [B, T, V] of at least the last token, and the new cache.
        """

    def select(self, cache: Any, rows: torch.Tensor) -> Any:
        """Select rows of a cache, in the given order; rows may repeat."""
