"""Names of models: how they are read, which loader they get, and what is said of wrong ones."""

from __future__ import annotations

import importlib.metadata
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import CaptureError
from graphprog.sources.library import library
from graphprog.sources.model_name import parse_name


@pytest.mark.parametrize(
    ("text", "scheme", "rest", "options"),
    [
        ("timm:resnet18", "timm", "resnet18", {}),
        ("timm:resnet18#random", "timm", "resnet18", {"random": ""}),
        ("timm:hf-hub:timm/resnet18", "timm", "hf-hub:timm/resnet18", {}),
        ("torchvision:resnet18#weights=V1", "torchvision", "resnet18", {"weights": "V1"}),
        ("hf:owner/name#task=text, random", "hf", "owner/name", {"task": "text", "random": ""}),
        ("hf:/a folder/with: signs", "hf", "/a folder/with: signs", {}),
        ("a.b.c:make", "python", "a.b.c:make", {}),
        ("w/x.safetensors#a.b:make", "safetensors", "w/x.safetensors", {"factory": "a.b:make"}),
        ("C:\\models\\x.safetensors", "safetensors", "C:\\models\\x.safetensors", {}),
        ("model.gguf", "gguf", "model.gguf", {}),
    ],
)
def test_a_name_is_taken_apart(text: str, scheme: str, rest: str, options: object) -> None:
    name = parse_name(text)
    assert (name.scheme, name.rest, name.options) == (scheme, rest, options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tim:resnet18", r"'tim:resnet18' is not the name of a model; did you mean timm\?"),
        ("resnet18", "'resnet18' is not the name of a model"),
        ("model.pth", "'model.pth' is not the name of a model"),
        ("", "'' is not the name of a model"),
        ("timm:test_vit#randm", r"unknown option #randm; did you mean random\?"),
        ("torch.nn:Identity#x", "unknown option #x"),
        ("timm:test_vitt", r"timm has no such model; did you mean test_vit\?"),
        ("torchvision:resnet81", "torchvision has no such model; did you mean resnet18"),
        ("torchvision:resnet18#weights=IMAGENET1K_V2", "no weights IMAGENET1K_V2; did you mean"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest_right_one(name: str, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        gp.capture(name)


def test_a_missing_library_is_an_error_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(CaptureError, match="needs timm, which is not installed") as found:
        gp.capture("timm:resnet18")
    assert found.value.remedies == ("pip install timm",)
    with pytest.raises(CaptureError) as found:
        library("nowhere_at_all.inner", "such names", "a-package[extra]")
    assert found.value.remedies == ("pip install a-package[extra]",)


def test_a_library_of_another_build_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel of torchvision for another torch fails inside the libraries that import it."""
    code = """
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as error:
            raise ValueError("torchvision cannot be imported") from error
    """
    (tmp_path / "broken_library.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        CaptureError, match=r"imported: RuntimeError: operator torchvision::nms"
    ) as no:
        library("broken_library", "a name")
    assert "torch and torchvision of one build" in no.value.remedies[0]


def doubling(name: object) -> gp.sources.Source:
    return gp.sources.Source(nn.Identity(), (torch.zeros(2, 3),), hints={"labels": ["a", "b"]})


def nothing(name: object) -> None:
    return None


def test_another_package_adds_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "graphprog.sources"
    added = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name, f"{__name__}:{function}", group)
        for name, function in (("mine", "doubling"), ("bad", "nothing"))
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: added)
    assert gp.sources.open_source("mine:any").hints == {"labels": ["a", "b"]}
    with pytest.raises(CaptureError, match="the loader of bad: returned a NoneType, not a Source"):
        gp.sources.open_source("bad:any")
    with pytest.raises(CaptureError, match=r"did you mean mine\?"):
        gp.sources.open_source("mne:any")


def test_files_are_still_files(tmp_path: Path) -> None:
    other = tmp_path / "exported.zip"
    program = torch.export.export(nn.Identity(), (torch.zeros(2, 3),))
    torch.export.save(program, tmp_path / "exported.pt2")
    (tmp_path / "exported.pt2").rename(other)
    assert gp.capture(str(other))(torch.ones(2, 3)).equal(torch.ones(2, 3))
    with pytest.raises(CaptureError, match="needs the function that makes its model"):
        gp.capture(tmp_path / "weights.safetensors")
    for name in ("nothing.pt2", "timm:nothing.graph"):
        with pytest.raises(gp.errors.FileError, match="no such file"):
            gp.capture(name)
