"""Parts of graphs from given values to others: equal to the whole, bit for bit, and graphs too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import graphprog as gp
from graphprog.errors import InterfaceError
from graphprog.ir.parts.cut import input_name
from tests.models.decoder_models import towers_call, two_towers
from tests.models.zoo import CASES, captured, cases


def run(part: gp.Graph, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """Call a part with those of the values that it takes, by name."""
    result: torch.Tensor = part(*(values[name] for name in part.call_spec.inputs))
    return result


def inputs_by_name(name: str, batch: int) -> dict[str, torch.Tensor]:
    graph, (args, kwargs) = captured(name)[1], CASES[name].call(batch)
    return dict(zip(graph.call_spec.inputs, graph.call_spec.bind(args, kwargs), strict=True))


@pytest.mark.parametrize("name", cases(["residual", "torchvision-resnet18", "bert", "gpt2", "vit"]))
def test_two_parts_are_the_whole(name: str) -> None:
    graph, inputs = captured(name)[1], inputs_by_name(name, 3)
    whole = graph.run(list(inputs.values()))[0]
    first = graph.cut(f"input:{next(iter(inputs))}", "hidden[0]")
    second = graph.cut("hidden[0]", f"output:{graph.outputs[0]}")
    assert second.call_spec.inputs[0] == first.outputs[0] == "hidden_0"
    between = run(first, inputs)
    expected = graph.evaluate(["hidden[0]"], list(inputs.values()))["hidden[0]"]
    assert torch.equal(between, expected)
    assert torch.equal(run(second, inputs | {"hidden_0": between}), whole)


def test_a_part_takes_the_masks_and_activations_that_it_reads() -> None:
    bert = captured("bert")[1].cut("hidden[0]", "hidden[1]")
    assert bert.call_spec.inputs == ("hidden_0", "attention_mask")
    _, graph = two_towers("t5")
    decoder = graph.cut("decoder.hidden[0]", "decoder.hidden[1]")
    call = towers_call("t5", 2, 5, 4)
    flat = graph.call_spec.bind((), {**call, "use_cache": False})
    names = ["decoder.hidden[0]", "decoder.hidden[1]"]
    start, end = graph.evaluate(names, flat).values()
    encoded = decoder.call_spec.inputs[2]
    assert decoder.call_spec.inputs == ("decoder_hidden_0", "attention_mask", encoded)
    assert encoded.startswith("encoder_")
    key = next(key for key in graph.sites if input_name(key) == encoded)
    between = graph.evaluate([key], flat)[key]
    assert torch.equal(decoder(start, call["attention_mask"], between), end)


def test_a_part_is_a_graph(tmp_path: Path) -> None:
    graph, inputs = captured("residual")[1], inputs_by_name("residual", 3)
    part = graph.cut("hidden[0]", "logits")
    start = graph.evaluate(["hidden[0]"], list(inputs.values()))["hidden[0]"]
    assert part.interfaces().resolve("input").key == "input:hidden_0"
    assert (
        part.interfaces().resolve("hidden[1]").shape
        == graph.interfaces().resolve("hidden[1]").shape
    )
    before = graph.weight_hash()
    task = gp.compile(part, gp.Program([gp.Additive(at="hidden[1]")]))
    with torch.no_grad():
        task.program.additive.value.fill_(0.5)
    assert not torch.equal(task(start), graph(*inputs.values()))
    with task.disabled():
        assert torch.equal(task(start), graph(*inputs.values()))
    assert graph.weight_hash() == before
    part.save(tmp_path / "part.graph")
    read = gp.Graph.load(tmp_path / "part.graph")
    assert read.fingerprint == part.fingerprint
    assert torch.equal(read(start), part(start))
    assert gp.backends.onnx.export(task, tmp_path / "part.onnx").passed


def test_a_part_of_a_compiled_model_has_its_program() -> None:
    graph, inputs = captured("residual")[1], inputs_by_name("residual", 2)
    value = gp.Learnable("normal")
    task = gp.compile(graph, gp.Program([gp.Additive(at="hidden[1]", value=value)]))
    part = task.graph.cut("hidden[0]", "logits")
    start = graph.evaluate(["hidden[0]"], list(inputs.values()))["hidden[0]"]
    expected = task(*inputs.values()).detach()
    assert torch.equal(part(start), expected)
    with torch.no_grad():
        task.program.additive.value.zero_()
    assert torch.equal(part(start), expected)


def test_what_cannot_be_cut() -> None:
    graph = captured("residual")[1]
    for start, end, message in (
        ("hidden[1]", "hidden[0]", "'hidden_0' is not computed from 'hidden_1'"),
        ("hidden[0]", "hidden[0]", "has no operation"),
        ("hidden[7]", "logits", "no interface 'hidden"),
    ):
        with pytest.raises(InterfaceError, match=message):
            graph.cut(start, end)
