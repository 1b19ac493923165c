"""Small tasks to deploy: images with every kind of part, and text of any length."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.alignments import StatisticalModule


class BranchedCnn(nn.Module):
    """Batch norm, residual blocks, and two branches of equal depth that meet at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(3))
        )
        self.left = nn.Linear(8, 12)
        self.right = nn.Linear(8, 12)
        self.head = nn.Linear(12, 24)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = x + block(x)
        x = x.mean((2, 3))
        return self.head(torch.tanh(self.left(x)) + torch.tanh(self.right(x)))


class TextEncoder(nn.Module):
    """One block of masked self-attention over embedded tokens, then the mean of those present."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.words = nn.Embedding(50, width)
        self.positions = nn.Embedding(64, width)
        self.norm = nn.LayerNorm(width)
        self.packed = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.head = nn.Linear(width, 20)

    def forward(self, ids: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        batch, length = ids.shape
        x = self.words(ids) + self.positions(torch.arange(length, device=ids.device))
        q, k, v = (
            part.reshape(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.packed(self.norm(x)).chunk(3, -1)
        )
        mask = (present > 0)[:, None, None, :]
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, -1))
        weights = present.to(x.dtype)[:, :, None]
        return self.head((x * weights).sum(1) / weights.sum(1))


def image_graph() -> gp.Graph:
    torch.manual_seed(0)
    model = BranchedCnn().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that make a difference
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return gp.capture(model, (torch.rand(2, 3, 16, 16),))


def text_graph() -> gp.Graph:
    torch.manual_seed(0)
    example = (torch.randint(50, (2, 7)), torch.ones(2, 7, dtype=torch.int64))
    axes = {name: {0: "batch", 1: "sequence"} for name in ("ids", "present")}
    return gp.capture(TextEncoder().eval(), example, dynamic_axes=axes)


UNIT = gp.Contract(space="unit", mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def image_program(align: gp.Alignment | None = None, contract: gp.Contract = UNIT) -> gp.Program:
    """A placed gray image, a learned border, a learned steering vector inside, an alignment."""
    return gp.Program(
        [
            gp.ResizePad((1, 8, 8), size=10),
            gp.Additive(
                at="input",
                mask=gp.masks.border(inner=10),
                value=gp.Learnable(init="normal"),
                squash="tanh",
            ),
            gp.Additive(at="blocks.1:out", value=gp.Learnable(init="normal", shape=(8, 1, 1))),
        ],
        align=align if align is not None else gp.BayesianMap(classes=5),
        contract=contract,
    )


def image_task(
    graph: gp.Graph,
    align: gp.Alignment | None = None,
    seed: int = 0,
    contract: gp.Contract = UNIT,
) -> gp.ReprogrammedModel:
    return counted(gp.compile(graph, image_program(align, contract), seed=seed), seed)


def text_task(graph: gp.Graph) -> gp.ReprogrammedModel:
    steering = gp.Additive(at="tokens", value=gp.Learnable(init="normal", shape=(16,)))
    return gp.compile(graph, gp.Program([steering], align=gp.LinearHead(4)))


def text_batch(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    present = torch.ones(rows, length, dtype=torch.int64)
    present[0, length // 2 + 1 :] = 0
    return torch.randint(50, (rows, length)), present


def counted(task: gp.ReprogrammedModel, seed: int = 0) -> gp.ReprogrammedModel:
    """The task, with its mapping counted on random examples where it has a counted one."""
    module = task.alignment
    if isinstance(module, StatisticalModule):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(300, module.source_classes, generator=generator)
        labels = torch.randint(module.target_classes, (300,), generator=generator)
        module.refresh(module.count(values, labels))
    return task


def everything_of(task: gp.ReprogrammedModel) -> tuple[object, ...]:
    """All that a backend must leave alone."""
    tensors = {
        name: (id(tensor), tensor.requires_grad, tensor.grad, tensor._version)
        for name, tensor in [*task.named_parameters(), *task.named_buffers()]
    }
    state = {name: tensor.tolist() for name, tensor in task.program_state().items()}
    modes = {name: module.training for name, module in task.named_modules()}
    environment = task.graph.placeholders[0].meta["val"].fake_mode.shape_env
    sizes = str(environment.replacements), str(environment.var_to_range)
    hashes = task.source_hash(), task.graph.text, task.graph.module.code
    return tensors, state, modes, sizes, hashes
