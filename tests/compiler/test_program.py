from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import DataError, GraphprogError, InterfaceError, ProgramError
from graphprog.spec.registry import format_spec, parse_spec
from tests.models.programs import IMAGES, MEAN, STD, unit_task
from tests.models.zoo import captured

MEANS, STDS = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)


@pytest.fixture
def pattern() -> torch.Tensor:
    return torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(3))


def run(program: gp.Program, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = gp.compile(captured("residual")[1], program)(x)
    return result


def source(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = captured("residual")[0](x)
    return result


def test_unit_space_adds_and_then_normalizes(pattern: torch.Tensor) -> None:
    """Border of reprogramming as ILM-VP, BLM and others have it."""
    mask = gp.masks.border(inner=8)
    additive = gp.Additive(value=gp.Fixed(pattern), mask=mask, squash="sigmoid")
    contract = gp.Contract("unit", mean=MEAN, std=STD)
    x = torch.rand(2, 3, 8, 8)
    for parts in (
        [gp.ResizePad(shape=(3, 8, 8)), additive],
        [additive, gp.ResizePad(shape=(3, 8, 8))],
    ):
        canvas = functional.pad(x, (4, 4, 4, 4))
        canvas = canvas + torch.sigmoid(pattern) * mask.tensor((3, 16, 16))
        assert torch.equal(
            run(gp.Program(parts, contract=contract), x), source((canvas - MEANS) / STDS)
        )


def test_normalized_space_normalizes_and_then_adds(pattern: torch.Tensor) -> None:
    """Watermark of visual prompting."""
    mask = gp.masks.border(width=3)
    additive = gp.Additive(value=gp.Fixed(pattern), mask=mask)
    contract = gp.Contract("normalized", mean=MEAN, std=STD)
    x = torch.rand(2, 3, 16, 16)
    expected = source((x - MEANS) / STDS + pattern * mask.tensor((3, 16, 16)))
    assert torch.equal(run(gp.Program([additive], contract=contract), x), expected)


def test_padding_in_normalized_space_is_zero_there(pattern: torch.Tensor) -> None:
    contract = gp.Contract("normalized", mean=MEAN, std=STD)
    x = torch.rand(2, 3, 8, 8)
    expected = source(functional.pad((x - MEANS) / STDS, (4, 4, 4, 4)))
    found = run(gp.Program([gp.ResizePad(shape=(3, 8, 8))], contract=contract), x)
    torch.testing.assert_close(found, expected)


def test_model_space_adds_and_no_more(pattern: torch.Tensor) -> None:
    """Program of Elsayed et al., in the range of the model."""
    additive = gp.Additive(value=gp.Fixed(pattern), squash="tanh", clip=(-1.0, 1.0))
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    expected = source((x + torch.tanh(pattern)).clamp(-1, 1))
    program = gp.Program([additive], contract=gp.Contract(range=(-1, 1)))
    assert torch.equal(run(program, x), expected)


def test_gray_examples_are_repeated() -> None:
    x = torch.rand(2, 1, 16, 16)
    found = run(gp.Program([gp.ResizePad(shape=(1, 16, 16))]), x)
    assert torch.equal(found, source(x.repeat(1, 3, 1, 1)))


def test_outside_of_the_bounds_of_a_clip_there_is_no_gradient() -> None:
    task = gp.compile(captured("residual")[1], gp.Program([gp.Additive(clip=(0.0, 1.0))]))
    x = torch.full((1, 3, 16, 16), 0.5)
    x[..., 0] = 2
    task(x).sum().backward()
    gradient = task.program.additive.value.grad
    assert gradient[..., 0].abs().max() == 0
    assert gradient[..., 1:].abs().sum() > 0


def test_a_zero_sigmoid_is_gray_and_only_disabling_is_nothing() -> None:
    task = gp.compile(captured("residual")[1], gp.Program([gp.Additive(squash="sigmoid")]))
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(task(x), source(x + 0.5))
        with task.disabled():
            assert torch.equal(task(x), source(x))
        assert torch.equal(task(x), source(x + 0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"space": "pixels"},
            "contract: space must be one of model, unit, normalized, not 'pixels'",
        ),
        ({"space": "unit"}, "unit space needs the source model's mean and std"),
        ({"space": "normalized", "mean": MEAN}, "needs the source model's mean and std"),
        ({"mean": MEAN, "std": STD}, "model space has no mean or std"),
        ({"space": "unit", "mean": MEAN, "std": (0.2, 0.0, 0.1)}, "must be positive"),
        ({"space": "unit", "mean": MEAN, "std": (0.2, float("nan"), 0.1)}, "must be positive"),
        ({"range": (1.0, 1.0)}, "with low < high"),
    ],
)
def test_contracts_that_contradict_themselves(options: Any, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        gp.Contract(**options)


def test_one_mean_serves_all_channels_and_two_do_not_serve_three() -> None:
    x = torch.rand(2, 3, 16, 16)
    program = gp.Program(contract=gp.Contract("unit", mean=0.5, std=0.25))
    assert torch.equal(run(program, x), source((x - 0.5) / 0.25))
    with pytest.raises(ProgramError, match="deviations, but input:x has 3 channels"):
        run(gp.Program(contract=gp.Contract("unit", mean=(0, 0), std=(1, 1))), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"manipulations": ["border"]}, "takes manipulations, not str"),
        ({"align": "bayesian"}, "takes an alignment, not str"),
        (
            {"align": gp.RandomMap(classes=3), "contract": gp.Contract(labels=("a", "b"))},
            "3 classes, the contract 2 labels",
        ),
    ],
)
def test_programs_that_contradict_themselves(options: Any, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        gp.Program(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gp.Additive(squash="relu"), "squash must be one of .*, not 'relu'"),
        (lambda: gp.Additive(clip=(1.0, 0.0)), "not in order"),
        (lambda: gp.Learnable("kaiming"), "init must be one of .*, not 'kaiming'"),
        (lambda: gp.Fixed([1.0]), "Fixed takes a tensor, not a list"),  # type: ignore[arg-type]
    ],
)
def test_values_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()


def test_a_program_prints_parses_and_compares(pattern: torch.Tensor) -> None:
    program = gp.Program(
        [
            gp.ResizePad(shape=(1, 8, 8), size=(9, 12), fill=(0.5,)),
            gp.Additive(mask=gp.masks.given(pattern), value=gp.Fixed(pattern), clip=(0, 1)),
            gp.Additive(
                at="hidden[*]", name="steer", value=gp.Learnable("normal", 0.02, (8, 1, 1))
            ),
        ],
        align=gp.BayesianMap(classes=2),
        contract=gp.Contract("unit", mean=MEAN, std=STD, labels=("a", "b")),
    )
    tensors: dict[str, torch.Tensor] = {}
    assert parse_spec(format_spec(program, tensors), tensors) == program
    assert program != gp.Program(program.manipulations, align=program.align)


def test_a_placed_program_takes_target_examples() -> None:
    task = gp.compile(captured("residual")[1], gp.Program([gp.ResizePad(shape=(1, 8, 8))]))
    assert [str(spec) for spec in task.inputs] == ["x: f32[B,1,8,8]"]
    assert task(torch.rand(3, 1, 8, 8)).shape == (3, 20)
    with task.disabled():
        assert task(IMAGES).shape == (2, 20)


def test_state_is_strict() -> None:
    task = unit_task()
    state = task.program_state()
    assert "program.additive.value" in state
    task.load_program_state(state)
    for wrong in (
        {},
        {**state, "program.more": torch.zeros(1)},
        {**state, "program.additive.value": torch.zeros(3, 16, 15)},
        {**state, "program.additive.value": torch.zeros(3, 16, 16, dtype=torch.float64)},
    ):
        with pytest.raises(ProgramError, match="program state: "):
            task.load_program_state(wrong)


def test_seeds_decide_initial_values() -> None:
    _, graph = captured("residual")
    program = gp.Program([gp.Additive(value=gp.Learnable("uniform", 0.5))])
    first, again, other = (gp.compile(graph, program, seed=seed) for seed in (1, 1, 2))
    values = [task.program.additive.value for task in (first, again, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    assert values[0].abs().max() <= 0.5


def test_the_source_stays_in_eval_mode() -> None:
    task = unit_task()
    task.train()
    assert task.training
    assert not any(module.training for module in task.source.modules())
    digest = task.source_hash()
    task(IMAGES).sum().backward()
    assert task.source_hash() == digest


def test_a_compiled_program_prints_what_was_written_and_its_tensors() -> None:
    task = unit_task()
    text = str(task.spec)
    (first, *tensors) = str(task.program).removeprefix(text).splitlines()
    assert first == ""
    state = task.program_state()
    assert [line.split()[0] for line in tensors] == list(state)
    shapes = [str(list(value.shape)) for value in state.values()]
    assert all(line.endswith(shape) for line, shape in zip(tensors, shapes, strict=True))
    assert "program.additive.value" in state
    empty = gp.compile(task.base, gp.Program())
    assert str(empty.program) == str(gp.Program())


def test_identity_at_an_interface_returns_its_value() -> None:
    model, graph = captured("residual")
    x, seen = torch.randn(3, 3, 16, 16), []
    task = gp.compile(graph, gp.Program(align=gp.Identity(at="features")))
    head = next(layer for layer in reversed(list(model.modules())) if isinstance(layer, nn.Linear))
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(x)
        hook.remove()
        assert task(x).equal(seen[0])
    with pytest.raises(InterfaceError, match="no interface 'feature_s'"):
        gp.compile(graph, gp.Program(align=gp.Identity(at="feature_s")))


@pytest.mark.parametrize("labels", ["5 6 7", (1, 2)])
def test_one_text_is_not_several_labels(labels: Any) -> None:
    with pytest.raises(ProgramError, match="contract: labels must be several texts"):
        gp.Contract(labels=labels)


def test_a_task_is_disabled_for_one_thread_and_one_asynchronous_task_alone() -> None:
    task = gp.compile(
        captured("residual")[1], gp.Program([gp.Additive(value=gp.Learnable("ones"))])
    )
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        programmed, bare = task(x), captured("residual")[1](x)
    found = {}

    def run_in(name: str) -> None:
        with torch.no_grad():
            found[name] = task(x)

    async def disabled(gone: asyncio.Event, ready: asyncio.Event) -> None:
        with task.disabled():
            ready.set()
            await gone.wait()
            run_in("disabled")

    async def enabled(gone: asyncio.Event, ready: asyncio.Event) -> None:
        await ready.wait()
        run_in("enabled")
        gone.set()

    async def both() -> None:
        gone, ready = asyncio.Event(), asyncio.Event()
        await asyncio.gather(disabled(gone, ready), enabled(gone, ready))

    with task.disabled():
        thread = threading.Thread(target=run_in, args=("thread",))
        thread.start()
        thread.join()
        run_in("here")
    asyncio.run(both())
    assert found["thread"].equal(programmed)
    assert found["here"].equal(bare)
    assert found["disabled"].equal(bare)
    assert found["enabled"].equal(programmed)
    assert not programmed.equal(bare)


@pytest.mark.parametrize("name", ["a.b", 3, "forward"])
def test_a_name_that_no_part_can_have_is_refused(name: Any) -> None:
    with pytest.raises(GraphprogError, match=rf"{name!r} cannot be the name of a part"):
        gp.compile(captured("residual")[1], gp.Program([gp.Additive(name=name)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.to("meta"), "meta device"),
        (lambda x: x.to_sparse(), r"sparse.*\n.*to_dense"),
        (lambda x: x.numpy(), "must be a tensor, not ndarray"),
    ],
)
def test_inputs_without_plain_values_are_refused(change: Any, message: str) -> None:
    graph = captured("residual")[1]
    task = gp.compile(graph, gp.Program([gp.Additive()]))
    for run in (task, graph):
        with pytest.raises(DataError, match=message):
            run(change(torch.rand(2, 3, 16, 16)))


def test_a_disabled_task_takes_inputs_in_order_or_by_name() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return x * scale

    x, scale = torch.rand(2, 3), torch.rand(2, 1)
    graph = gp.capture(Scaled().eval(), (x,), {"scale": scale})
    task = gp.compile(graph, gp.Program([gp.Additive(at="input:x")]))
    with task.disabled():
        for found in (task(x, scale), task(x, scale=scale), task(x=x, scale=scale)):
            assert found.equal(x * scale)


def test_a_graph_with_a_program_takes_no_second_one(pattern: torch.Tensor) -> None:
    part = gp.Additive(value=gp.Fixed(pattern))
    task = gp.compile(captured("residual")[1], gp.Program([part]))
    with pytest.raises(ProgramError, match=r"already has a program\nTry: .*task.base"):
        gp.compile(task.graph, gp.Program([part]))
