"""Vision models, and whole training runs on images by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

import benchmarks.turns  # noqa: F401  # makes torchvision importable, which timm needs
import graphprog as gp
from benchmarks.table.records import Setting

BATCH, CLASSES = 16, 10
Data = tuple[torch.Tensor, torch.Tensor]


def vit_base(setting: Setting) -> nn.Module:
    """A transformer of the size of ViT-B/16 from timm, with random weights."""
    more = {"img_size": 32, "depth": 3, "embed_dim": 24, "num_heads": 2} if setting.tiny else {}
    return _timm("vit_base_patch16_224", num_classes=100, **more)


def vit_small(setting: Setting, side: int) -> nn.Module:
    """A transformer of 12 blocks of width 384, with random weights.

    Args:
        setting: how it is measured.
        side: of the images.
    """
    more = {"embed_dim": 24, "num_heads": 2} if setting.tiny else {}
    return _timm("vit_small_patch16_224", img_size=side, num_classes=CLASSES, **more)


def resnet50() -> nn.Module:
    """ResNet-50 with random weights."""
    return _timm("resnet50")


def _timm(name: str, **settings: object) -> nn.Module:
    import timm

    torch.manual_seed(0)
    made: nn.Module = timm.create_model(name, **settings)
    return made.eval().requires_grad_(False)


def captured(model: nn.Module, side: int, setting: Setting) -> gp.Graph:
    """Move a model to the device of the setting, and capture it there.

    Args:
        model: takes images.
        side: of the images.
        setting: how it is measured.
    """
    example = torch.rand(2, 3, side, side, device=setting.device)
    return gp.capture(model.to(setting.device), (example,))


def images(count: int, side: int, classes: int = CLASSES) -> Data:
    """Return random images and labels, on the CPU as data are."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, side, side, generator=generator), torch.arange(count) % classes


def loop(
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    parameters: Sequence[nn.Parameter],
    data: Data,
    epochs: int,
    batch: int = BATCH,
) -> None:
    """Train by hand."""
    optimizer = torch.optim.Adam(parameters, 0.01)
    device = parameters[0].device
    for _ in range(epochs):
        for index in torch.randperm(len(data[1])).split(batch):
            loss = loss_of(data[0][index].to(device), data[1][index].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def head_loop(model: nn.Module, data: Data, epochs: int) -> None:
    """Train a linear head on the features of a model, which runs under ``no_grad``."""
    head = nn.Linear(model.num_features, CLASSES).to(next(model.parameters()).device)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = model.forward_head(model.forward_features(images), pre_logits=True)
        return functional.cross_entropy(head(features), labels)

    loop(loss_of, list(head.parameters()), data, epochs)


def inside_loop(model: nn.Module, data: Data, epochs: int) -> None:
    """Train a vector added to the input of block 9; what is before runs under ``no_grad``."""
    vector = nn.Parameter(torch.zeros(model.num_features, device=next(model.parameters()).device))

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            hidden = model.norm_pre(model._pos_embed(model.patch_embed(images)))
            hidden = model.blocks[:9](hidden)
        logits = model.forward_head(model.norm(model.blocks[9:](hidden + vector)))
        return functional.cross_entropy(logits, labels)

    loop(loss_of, [vector], data, epochs)
