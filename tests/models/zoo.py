"""Models to capture: hand-written corner cases, and small architectures of model libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import graphprog as gp
from tests.models import corner_models as corner
from tests.models import library_models as library
from tests.models.networks import corner as networks

# Attention chooses its kernel by what needs gradients, and a fused one that tracing cannot see.
# References run frozen and without it, as graphs do; else the two differ by rounding.
torch.backends.mha.set_fastpath_enabled(False)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model to build and a call of it.

    Attributes:
        build: makes the model with random weights.
        call: makes positional and keyword arguments for a batch size.
        axes: dynamic axes to capture with.
    """

    build: Callable[[], nn.Module]
    call: Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]
    axes: dict[str, dict[int, str]] | None = None

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        model = self.build()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        for parameter in model.parameters():
            if not parameter.any():  # a head of zeros would hide every difference
                nn.init.normal_(parameter, std=0.1)
        return model.eval().requires_grad_(False)


def images(size: int = 16, channels: int = 3) -> Callable[[int], tuple[tuple[Any, ...], dict]]:
    def call(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        generator = torch.Generator().manual_seed(batch)
        return (torch.randn(batch, channels, size, size, generator=generator),), {}

    return call


def vectors(*sizes: int) -> Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]:
    def call(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        generator = torch.Generator().manual_seed(batch)
        return (torch.randn(batch, *sizes, generator=generator),), {}

    return call


def tokens(length: int = 6, **constants: Any) -> Callable[[int], tuple[tuple[Any, ...], dict]]:
    """``input_ids`` and a mask with padding, by keyword."""

    def call(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        generator = torch.Generator().manual_seed(batch)
        ids = torch.randint(1, 90, (batch, length), generator=generator)
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[0, length - 2 :] = 0
        return (), {"input_ids": ids, "attention_mask": mask, **constants}

    return call


def towers(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (vectors(8)(batch)[0][0], vectors(8)(batch + 1)[0][0][:batch]), {}


CORNERS: dict[str, Case] = {
    "sequential": Case(corner.plain_cnn, images()),
    "residual": Case(corner.ResidualNet, images()),
    "reused": Case(corner.Reused, vectors(8)),
    "identities": Case(corner.Identities, vectors(8)),
    "tuples": Case(corner.TupleParts, vectors(8)),
    "dictionary": Case(corner.DictOutput, vectors(8)),
    "returns-input": Case(corner.ReturnsInput, vectors(8)),
    "inplace": Case(corner.InPlace, vectors(8)),
    "inplace-view": Case(corner.InPlaceView, vectors(8)),
    "inplace-chunk": Case(corner.InPlaceChunk, vectors(8)),
    "inplace-dropout": Case(corner.InPlaceAfterDropout, vectors(8)),
    "inplace-half": Case(corner.InPlaceHalf, vectors(8)),
    "tied": Case(networks.Tied, lambda batch: ((tokens()(batch)[1]["input_ids"],), {})),
    "no-grad": Case(networks.Rotary, vectors(6, 8)),
    "nested-regions": Case(networks.NestedRegions, vectors(6, 8)),
    "transformer": Case(
        networks.Encoder,
        tokens(),
        {"input_ids": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "sequence"}},
    ),
    "two-towers": Case(networks.TwoTowers, towers),
    "lstm": Case(networks.Recurrent, vectors(6, 8)),
}


def pairs(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """As many captions as images."""
    _, call = tokens(7)(batch)
    call["input_ids"][:, -1] = 99
    call["pixel_values"] = images(32)(batch)[0][0]
    return (), call


SEQUENCES = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}

LIBRARIES: dict[str, Case] = {
    "torchvision-resnet18": Case(lambda: library.torchvision_model("resnet18"), images(32)),
    "torchvision-vit": Case(library.small_vit, images(32)),
    "timm-vit": Case(
        lambda: library.timm_model(
            "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=3, embed_dim=48
        ),
        images(32),
    ),
    "timm-resnet": Case(lambda: library.timm_model("resnet10t"), images(32)),
    "timm-convnext": Case(
        lambda: library.timm_model("convnext_atto", depths=(1, 1, 3, 1)), images(32)
    ),
    "timm-efficientnet": Case(lambda: library.timm_model("efficientnet_lite0"), images(32)),
    "timm-mixer": Case(lambda: library.timm_model("mixer_s32_224", img_size=64), images(64)),
    "timm-swin": Case(
        lambda: library.timm_model(
            "swin_tiny_patch4_window7_224",
            img_size=56,
            embed_dim=24,
            depths=(1, 2, 2),
            num_heads=(1, 2, 4),
        ),
        images(56),
    ),
    "bert": Case(library.bert, tokens(), SEQUENCES),
    "gpt2": Case(library.gpt2, tokens(use_cache=False), SEQUENCES),
    "llama": Case(library.llama, tokens(use_cache=False), SEQUENCES),
    "vit": Case(library.vit, images(32)),
    "clip": Case(library.clip, pairs),
}

CASES = {**CORNERS, **LIBRARIES}

QUICK = {*CORNERS, "torchvision-resnet18", "timm-convnext", "bert", "gpt2"}
"""Cases of the default run; they stand for the others."""


def cases(names: Iterable[str]) -> list[Any]:
    """Test parameters; the tests of one case share a worker, and so its capture."""
    return [
        pytest.param(
            name, marks=[pytest.mark.xdist_group(name), *([pytest.mark.slow] * (name not in QUICK))]
        )
        for name in names
    ]


@cache
def captured(name: str) -> tuple[nn.Module, gp.Graph]:
    """A model of the zoo and its graph; neither may be changed."""
    case = CASES[name]
    model = case.model()
    args, kwargs = case.call(2)
    return model, gp.capture(model, args, kwargs, case.axes)
