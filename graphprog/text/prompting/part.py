"""What a program of text consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from graphprog.spec.checks import require_choice
from graphprog.spec.registry import Spec

Kept = Literal["prefix", "text", "learnt-prefix", "learnt-tokens", "stored"]


@dataclass(frozen=True)
class TextPart(Spec):
    """Text around a query, in a :class:`graphprog.Program`.

    Attributes:
        kept: how a compiled program keeps what does not depend on the query. ``prefix``: as keys
            and values of attention, computed once; the model then reads the query alone.
            ``text``: as text, which is read again in front of every query, and so is all that
            stands behind it. ``learnt-prefix`` and ``learnt-tokens`` start from the text and are
            trained: keys and values, or word vectors. ``stored``: as another part of the program,
            which is what :func:`graphprog.precompute` makes.

    Example:
        >>> parts = [gp.Instruction("Be brief."), gp.Instruction("One word!", place="after")]
        >>> assert all(isinstance(part, gp.text.TextPart) for part in parts)
    """

    kept: Kept = field(default="prefix", kw_only=True)

    def __post_init__(self) -> None:
        require_choice(self.kind, "kept", self.kept, get_args(Kept))
