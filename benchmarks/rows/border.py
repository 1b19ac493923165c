"""Row 6: a step of a border program, beside the loop of ILM-VP (Chen et al., CVPR 2023) by hand.

    python -m benchmarks.rows.border [--device cuda] [--tiny]

Images of 128×128 on a canvas of 224×224, the sigmoid of a learnt frame around them,
normalization, and ten of the source's classes. The loop is the authors' in float32. The source is
optimized here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from benchmarks.table.records import OURS, Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import efficientnet_lite0, in_turns
from benchmarks.works.images import CLASSES, captured, images, resnet50
from benchmarks.works.steps import Steps, agreement, steps

ROW = Row(
    6,
    "border program step",
    "plain ILM-VP loop",
    (Ask("EfficientNet-Lite0", 2.0), Ask("ResNet-50", 1.3)),
    gpu=True,
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SOURCES: dict[str, Callable[[], nn.Module]] = {
    "EfficientNet-Lite0": efficientnet_lite0,
    "ResNet-50": resnet50,
}


class Plain(nn.Module):
    """The authors' visual prompt, network and label mapping."""

    def __init__(self, model: nn.Module, side: int, inner: int, classes: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.program = nn.Parameter(torch.zeros(3, side, side))
        self.edges = (side - inner) // 2, (side - inner + 1) // 2
        mask = functional.pad(torch.zeros(3, inner, inner), 2 * self.edges, value=1.0)
        for name, value in (("mask", mask), ("classes", classes), *_normalization().items()):
            self.register_buffer(name, value)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, h, h] -> logits [B, classes]."""
        framed = functional.pad(images, 2 * self.edges) + torch.sigmoid(self.program) * self.mask
        logits: torch.Tensor = self.model((framed - self.mean) / self.std)[:, self.classes]
        return logits


def _normalization() -> dict[str, torch.Tensor]:
    return {"mean": torch.tensor(MEAN)[:, None, None], "std": torch.tensor(STD)[:, None, None]}


def contestants(model: nn.Module, rows: int, setting: Setting) -> Steps:
    """Return the step of each, from a frame of zeros and the same classes."""
    side, inner = (64, 32) if setting.tiny else (224, 128)
    pixels, labels = (one.to(setting.device) for one in images(rows, inner))
    program = gp.Program(
        gp.methods.ilm_vp((3, inner, inner)),
        gp.FixedMap(CLASSES),
        gp.Contract("unit", MEAN, STD),
    )
    task = (
        gp.compile(gp.optimize(captured(model, side, setting)), program).to(setting.device).train()
    )
    plain = Plain(model, side, inner, torch.arange(CLASSES)).to(setting.device)
    (own,) = task.program.parameters()
    return steps(
        {
            "plain loop": (
                lambda: functional.cross_entropy(plain(pixels), labels),
                [plain.program],
            ),
            OURS: (lambda: functional.cross_entropy(task(pixels), labels), [own]),
        }
    )


def measure(setting: Setting) -> list[Record]:
    """Measure both sources; one that is not installed is said to be missing."""
    found = []
    rows = {"EfficientNet-Lite0": 32, "ResNet-50": 64 if setting.cuda else 8}
    for ask in ROW.asks:
        if ask.name == "EfficientNet-Lite0" and not _installed():
            note = "the package efficientnet_lite_pytorch is not installed"
            found.append(record(ROW, ask, {}, setting, note))
            continue
        calls = contestants(SOURCES[ask.name](), 2 if setting.tiny else rows[ask.name], setting)
        note = agreement(calls)
        found.append(record(ROW, ask, in_turns(calls, setting, warm=False), setting, note))
    return found


def _installed() -> bool:
    return importlib.util.find_spec("efficientnet_lite_pytorch") is not None


if __name__ == "__main__":
    main(ROW, measure)
