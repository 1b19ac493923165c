"""A frozen CLIP as one graph, and what says how its pictures and texts are prepared."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import graphprog as gp

sys.path.append(str(Path(__file__).parent.parent))
import language_models

INPUTS = ("input_ids", "attention_mask", "pixel_values")


@dataclasses.dataclass(frozen=True)
class Clip:
    """A captured model with its preparation.

    Attributes:
        graph: takes texts [K, S] with their mask, and pictures [B, 3, H, W].
        tokenizer: of transformers.
        side: H and W.
        mean: of pictures in [0, 1], by channel.
        std: deviation, likewise.
    """

    graph: gp.Graph
    tokenizer: Any
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Ids and mask of texts, int64 [K, S] each."""
        read = self.tokenizer(list(texts), padding=True, return_tensors="pt")
        return {name: read[name] for name in INPUTS[:2]}

    def words(self, text: str) -> tuple[int, ...]:
        """Tokens of a text without those that begin and end it."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def load(name: str | Path) -> Clip:
    """Capture a CLIP with the number of texts, their length and the batch of pictures left open.

    Args:
        name: ``hf:owner/name`` of the Hugging Face Hub, or a folder as ``save_pretrained`` has it.
    """
    language_models.without_broken_torchvision()
    from transformers import AutoTokenizer, CLIPModel
    from transformers.utils import cached_file, logging

    logging.disable_progress_bar()
    place = str(name).removeprefix("hf:")
    if place == str(name) and not Path(name).is_dir():
        raise FileNotFoundError(f"{name} is no folder; a model of the Hub is hf:owner/name")
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = CLIPModel.from_pretrained(place, dtype=torch.float32).eval()
    prepared = json.loads(Path(cached_file(place, "preprocessor_config.json")).read_text("utf-8"))
    side = model.config.vision_config.image_size
    texts = tokenizer(["one", "a text of another length"], padding=True, return_tensors="pt")
    call = {name: texts[name] for name in INPUTS[:2]} | {
        "pixel_values": torch.rand(2, 3, side, side)
    }
    axes = {name: {0: "texts", 1: "sequence"} for name in INPUTS[:2]}
    graph = gp.capture(model, (), call, axes | {"pixel_values": {0: "batch"}})
    return Clip(graph, tokenizer, side, tuple(prepared["image_mean"]), tuple(prepared["image_std"]))
