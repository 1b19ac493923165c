"""Texts for programs of text, and what models make of them when they read them whole."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import graphprog as gp
from tests.models.text_models import REVIEWS, TEMPLATE, tokenizer

QUERIES = ["a funny film", "cold, dull, very bad, and in that it is long", "12"]
SHOWN = gp.Demonstrations(REVIEWS, TEMPLATE)
TOLD = gp.Instruction("Is the review good or bad?")
CAUSAL = ("gpt2", "llama")


def opened(name: str, text: str) -> list[int]:
    """A text as its tokenizer reads it, without what marks its end."""
    ids: list[int] = tokenizer(name)(text)["input_ids"]
    return ids[:-1] if name in ("closing", "bert") else ids


def behind(model: nn.Module, name: str, text: str) -> Tensor:
    """Logits of the token behind a text, which the model reads as a whole and alone."""
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([opened(name, text)])).logits
    return logits[0, -1]


def whole_text(query: str) -> str:
    """The text that a query stands for, written out."""
    shown = "".join(f"Review: {one['text']}\nSentiment: {one['label']}\n\n" for one in REVIEWS)
    return f"Is the review good or bad?\n\n{shown}Review: {query}\nSentiment:"
