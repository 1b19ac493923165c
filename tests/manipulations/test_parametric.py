"""A user's own module at an interface."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import FileError, GraphprogError, InterfaceError, PassError, ProgramError
from tests.models.zoo import CASES, captured
from tests.support import oracle
from tests.support.comparisons import same


class Mixer(nn.Module):
    """x + tanh(W x), with a buffer that is saved and one that is not."""

    def __init__(self, width: int, gain: float = 0.5, constant: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.drop = nn.Dropout(0.5)
        self.gain = gain
        self.register_buffer("shift", torch.full((width,), 0.1))
        self.register_buffer("constant", torch.tensor(constant), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(torch.tanh(self.linear(x))) + self.shift
        return x + self.gain * y * self.constant


def mixed(at: str = "hidden[0]", **options: Any) -> tuple[gp.ReprogrammedModel, Mixer]:
    _, graph = captured("transformer")
    torch.manual_seed(1)
    module = Mixer(16, **options).eval()
    return gp.compile(graph, gp.Program([gp.Parametric(module, at=at, name="mix")])), module


def test_a_module_does_what_a_hook_does() -> None:
    model, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(3)
    task, module = mixed()
    key = graph.aliases["hidden[0]"]
    with torch.no_grad():
        expected = oracle.changed(model, {key: module}, (), kwargs)
    assert same(task(**kwargs), expected)
    task.train()  # dropout in a program is off; only what is read is computed, so it rounds
    torch.testing.assert_close(task(**kwargs), expected)
    task.eval()
    with task.disabled():
        assert same(task(**kwargs), graph(**kwargs))


def test_gradients_reach_the_copy_and_nothing_else() -> None:
    _, kwargs = CASES["transformer"].call(3)
    task, module = mixed()
    task(**kwargs).square().sum().backward()
    grown = {name for name, value in task.named_parameters() if value.grad is not None}
    assert grown == {"program.mix.linear.weight", "program.mix.linear.bias"}
    assert module.linear.weight.grad is None


def test_a_wildcard_makes_independent_copies_with_the_same_start() -> None:
    model, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(3)
    task, module = mixed("hidden[*]")
    keys = [graph.interfaces().resolve(f"hidden[{i}]").key for i in range(3)]
    with torch.no_grad():
        expected = oracle.changed(model, dict.fromkeys(keys, module), (), kwargs)
        assert same(task(**kwargs), expected)
        task.program.mix_0.linear.weight.zero_()
    assert task.program.mix_1.linear.weight.any()
    assert module.linear.weight.any()


@pytest.mark.parametrize("at", ["hidden[1]", "hidden[*]"])
def test_saving_needs_no_pickle_and_loading_takes_the_module_again(tmp_path: Path, at: str) -> None:
    _, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(3)
    task, _ = mixed(at)
    with torch.no_grad():
        for parameter in task.program.parameters():
            parameter.normal_()
    gp.save(task, tmp_path / "mix.safetensors")
    again = gp.load(tmp_path / "mix.safetensors", graph, modules={"mix": Mixer(16)})
    assert same(again(**kwargs), task(**kwargs))
    assert again.spec == task.spec
    assert "tests.manipulations.test_parametric.Mixer" in str(again.spec)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({}, r"(?s)'mix' \(tests.manipulations.test_parametric.Mixer\).*modules=\{\"mix\": tests"),
        ({"mix": Mixer(16), "other": Mixer(16)}, "names other, but the program takes mix"),
        ({"mix": Mixer(16, gain=0.25)}, "'mix'.*other operations than the saved one"),
        ({"mix": Mixer(16, constant=2.0)}, "'mix'.*other constants than the saved one"),
        ({"mix": nn.Linear(16, 16)}, "'mix'.*other operations and constants"),
        ({"mix": Mixer(8)}, "layers.1:out: Mixer cannot run on a value of shape"),
    ],
)
def test_loading_with_another_module_says_what_to_do(
    tmp_path: Path, modules: dict[str, nn.Module], message: str
) -> None:
    _, graph = captured("transformer")
    task, _ = mixed("hidden[1]")
    gp.save(task, tmp_path / "mix.safetensors")
    with pytest.raises(FileError, match=message):
        gp.load(tmp_path / "mix.safetensors", graph, modules=modules)


class Wider(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], -1)


class Halved(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.half()


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Counting(nn.Module):
    def forward(self, x: torch.Tensor) -> int:
        return x.ndim


class Constant(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tensor([1.0])


class Three(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x, x + 1, x + 2


def unfit() -> nn.Module:
    module = nn.Linear(16, 16)
    nn.init.constant_(module.bias, float("nan"))
    return module


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (Wider(), InterfaceError, "layers.0:out: the manipulation turns"),
        (Halved(), InterfaceError, "into torch.float16"),
        (nn.Linear(8, 8), PassError, "layers.0:out: Linear cannot run"),
        (Branching(), PassError, "(?s)layers.0:out: Branching.*branches on tensor values"),
        (Counting(), InterfaceError, "layers.0:out: Counting.*not a tensor"),
        (Constant(), PassError, "layers.0:out: Constant.*constant tensor"),
        (Three(), InterfaceError, "layers.0:out: Three returns 3 values"),
        (unfit(), ProgramError, "layers.0:out: Linear.bias has values that are not finite"),
    ],
)
def test_a_module_that_does_not_fit_is_refused_by_interface(
    module: nn.Module, error: type[GraphprogError], message: str
) -> None:
    _, graph = captured("transformer")
    with pytest.raises(error, match=message):
        gp.compile(graph, gp.Program([gp.Parametric(module, at="hidden[0]")]))


@pytest.mark.parametrize("given", [nn.Linear, torch.relu, None])
def test_only_modules_are_taken(given: Any) -> None:
    _, graph = captured("transformer")
    with pytest.raises(ProgramError, match="module"):
        gp.compile(graph, gp.Program([gp.Parametric(given, at="hidden[0]")]))


def test_a_module_that_returns_what_it_is_given_changes_nothing() -> None:
    _, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(3)
    task = gp.compile(graph, gp.Program([gp.Parametric(nn.Identity(), at="hidden[0]")]))
    assert same(task(**kwargs), graph(**kwargs))


class Talkative(nn.Module):
    """Does nothing to its input, and something else besides."""

    def __init__(self, deed: Callable[[nn.Module, torch.Tensor], object]) -> None:
        super().__init__()
        self.deed = deed
        self.calls, self.seen = 0, []
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.deed(self, x)
        return x * self.scale


def counted(module: nn.Module, x: torch.Tensor) -> None:
    module.calls += 1


@pytest.mark.parametrize(
    ("deed", "name"),
    [
        (counted, "sets self.calls"),
        (lambda module, x: module.seen.append(x.mean()), "sets self.seen"),
        (lambda module, x: setattr(module, "last", x), "sets self.last"),
        (lambda module, x: print(x.shape), "prints"),
        (lambda module, x: random.random(), "draws random numbers of Python"),
        (lambda module, x: None, ""),
    ],
)
def test_side_effects_of_a_module_are_told(
    deed: Callable[[nn.Module, torch.Tensor], object], name: str
) -> None:
    _, graph = captured("residual")
    program = gp.Program([gp.Parametric(Talkative(deed), at="hidden[0]")])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gp.compile(graph, program)
    texts = [str(item.message) for item in told]
    assert len(texts) == bool(name)
    for text in texts:
        assert f"Talkative.forward does more than compute its result ({name})" in text
        assert "gp.record(task, inputs, at=[...])" in text


def test_a_variable_outside_of_a_module_that_forward_changes_is_told() -> None:
    kept: list[torch.Tensor] = []

    class Recording(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept.append(x)
            return x

    with pytest.warns(UserWarning, match=r"Recording.forward .*\(changes kept\)"):
        gp.compile(captured("residual")[1], gp.Program([gp.Parametric(Recording())]))
