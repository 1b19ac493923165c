"""Base of the text parts of a program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from graphprog.spec.checks import require_choice
from graphprog.spec.registry import Spec

Kept = Literal["prefix", "text", "learned-prefix", "learned-tokens", "stored"]


@dataclass(frozen=True)
class TextPart(Spec):
    """Text part of a :class:`graphprog.Program`, put before or after a query.

    Attributes:
        kept: how a compiled program keeps text that does not depend on the query. ``prefix``: as
            keys and values of attention, computed once; the model then reads the query alone.
            ``text``: as text, which the model reads again with every query, with all text after
            it. ``learned-prefix`` and ``learned-tokens``: as trained keys and values, or trained
            token embeddings, that start from the text. ``stored``: as another part of the
            program, which :func:`graphprog.precompute` makes.

    Example:
        >>> parts = [gp.Instruction("Be brief."), gp.Instruction("One word!", place="after")]
        >>> assert all(isinstance(part, gp.text.TextPart) for part in parts)
    """

    kept: Kept = field(default="prefix", kw_only=True)

    def __post_init__(self) -> None:
        require_choice(self.kind, "kept", self.kept, get_args(Kept))
