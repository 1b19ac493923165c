"""What ``gp.optimize(measure=...)`` keeps, with times that a test makes up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import PassError
from graphprog.passes.optimize.trial import TURNS


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.rand(4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x)).mean((2, 3)) @ self.scale.softmax(0)


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return gp.capture(Net().eval().requires_grad_(False), (torch.rand(2, 3, 8, 8),))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHPROG_CACHE", str(tmp_path))
    return tmp_path


def made_up(*seconds: tuple[float, float]) -> Callable[[Callable[[], object]], float]:
    """A timer: for each pass that changes something, the times without it and with it."""
    turns: Iterator[float] = iter([one for pair in seconds for _ in range(TURNS) for one in pair])
    return lambda call: next(turns)


def test_what_is_faster_is_kept_and_the_rest_is_not(graph: gp.Graph) -> None:
    timer = made_up((2.0, 1.0), (1.0, 1.01), (1.0, 0.99))  # constants, norms, channels
    found = gp.optimize(graph, measure=timer, exact=False)
    kept = [step.text for step in found.history[len(graph.history) :]]
    assert kept == ["fold-constants"]
    table = found.history.notes[-1]
    rows = {line.split()[0]: line.split()[-2:] for line in table.splitlines()[2:]}
    assert rows["fold-constants"] == ["2.00", "kept"]
    assert rows["fold-batch-norm"] == ["not", "kept"]
    assert "rounding" in table
    assert "changes nothing" in table
    assert table in str(found.history)


def test_nothing_is_kept_that_is_not_faster_beyond_noise(graph: gp.Graph) -> None:
    found = gp.optimize(graph, measure=made_up(*[(1.0, 0.98)] * 5), exact=False)
    assert found.text == graph.text
    assert found.fingerprint == graph.fingerprint
    swaying = iter([1.0, 0.5, 1.0, 2.0] * 10)
    again = gp.optimize(graph, measure=lambda call: next(swaying), inputs=(torch.rand(3, 3, 9, 9),))
    assert again.fingerprint == graph.fingerprint


def test_only_what_gives_the_same_bits_is_tried_unless_asked_for(graph: gp.Graph) -> None:
    found = gp.optimize(graph, measure=made_up((2.0, 1.0)))
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(found(x), graph(x))
    assert "rounding" not in found.history.notes[-1]


def test_a_second_trial_reads_what_the_first_found(graph: gp.Graph, cache: Path) -> None:
    first = gp.optimize(graph, measure=made_up((2.0, 1.0)))
    second = gp.optimize(graph, measure=made_up())  # any measurement would fail
    assert second.fingerprint == first.fingerprint
    (file,) = (cache / "trials").iterdir()
    file.write_text("damaged")
    third = gp.optimize(graph, measure=made_up((1.0, 2.0)))
    assert third.fingerprint == graph.fingerprint


def test_the_form_without_a_clock_is_the_same_everywhere(graph: gp.Graph) -> None:
    assert (
        gp.optimize(graph, exact=True).fingerprint == gp.passes.FoldConstants()(graph).fingerprint
    )
    assert gp.optimize(graph).fingerprint == gp.optimize(graph).fingerprint


def test_a_graph_with_a_program_is_refused(graph: gp.Graph) -> None:
    task = gp.compile(graph, gp.Program([gp.Additive()]))
    with pytest.raises(PassError, match="has a program in it"):
        gp.optimize(task.graph, measure=made_up())
