"""Row 5: a step of VPT-deep (Jia et al., ECCV 2022) before ViT-B/16, beside a plain loop.

    python -m benchmarks.rows.vpt [--device cuda] [--tiny]

Ten tokens before every block and a head of 100 classes on the class token; random weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from benchmarks.table.records import OURS, Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import in_turns
from benchmarks.works.images import captured, images, vit_base
from benchmarks.works.steps import Steps, agreement, steps

ROW = Row(5, "VPT-deep step, ViT-B/16 size", "plain VPT loop", (Ask("", 1.2),), gpu=True)
TOKENS, CLASSES = 10, 100


class Plain(nn.Module):
    """The method as its paper has it: prompts take the place of those of the block before."""

    def __init__(self, model: Any, prompts: list[torch.Tensor], head: nn.Linear) -> None:
        super().__init__()
        self.model, self.head = model, head
        self.prompts = nn.ParameterList(nn.Parameter(one.clone()) for one in prompts)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W] -> logits [B, classes]."""
        model = self.model
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        for number, (prompt, block) in enumerate(zip(self.prompts, model.blocks, strict=True)):
            rest = x[:, 1 + TOKENS * bool(number) :]
            x = block(torch.cat([x[:, :1], prompt.expand(len(x), -1, -1), rest], 1))
        logits: torch.Tensor = self.head(model.norm(x)[:, 0])
        return logits


def contestants(setting: Setting) -> Steps:
    """Return the step of each, from the same prompts and head."""
    model: Any = vit_base(setting)
    side = model.patch_embed.img_size[0]
    rows = 2 if setting.tiny else 32 if setting.cuda else 8
    pixels, labels = (one.to(setting.device) for one in images(rows, side, CLASSES))
    graph = captured(model, side, setting)
    program = gp.Program(gp.methods.vpt_deep(TOKENS), gp.LinearHead(CLASSES, at="features"))
    task = gp.compile(graph, program).to(setting.device).train()
    *prompts, weight, bias = task.program.parameters()
    head = nn.Linear(*reversed(weight.shape))
    head.load_state_dict({"weight": weight.data, "bias": bias.data})
    plain = Plain(model, [one.data for one in prompts], head).to(setting.device)
    trained = [*plain.prompts, *plain.head.parameters()]
    return steps(
        {
            "plain loop": (lambda: functional.cross_entropy(plain(pixels), labels), trained),
            OURS: (
                lambda: functional.cross_entropy(task(pixels), labels),
                list(task.program.parameters()),
            ),
        }
    )


def measure(setting: Setting) -> list[Record]:
    """Measure the step."""
    calls = contestants(setting)
    note = agreement(calls)
    return [record(ROW, ROW.asks[0], in_turns(calls, setting, warm=False), setting, note)]


if __name__ == "__main__":
    main(ROW, measure)
