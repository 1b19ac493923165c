"""The programs that are compared: a head alone, and two kinds of prompts with the same head."""

from __future__ import annotations

import dataclasses

from data import LIBRARIES

import graphprog as gp

LABELS = tuple(LIBRARIES)
CONTRACT = gp.Contract(labels=LABELS)
HEAD = gp.LinearHead(len(LABELS), at="pooling:out")
POOLED = "pooling:in[0]"
TOKENS = 8


@dataclasses.dataclass(frozen=True)
class Method:
    """Prompts, and how they are trained."""

    name: str
    manipulations: tuple[gp.Manipulation, ...]
    epochs: int
    lr: float

    @property
    def program(self) -> gp.Program:
        """The prompts with the head."""
        return gp.Program(self.manipulations, HEAD, CONTRACT)


def methods(epochs: int) -> list[Method]:
    """Prompts behind the class token: in front of the whole encoder, or anew before every block.

    The pooling leaves them out: they work through what the text reads from them.
    """
    shallow = gp.Concatenative(at="tokens", length=TOKENS, offset=1, until=POOLED, name="prompt")
    first, *fresh = gp.methods.vpt_deep(tokens=TOKENS)
    deep = (dataclasses.replace(first, until=POOLED), *fresh)
    return [
        Method("prompt tuning", (shallow,), epochs, lr=0.003),
        Method("deep prompts", deep, epochs, lr=0.003),
    ]
