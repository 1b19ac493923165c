"""The example that looks into an image classifier, on a small network instead of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import graphprog as gp
from tests.support.example_modules import Example, modules_of

SIDE = 8


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    with modules_of("09_look_inside_an_image_classifier", monkeypatch) as found:
        found.classifier.CANVAS, found.classifier.SIDE = 16, SIDE
        yield found


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value + self.inner(value).relu()


def small() -> gp.Graph:
    torch.manual_seed(0)
    blocks = [Block() for _ in range(3)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 20)]
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *blocks, *head).eval()
    return gp.capture(network, (torch.zeros(2, 3, 16, 16),))


def test_no_digit_is_in_two_splits(example: Example) -> None:
    parts = example.classifier.digits()
    pictures = {name: {one.numpy().tobytes() for one in x} for name, (x, _) in parts.items()}
    assert [len(y) for _, y in parts.values()] == [1077, 360, 360]
    assert not pictures["test"] & (pictures["train"] | pictures["validation"])
    assert not pictures["train"] & pictures["validation"]


def test_a_shuffled_border_has_the_same_values_in_the_same_frame(example: Example) -> None:
    graph, run = small(), example.run
    task = gp.compile(graph, example.classifier.program(gp.LinearHead(10)))
    state = task.program_state()
    (name,) = (one for one in state if "border" in one)
    frame = gp.masks.border(inner=SIDE).tensor(tuple(state[name].shape)).bool()
    values = torch.rand(state[name].shape) * frame
    task.load_program_state({**state, name: values})
    program = example.classifier.program
    example.classifier.program = lambda: program(gp.LinearHead(10))
    found = run.shuffled(graph, task).program_state()[name]
    assert not torch.equal(found, values)
    assert torch.equal(found[frame].sort().values, values[frame].sort().values)
    assert torch.equal(found[~frame], values[~frame])


def test_a_small_network_is_looked_into(
    example: Example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = example.run
    monkeypatch.setattr(run, "SEEDS", (0, 1))
    monkeypatch.setattr(run, "PROBED", ("hidden[0]", "hidden[2]"))
    monkeypatch.setattr(run, "LOOKED", "hidden[2]")
    programs = run.main(epochs=1, outputs=tmp_path, load=small, kept=60)
    assert len(programs) == 2
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"picture.png", "depth.png", "table.txt"}
    text = (tmp_path / "table.txt").read_text(encoding="utf-8")
    assert "hidden[2]" in text
    assert "least important" in text
