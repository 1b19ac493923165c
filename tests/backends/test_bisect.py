"""Bisecting: the interface found is the first one that is wrong, for damage anywhere."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import graphprog as gp
from graphprog.backends.onnx.export import lower, run_model
from graphprog.backends.onnx_model.export_program import output_nodes
from graphprog.backends.parity.bisect import Probe, bisect, require_parity
from graphprog.backends.parity.report import Inputs, compare, parity_batches
from graphprog.errors import BackendError
from tests.models.deployed_tasks import image_graph, image_task

pytestmark = pytest.mark.xdist_group("deployed-bisect")


@pytest.fixture(scope="module")
def task() -> gp.ReprogrammedModel:
    return image_task(image_graph(), gp.LinearHead(5))


@pytest.fixture(scope="module")
def whole(task: gp.ReprogrammedModel) -> ir.Model:
    """The task in ONNX, returning the value of every interface."""
    return lower(task, task.input_example(2), "overridable", nodes=places(task))


def places(task: gp.ReprogrammedModel) -> tuple[str, ...]:
    return tuple(dict.fromkeys(i.node for i in task.graph.interfaces().values()))


def damaged(task: gp.ReprogrammedModel, whole: ir.Model, weight: str, asked: list[str]) -> Probe:
    """ONNX Runtime on a model in which one weight is not what it was."""

    def probe(nodes: tuple[str, ...], inputs: Inputs) -> list[np.ndarray]:
        asked.extend(nodes)
        values = dict(zip(places(task), run_damaged(whole, weight, inputs), strict=True))
        return [values[node] for node in nodes]

    return probe


def run_damaged(whole: ir.Model, weight: str, inputs: Inputs) -> list[np.ndarray]:
    value = whole.graph.initializers[weight]
    good = value.const_value
    assert good is not None
    value.const_value = ir.tensor(good.numpy() + 0.5, name=weight)
    try:
        return run_model(whole, inputs)
    finally:
        value.const_value = good


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ("program.additive.value", "input:images"),
        ("source.stem.0.bias", "stem.0:out"),
        ("source.stem.1.bias", "stem.1:out"),
        ("source.blocks.0.0.bias", "blocks.0.0:out"),
        ("program.additive_1.value", "blocks.1:out"),
        ("source.blocks.2.0.weight", "blocks.2.0:out"),
        ("source.left.bias", "left:out"),
        ("source.right.bias", "right:out"),
        ("source.head.bias", "head:out"),
        ("program.align.bias", "output:logits"),
    ],
)
def test_the_damaged_interface_is_found(
    task: gp.ReprogrammedModel, whole: ir.Model, weight: str, expected: str
) -> None:
    asked: list[str] = []
    example = task.input_example(2)
    assert bisect(task, example, damaged(task, whole, weight, asked)) == expected
    assert len(asked) <= 7  # of some 20 interfaces


def test_nothing_is_found_where_nothing_differs(task: gp.ReprogrammedModel) -> None:
    asked: list[str] = []

    def whole_again(nodes: tuple[str, ...], inputs: Inputs) -> list[np.ndarray]:
        asked.extend(nodes)
        return run_model(lower(task, inputs, "folded", nodes=nodes), inputs)

    assert bisect(task, task.input_example(2), whole_again) is None
    assert asked == list(output_nodes(task))


def test_a_failed_comparison_says_where(task: gp.ReprogrammedModel, whole: ir.Model) -> None:
    (returned,) = output_nodes(task)
    last = places(task).index(returned)
    weight = "source.left.bias"
    report = compare(
        task,
        lambda inputs: [run_damaged(whole, weight, inputs)[last]],
        parity_batches(task),
        "damaged",
    )
    assert not report.passed
    with pytest.raises(BackendError) as caught:
        require_parity(task, report, task.input_example(2), damaged(task, whole, weight, []))
    assert "first divergence    left:out" in str(caught.value)
    assert "Try:\n  1. look at the operations before left:out" in str(caught.value)
