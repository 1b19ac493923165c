"""Train the small CLIP that is frozen afterwards, on colored digits and their captions.

    python examples/05_vision_language/train.py

It is a ``CLIPModel`` of transformers with a tokenizer of its own, kept in a folder as the Hub has
them. The digits are those that no later split has.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import images
import torch
from rich.progress import track
from torch import nn
from torch.nn import functional

sys.path.append(str(Path(__file__).parent.parent))
import language_models

FOLDER = Path(__file__).parent / "outputs" / "model"
STEPS = 1200
PAIRS = 128
RATE = 2e-3
LONGEST = 32


def tokenizer() -> Any:
    """One token a word; a beginning and an end around them, as CLIP has it."""
    language_models.without_broken_torchvision()
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    fields = [
        *images.COLORS,
        *images.GROUNDS,
        *images.NAMES,
        *images.SHAPES,
        "upright leaning left right",
    ]
    spoken = " ".join([*images.CAPTIONS, *fields, "small large"]).split()
    words = sorted({word for word in spoken if "{" not in word})
    names = ["<pad>", "<unk>", *words, "<start>", "<end>"]
    numbers = {name: number for number, name in enumerate(names)}
    pieces = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[(name, numbers[name]) for name in ("<start>", "<end>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=LONGEST,
    )


def small_clip(tokens: Any, width: int, layers: int, seed: int) -> nn.Module:
    """An untrained CLIP of two small transformers."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    text = {
        "vocab_size": len(tokens),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": LONGEST,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "image_size": images.SIDE,
        "patch_size": 8,
    }
    config = CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=width, logit_scale_init_value=2.0
    )
    return CLIPModel(config)


def batches(seed: int) -> Iterator[images.Source]:
    """Pictures and captions without end."""
    chance = random.Random(seed)
    ink, labels = images.digits()["source"]
    while True:
        rows = torch.tensor([chance.randrange(len(labels)) for _ in range(PAIRS)])
        yield images.source(ink[rows], labels[rows], chance)


def loss_of(scores: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Contrastive loss of scores [N, N], in which all captions that are true of a picture count."""

    def one_way(scores: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(scores, true / true.sum(1, keepdim=True))

    return (one_way(scores, true) + one_way(scores.T, true.T)) / 2


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What prepares texts and pictures, kept beside the model: mean and deviation are 0.5."""

    tokens: Any

    def save_pretrained(self, folder: Path) -> None:
        """Write both as the Hub has them."""
        self.tokens.save_pretrained(folder)
        prepared = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        path = Path(folder) / "preprocessor_config.json"
        path.write_text(json.dumps(prepared), encoding="utf-8")


def main(steps: int = STEPS, seed: int = 0, folder: Path = FOLDER) -> Path:
    """Train and keep a model."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    tokens = tokenizer()
    model = small_clip(tokens, width=64, layers=3, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.05)
    started, used, losses = time.perf_counter(), time.process_time(), [math.inf]
    pairs = batches(seed)
    for step in track(range(steps), "training"):
        batch = next(pairs)
        rate = min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = RATE * rate
        texts = tokens(
            batch.captions, padding=True, return_tensors="pt", return_token_type_ids=False
        )
        scores = model(**texts, pixel_values=(batch.pictures - 0.5) / 0.5).logits_per_image
        loss = loss_of(scores, batch.true)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses = [*losses[-99:], loss.item()]
    record = {
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - used,
        "loss": sum(losses) / len(losses),
        "steps": steps,
        "seed": seed,
    }
    language_models.keep(folder, model, Preparation(tokens), record)
    return folder


if __name__ == "__main__":
    main()
