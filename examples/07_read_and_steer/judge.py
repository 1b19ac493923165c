"""A judge of sentiment: MiniLM, frozen, under a linear head trained on other texts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from texts import other_texts

import graphprog as gp

sys.path.append(str(Path(__file__).parent.parent / "02_prompt_a_text_encoder"))
import encoder


class Judge:
    """Gives texts a probability of being positive."""

    def __init__(self) -> None:
        model, self.tokenizer = encoder.load()
        graph = encoder.capture(model, self.tokenizer)
        self.task = gp.compile(graph, gp.Program(align=gp.LinearHead(2)))
        texts, labels = zip(*other_texts(), strict=True)
        data = (*self.tokenizer(list(texts)), torch.tensor(labels))
        gp.fit(self.task, data, epochs=60, lr=0.05, batch_size=48, reuse="auto")

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Probabilities [N]."""
        with torch.no_grad():
            return self.task(*self.tokenizer(list(texts))).softmax(1)[:, 1]
