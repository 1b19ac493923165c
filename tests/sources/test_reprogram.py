"""One call from a model and data to a trained task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import graphprog as gp
from graphprog.errors import DataError, ProgramError
from graphprog.sources.reprogram import program_of
from graphprog.sources.target_data import TargetData, described
from tests.models.corner_models import ResidualNet

IMAGES, LABELS = torch.rand(6, 1, 8, 8), torch.tensor([0, 2, 1, 0, 1, 2])


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    torch.manual_seed(0)
    model = ResidualNet().eval()
    return gp.capture(model, (torch.zeros(2, 3, 16, 16),), hints={"mean": 0.5, "std": 0.25})


@pytest.mark.parametrize("method", ["blm", "linear"])
def test_the_printed_code_does_the_same(
    graph: gp.Graph, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (IMAGES, LABELS)
    options = {"epochs": 2, "lr": 0.1, "progress": False}
    task = gp.reprogram(graph, data, data, method=method, labels="abc", seed=3, **options)
    names: dict[str, Any] = {"gp": gp, "graph": graph, "train": data, "validation": data}
    exec(capsys.readouterr().out, names)
    assert names["task"].spec == task.spec
    found, again = task.program_state(), names["task"].program_state()
    assert found.keys() == again.keys()
    assert [name for name in found if not torch.equal(found[name], again[name])] == []


def test_sizes_and_normalization_come_from_the_model(graph: gp.Graph) -> None:
    data = TargetData((1, 8, 8), 3, ("a", "b", "c"))
    contract = gp.Contract("unit", 0.5, 0.25, labels=("a", "b", "c"))
    assert program_of(graph, data, "ilm") == gp.Program(
        (gp.ResizePad((1, 8, 8), 12), gp.Additive(mask=gp.masks.border(inner=12))),
        align=gp.IterativeMap(classes=3),
        contract=contract,
    )
    whole = TargetData((3, 16, 16), 3, ("a", "b", "c"))
    assert program_of(graph, whole, "linear").manipulations == ()
    prompted = program_of(graph, whole, "vpt-shallow")
    assert prompted.manipulations == gp.methods.vpt_shallow()
    assert prompted.align == gp.LinearHead(3, at="features")


def test_a_program_is_a_method(graph: gp.Graph, capsys: pytest.CaptureFixture[str]) -> None:
    program = gp.Program((gp.Additive(),), align=gp.FixedMap(classes=3))
    images = torch.rand(6, 3, 16, 16)
    task = gp.reprogram(graph, (images, LABELS), method=program, epochs=1, verbose=False)
    assert task.spec == program
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("bml", r"there is no method 'bml'; did you mean blm\?"),
        ("llama_adapter", "llama_adapter needs attended, .*, heads, which depend on the model"),
    ],
)
def test_an_unfit_method_is_refused(graph: gp.Graph, method: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        gp.reprogram(graph, (IMAGES, LABELS), method=method)


class Named(TensorDataset):
    classes = ("cat", "dog", "fox", "owl")


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize(
    "data",
    [
        (IMAGES, LABELS),
        (IMAGES.numpy(), LABELS.numpy()),
        {"image": IMAGES, "labels": LABELS},
        TensorDataset(IMAGES, LABELS),
        list(zip(IMAGES, LABELS.tolist(), strict=True)),
        DataLoader(TensorDataset(IMAGES, LABELS), batch_size=2),
    ],
)
def test_classes_are_read_from_the_data(data: Any) -> None:
    assert described(data) == TargetData((1, 8, 8), 3, ())


def test_names_of_classes_are_those_of_the_data_set() -> None:
    named = Named(IMAGES, LABELS)
    assert described(named) == TargetData((1, 8, 8), 4, ("cat", "dog", "fox", "owl"))
    assert described(named, ["a", "b", "c"]).labels == ("a", "b", "c")
    with pytest.raises(DataError, match="label 2 has no name: there are 2 names"):
        described(named, ["a", "b"])


def test_other_labels_are_refused() -> None:
    with pytest.raises(DataError, match=r"torch\.float32 are not class numbers"):
        described((IMAGES, LABELS.float()))
    with pytest.raises(DataError, match="a Stream cannot be searched for its classes"):
        described(Stream())
