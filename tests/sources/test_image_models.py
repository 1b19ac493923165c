"""Models of timm and torchvision by name: weights, sizes, normalization, labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

import graphprog as gp
from graphprog.sources.open_source import open_source

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A small model in a folder of timm's own format, with the names of its classes."""
    path = tmp_path_factory.mktemp("timm") / "a small model"
    model = timm.create_model("test_vit", num_classes=3, depth=1).eval()
    config = {"label_names": ["cat", "dog", "fox"], "model_args": {"depth": 1}}
    timm.models.save_for_hf(model, path, model_config=config)
    return path, model


def test_a_timm_model_is_captured_by_its_folder(folder: tuple[Path, nn.Module]) -> None:
    path, model = folder
    graph = gp.capture(f"timm:{path}")
    x = torch.rand(3, 3, 160, 160)
    assert torch.allclose(graph(x), model(x), atol=1e-6)
    assert graph.hints == {"mean": (0.5,) * 3, "std": (0.5,) * 3, "labels": ("cat", "dog", "fox")}
    contract = gp.Contract.of(graph, ["yes", "no"])
    assert contract == gp.Contract("unit", (0.5,) * 3, (0.5,) * 3, labels=("yes", "no"))


def test_untrained_models_have_no_labels() -> None:
    found = open_source("timm:test_vit#random")
    assert found.args[0].shape == (2, 3, 160, 160)
    assert "labels" not in found.hints
    assert not found.model.training
    found = open_source("torchvision:squeezenet1_1#random")
    assert found.hints == IMAGENET


def test_weights_of_torchvision_come_from_a_file(tmp_path: Path) -> None:
    wanted = torchvision.models.squeezenet1_1()
    torch.save(wanted.state_dict(), tmp_path / "w.pth")
    found = open_source(f"torchvision:squeezenet1_1#weights={tmp_path / 'w.pth'}")
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, wanted.state_dict()[name])
    assert found.args[0].shape == (2, 3, 224, 224)
    assert "labels" not in found.hints


def test_sizes_and_labels_are_those_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: nn.Identity())
    found = open_source("torchvision:inception_v3")
    assert found.args[0].shape == (2, 3, 299, 299)
    assert found.hints["labels"][:2] == ("tench", "goldfish")
    assert len(found.hints["labels"]) == 1000
    video = open_source("torchvision:r3d_18")
    assert video.args[0].shape == (2, 3, 16, 112, 112)
    assert video.hints["mean"] == (0.43216, 0.394666, 0.37645)
    assert len(open_source("torchvision:raft_small").args) == 2


def test_a_download_that_fails_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(gp.errors.CaptureError, match="timm cannot load it: no network") as found:
        gp.capture("timm:resnet18")
    assert "name its folder" in str(found.value)
