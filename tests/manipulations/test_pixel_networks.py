"""Sample-specific masks and generated prompts, against references by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog import backends
from graphprog.errors import FileError, GraphprogError, InterfaceError, ProgramError
from graphprog.values.context import BuildContext
from tests.models.zoo import captured
from tests.support.comparisons import same


def masked(
    x: torch.Tensor, state: dict[str, torch.Tensor], layers: int, patch: int
) -> torch.Tensor:
    """SMM by its layer list, batch norm in evaluation, cells repeated by a Kronecker product."""
    z, number, halvings = x, 0, patch.bit_length() - 1
    for layer in range(layers - 1):
        z = functional.conv2d(z, state[f"net.{number}.weight"], state[f"net.{number}.bias"], 1, 1)
        norm = [state[f"net.{number + 1}.{name}"] for name in ("running_mean", "running_var")]
        z = functional.batch_norm(
            z, *norm, state[f"net.{number + 1}.weight"], state[f"net.{number + 1}.bias"]
        ).relu()
        number += 3
        if layer < halvings:
            z = functional.max_pool2d(z, 2)
            number += 1
    z = functional.conv2d(z, state[f"net.{number}.weight"], state[f"net.{number}.bias"], 1, 1)
    return x + state["value"] * torch.kron(z, torch.ones(1, 1, patch, patch))


def own_state(task: gp.ReprogrammedModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    state = task.program_state()
    for name, value in state.items():
        if value.is_floating_point():
            value.normal_(std=0.2, generator=generator)
        if "running_var" in name:
            value.abs_().add_(0.5)
    task.load_program_state(state)
    return {name.split(".", 2)[2]: value for name, value in state.items()}


@pytest.mark.parametrize(("layers", "patch"), [(5, 8), (6, 4), (5, 1)])
def test_sample_masks(layers: int, patch: int, tmp_path: Path) -> None:
    model, graph = captured("residual")
    task = gp.compile(graph, gp.Program([gp.SampleMask(layers=layers, patch=patch)]))
    x = torch.rand(3, 3, 16, 16)
    assert same(task(x), graph(x))
    assert same(task.train()(x), graph(x))
    task.eval()
    state = own_state(task)
    torch.testing.assert_close(task(x), model(masked(x, state, layers, patch)))
    task.train()(x).square().sum().backward()
    for name, value in task.named_parameters():
        assert (value.grad is not None) == name.startswith("program.")
    gp.save(task.eval(), tmp_path / "mask.safetensors")
    again = gp.load(tmp_path / "mask.safetensors", graph)
    assert same(again(x), task(x))


@pytest.mark.parametrize(("layers", "count"), [(5, 26_499), (6, 102_339)])
def test_the_mask_network_has_as_many_parameters_as_published(layers: int, count: int) -> None:
    images = torch.empty(2, 3, 384, 384)
    module = gp.SampleMask(layers=layers).build(BuildContext(images, "here"))
    total = sum(parameter.numel() for parameter in module.parameters())
    assert total - 3 * 384 * 384 == count
    assert layers == 6 or total == 26_499 + 442_368


class Encoder(nn.Module):
    """Eleven features of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 11, 4, stride=4)
        self.norm = nn.BatchNorm2d(11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).mean((2, 3))


def painted(
    x: torch.Tensor, z: torch.Tensor, state: dict[str, torch.Tensor], base: int
) -> torch.Tensor:
    """h(z) of a coordinator with one stage, at 16 by 16 pixels."""
    planes = torch.cat([z, state["trigger"].expand(len(z), -1)], 1)
    planes = planes.reshape(len(z), -1, base, base)
    planes = functional.conv_transpose2d(
        planes, state["decoder.0.weight"], stride=2, groups=planes.shape[1]
    )
    planes = functional.conv2d(planes, state["decoder.1.weight"])
    norm = [state[f"decoder.2.{name}"] for name in ("running_mean", "running_var")]
    planes = functional.batch_norm(
        planes, *norm, state["decoder.2.weight"], state["decoder.2.bias"]
    )
    return functional.conv2d(
        functional.gelu(planes), state["decoder.4.weight"], state["decoder.4.bias"]
    )


def test_prompts_generated_from_a_frozen_encoder(tmp_path: Path) -> None:
    model, graph = captured("residual")
    torch.manual_seed(2)
    encoder = Encoder().eval()
    part = gp.Generated((0.0, 1.0), encoder, strength=0.5, channels=4)
    task = gp.compile(graph, gp.Program([part]))
    x = torch.rand(3, 3, 16, 16)
    state = own_state(task)
    assert len(state["trigger"]) == 4 * 8 * 8 - 11
    assert not any("encoder" in name for name in state)
    with torch.no_grad():
        prompt = painted(x, encoder(x), state, 8)
        expected = model((x + 0.5 * prompt).clamp(0, 1))
    torch.testing.assert_close(task(x), expected)
    before = [value.clone() for value in (*encoder.parameters(), *encoder.buffers())]
    task.train()(x).square().sum().backward()
    assert same(before, [*encoder.parameters(), *encoder.buffers()])
    grown = {name for name, value in task.named_parameters() if value.grad is not None}
    assert grown == {name for name in dict(task.named_parameters()) if name.startswith("program.")}
    gp.save(task.eval(), tmp_path / "generated.safetensors")
    path = tmp_path / "generated.safetensors"
    again = gp.load(path, graph, modules={"generated": encoder})
    assert same(again(x), task(x))
    with pytest.raises(FileError, match="modules that are not in its file: 'generated'"):
        gp.load(path, graph)
    with pytest.raises(FileError, match="other constants than the saved one"):
        gp.load(path, graph, modules={"generated": Encoder()})
    assert backends.onnx.export(task, tmp_path / "generated.onnx") is not None


class Guided(nn.Module):
    """A model with an image and features of it that were computed elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.guide = nn.Linear(5, 11)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.guide(z)[:, :4]


def test_prompts_generated_from_features_of_another_interface() -> None:
    torch.manual_seed(2)
    model = Guided().eval()
    graph = gp.capture(model, (torch.rand(2, 3, 16, 16), torch.randn(2, 5)))
    part = gp.Generated(None, features="guide:out", channels=4, at="input:x")
    task = gp.compile(graph, gp.Program([part]))
    state = own_state(task)
    x, z = torch.rand(3, 3, 16, 16), torch.randn(3, 5)
    with torch.no_grad():
        expected = model(x + painted(x, model.guide(z), state, 8), z)
    torch.testing.assert_close(task(x, z), expected)


def test_the_published_size_of_the_trigger() -> None:
    class Features(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 2, 3))[:, None].expand(-1, 768)

    images = torch.empty(2, 3, 224, 224)
    part = gp.Generated((0.0, 1.0), Features())
    module = part.build(BuildContext(images, "here", torch.Generator().manual_seed(0)))
    trigger = module.trigger.detach()
    assert len(trigger) == 800
    assert 0 <= trigger.min() < trigger.max() < 0.1
    assert module(torch.rand(2, 3, 224, 224)).shape == images.shape


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        (lambda: gp.SampleMask(layers=4), ProgramError, "layers must be 5 or 6, not 4"),
        (lambda: gp.SampleMask(patch=32), ProgramError, "patch 32 is not a power of two up to 16"),
        (lambda: gp.SampleMask(at="features"), InterfaceError, "does not have images"),
        (lambda: gp.Generated((0, 1)), ProgramError, "either an encoder or the interface"),
        (lambda: gp.Generated((1, 0), features="x"), ProgramError, "are not in order"),
        (
            lambda: gp.Generated(None, Encoder(), channels=0),
            ProgramError,
            "0 planes of 8 by 8 are too small for 11 features",
        ),
        (
            lambda: gp.Generated(None, features="hidden[0]"),
            InterfaceError,
            r"input:x, features of shape \[B, 8, 8, 8\] does not have one vector",
        ),
        (
            lambda: gp.Generated(None, features="features"),
            InterfaceError,
            "input:x reads features, which is computed from the value at input:x",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    part: Callable[[], gp.Manipulation], error: type[GraphprogError], message: str
) -> None:
    _, graph = captured("residual")
    with pytest.raises(error, match=message):
        gp.compile(graph, gp.Program([part()]))


def test_images_that_the_patch_does_not_divide_are_refused() -> None:
    with pytest.raises(ProgramError, match="patches of 8 do not divide images of 12 by 16"):
        gp.SampleMask().build(BuildContext(torch.empty(2, 3, 12, 16), "here"))
