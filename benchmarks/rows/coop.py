"""Row 4: CoOp (Zhou et al., IJCV 2022), whole training, beside the authors' loop in plain PyTorch.

    python -m benchmarks.rows.coop [--device cuda] [--tiny]

A CLIP of the size of ViT-B/32 with random weights; 100 classes whose names have one to three
tokens, 16 tokens of context shared by all of them, texts padded to 77. The authors' step runs the
image tower on 32 images without gradients, and the text tower on all class texts with gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import benchmarks.turns  # noqa: F401  # makes torchvision importable, which transformers may find
import graphprog as gp
from benchmarks.table.records import OURS, Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import in_turns
from benchmarks.works.images import Data, images, loop
from benchmarks.works.steps import within

ROW = Row(
    4,
    "CoOp, CLIP ViT-B/32 size, 100 classes, 32 images a step, 5 epochs",
    "the authors' loop in plain PyTorch",
    (Ask("", 2.0),),
    gpu=True,
)
CONTEXT, LONGEST, EPOCHS, BATCH = 16, 77, 5, 32
START, END, TOKENS = 48, 49, 50
"""Token numbers of a small vocabulary; CLIP's is larger, and only looked up in."""


def clip(setting: Setting) -> Any:
    """A CLIP with random weights."""
    import transformers

    torch.manual_seed(0)
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    ids = {"vocab_size": TOKENS, "bos_token_id": START, "eos_token_id": END, "pad_token_id": 0}
    text, vision = ids | (small if setting.tiny else {}), small if setting.tiny else {}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision)
    return transformers.CLIPModel(config).eval().requires_grad_(False)


def class_texts(classes: int, length: int) -> torch.Tensor:
    """Ids [classes, length]: the start, a name, a period, the end, and padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.zeros(classes, length, dtype=torch.int64)
    for number, row in enumerate(ids):
        name = torch.randint(1, START, (1 + number % 3,), generator=generator)
        words = torch.cat([torch.tensor([START]), name, torch.tensor([1, END])])
        row[: len(words)] = words
    return ids


class Authors(nn.Module):
    """The authors' model: learnt context in the class texts, and both towers of CLIP."""

    def __init__(self, model: Any, ids: torch.Tensor, context: torch.Tensor) -> None:
        super().__init__()
        self.model, self.context = model, nn.Parameter(context.clone())
        self.register_buffer("end", ids.eq(END).int().argmax(1) + CONTEXT)
        with torch.no_grad():
            embedded = model.text_model.embeddings.token_embedding(ids)
        self.register_buffer("prefix", embedded[:, :1])
        self.register_buffer("suffix", embedded[:, 1:])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W] -> logits [B, classes]."""
        with torch.no_grad():
            seen = self.model.visual_projection(self.model.vision_model(pixels).pooler_output)
        read = self.text_features()
        seen, read = (functional.normalize(one, dim=-1) for one in (seen, read))
        logits: torch.Tensor = self.model.logit_scale.exp() * seen @ read.T
        return logits

    def text_features(self) -> torch.Tensor:
        """Features of the classes [classes, d]: the text tower with a causal mask, at the end."""
        tower = self.model.text_model
        shared = self.context.expand(len(self.prefix), -1, -1)
        x = torch.cat([self.prefix, shared, self.suffix], 1)
        x = x + tower.embeddings.position_embedding.weight[: x.shape[1]]
        for block in tower.encoder.layers:
            x = x + self.attend(block.self_attn, block.layer_norm1(x))
            x = x + block.mlp(block.layer_norm2(x))
        x = tower.final_layer_norm(x)
        x = x[torch.arange(len(x), device=x.device), self.end]
        features: torch.Tensor = self.model.text_projection(x)
        return features

    def attend(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        """Run causal self-attention by PyTorch's fused operation."""
        made = (one(x).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
                for one in (layer.q_proj, layer.k_proj, layer.v_proj))  # fmt: skip
        mixed = functional.scaled_dot_product_attention(*made, is_causal=True)
        result: torch.Tensor = layer.out_proj(mixed.transpose(1, 2).flatten(2))
        return result


def reprogrammed(model: Any, ids: torch.Tensor, side: int) -> gp.ReprogrammedModel:
    """Compile the class texts, and context after their first token, into a captured CLIP."""
    texts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    axes = {name: {0: "classes", 1: "sequence"} for name in texts} | {"pixel_values": {0: "batch"}}
    call = {"input_ids": ids[:3], "pixel_values": ids.new_ones(2, 3, side, side).float()}
    call["attention_mask"] = texts["attention_mask"][:3]
    graph = gp.capture(model, (), call, axes)
    context = gp.Concatenative(
        at="text.tokens", length=CONTEXT, offset=1, value=gp.Learnable("normal")
    )
    align = gp.FixedMap(len(ids), at="output:logits_per_image")
    return gp.compile(graph, gp.Program([context, gp.ConstantInputs(texts)], align))


def contestants(setting: Setting) -> tuple[dict[str, Callable[[], object]], str]:
    """Return whole training runs, and how far their first logits are apart."""
    model, classes = clip(setting).to(setting.device), 5 if setting.tiny else 100
    side = model.config.vision_config.image_size
    ids = class_texts(classes, LONGEST - CONTEXT).to(setting.device)
    task = reprogrammed(model, ids, side).to(setting.device)
    (context,) = task.program.parameters()
    authors = Authors(model, ids, context.data)
    steps = 8 if setting.cuda and not setting.tiny else 1
    data: Data = images(steps * BATCH, side, classes)
    with torch.no_grad():
        few = data[0][:2].to(setting.device)
        wanted, ours = authors(few), task.eval()(few)
    note = f"{len(data[1])} images; first logits {within(ours, wanted)}"

    def by_hand() -> None:
        def loss_of(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return functional.cross_entropy(authors(pixels), labels)

        loop(loss_of, [authors.context], data, EPOCHS, BATCH)

    def fit() -> object:
        return gp.fit(task, data, epochs=EPOCHS, batch_size=BATCH, progress=False)

    calls = {"plain PyTorch": by_hand, OURS: fit}
    return calls, note


def measure(setting: Setting) -> list[Record]:
    """Measure whole training runs."""
    calls, note = contestants(setting)
    least = 3 if setting.cuda else 1
    return [record(ROW, ROW.asks[0], in_turns(calls, setting, least, setting.cuda), setting, note)]


if __name__ == "__main__":
    main(ROW, measure)
