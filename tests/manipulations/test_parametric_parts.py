"""Adapters, projections, mixtures and conditional patterns against references by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import graphprog as gp
from graphprog import manipulations as ops
from graphprog.errors import GraphprogError, InterfaceError, PassError, ProgramError
from graphprog.manipulations import Adapter, Conditional, Mixture, Projection
from graphprog.values.context import BuildContext
from tests.models.networks.corner import towers
from tests.models.zoo import CASES, captured
from tests.support import oracle
from tests.support.comparisons import same

State = dict[str, torch.Tensor]


def linear(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    return functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def sequential(x: torch.Tensor, s: State) -> torch.Tensor:
    return x + 4 * linear(functional.silu(linear(x, s, "down")), s, "up")


def residual(x: torch.Tensor, s: State) -> torch.Tensor:
    return x + linear(x, s, "map")


def plain(x: torch.Tensor, s: State) -> torch.Tensor:
    return linear(x, s, "map")


def mixture(x: torch.Tensor, s: State) -> torch.Tensor:
    weights = torch.softmax(linear(x, s, "weigh"), -1)
    return x + (weights[..., None] * s["value"]).sum(-2)


PARTS: dict[str, tuple[ops.Manipulation, Callable[[torch.Tensor, State], torch.Tensor], int]] = {
    "adapter": (
        Adapter(at="hidden[1]", reduction=4, activation="silu", scale=4.0),
        sequential,
        2 * 4 * 16 + 4 + 16,
    ),
    "residual": (Projection(at="hidden[1]"), residual, 16 * 16),
    "linear": (Projection(at="hidden[1]", residual=False, bias=True), plain, 16 * 16 + 16),
    "mixture": (Mixture(at="hidden[1]", count=3), mixture, 3 * 16 + 3 * 16 + 3),
}


def own_state(task: gp.ReprogrammedModel) -> State:
    """The program's tensors by their names within the only part, other than at the start."""
    generator = torch.Generator().manual_seed(5)
    state = task.program_state()
    for value in state.values():
        value.normal_(generator=generator)
    task.load_program_state(state)
    return {name.split(".", 2)[2]: value for name, value in state.items()}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_does_what_its_formula_says(name: str, tmp_path: Path) -> None:
    part, formula, count = PARTS[name]
    model, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(3)
    task = gp.compile(graph, gp.Program([part]))
    assert task.trained_parameters() == count
    if name != "mixture":
        assert same(task(**kwargs), graph(**kwargs))
    state = own_state(task)
    expected = oracle.changed(model, {"layers.1:out": lambda x: formula(x, state)}, (), kwargs)
    torch.testing.assert_close(task(**kwargs), expected)
    task(**kwargs).square().sum().backward()
    for parameter_name, value in task.named_parameters():
        assert (value.grad is not None) == parameter_name.startswith("program.")
    gp.save(task, tmp_path / "part.safetensors")
    again = gp.load(tmp_path / "part.safetensors", graph)
    assert same(again(**kwargs), task(**kwargs))


def test_a_parallel_adapter_reads_another_value() -> None:
    model, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(3)
    part = Adapter(at="layers.1.mlp:out", beside="layers.1.mlp:in", width=3, activation="relu")
    task = gp.compile(graph, gp.Program([part]))
    assert same(task(**kwargs), graph(**kwargs))
    state = own_state(task)
    read = oracle.values_of(model, (), kwargs)["layers.1.mlp:in"]
    added = linear(torch.relu(linear(read, state, "down")), state, "up")
    expected = oracle.changed(model, {"layers.1.mlp:out": lambda x: x + added}, (), kwargs)
    torch.testing.assert_close(task(**kwargs), expected)


def test_a_fresh_adapter_learns_from_the_first_step_on() -> None:
    _, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(3)
    task = gp.compile(graph, gp.Program([Adapter(at="hidden[*]", width=8)]))
    task(**kwargs).square().sum().backward()
    assert task.program.adapter_2.up.weight.grad.any()


def test_a_pattern_depends_on_features_of_another_tower() -> None:
    model, graph, args = towers()
    target, source = "first.0:out", "second.1:out"
    task = gp.compile(graph, gp.Program([Conditional(source, at=target, reduction=2)]))
    state = own_state(task)
    read = oracle.values_of(model, args, {})[source]
    hidden = torch.relu(linear(read, state, "vector.net.0"))
    vector = state["vector.value"] + linear(hidden, state, "vector.net.2")
    expected = oracle.changed(model, {target: lambda x: x + vector}, args, {})
    torch.testing.assert_close(task(*args), expected)


def test_the_meta_net_has_as_many_parameters_as_published() -> None:
    value = gp.Learnable("normal", 0.02)
    context = BuildContext(torch.empty(2, 4, 512), "here", read=(torch.empty(2, 512),), axis=1)
    made = gp.conditioning.Conditioned("features", value).entries(context)
    assert sum(parameter.numel() for parameter in made.parameters()) == 35_360
    prompts = made(torch.randn(3, 512))
    assert prompts.shape == (3, 4, 512)
    moved = prompts - made.value
    torch.testing.assert_close(moved[:, :1].expand_as(moved), moved)


def test_batches_that_vary_apart_do_not_mix() -> None:
    _, graph = captured("two-towers")
    part = Conditional("vision.stem:out", at="text.stem:out")
    with pytest.raises(PassError, match=r"(?s)text.stem:out.*sizes known to be equal"):
        gp.compile(graph, gp.Program([part]))


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2)])
def test_starts_are_drawn_from_the_seed(seeds: tuple[int, int]) -> None:
    _, graph = captured("transformer")
    program = gp.Program([Adapter(at="hidden[0]"), Mixture(at="hidden[1]")])
    left, right = (gp.compile(graph, program, seed).program_state() for seed in seeds)
    equal = [torch.equal(left[name], right[name]) for name in left if "up." not in name]
    assert all(equal) if seeds[0] == seeds[1] else not any(equal)


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        (
            lambda: Adapter(activation="swish"),
            ProgramError,
            "activation must be .*'swish'",
        ),
        (lambda: Adapter(width=0), ProgramError, "width must be an integer of at least 1, not 0"),
        (lambda: Adapter(reduction=0.5), ProgramError, "a number of at least 1, not 0.5"),
        (lambda: Mixture(count=0), ProgramError, "count must be an integer of at least 1, not 0"),
        (lambda: Projection(at="input:input_ids"), InterfaceError, "has dtype torch.int64"),
        (
            lambda: Conditional("hidden[0]", at="hidden[1]"),
            InterfaceError,
            "one vector per example",
        ),
        (lambda: Conditional("hidden[0]", reduction=0), ProgramError, "reduction 0 is below 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    part: Callable[[], ops.Manipulation], error: type[GraphprogError], message: str
) -> None:
    _, graph = captured("transformer")
    with pytest.raises(error, match=message):
        gp.compile(graph, gp.Program([part()]))
