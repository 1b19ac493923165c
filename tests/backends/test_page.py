"""The page of the browser example, drawn on in a headless Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import graphprog as gp
from tests.support.example_modules import Example, modules_of
from tests.support.javascript_runtimes import needs_node, run_script

pytestmark = [needs_node, pytest.mark.xdist_group("javascript")]

SEVEN = [[[0.3, 0.2], [0.7, 0.2], [0.45, 0.85]]]
PLUS = [[[0.5, 0.2], [0.5, 0.8]], [[0.2, 0.5], [0.8, 0.5]]]


@pytest.fixture(scope="module")
def example() -> Iterator[Example]:
    with pytest.MonkeyPatch.context() as patch, modules_of("06_in_the_browser", patch) as found:
        yield found


@pytest.fixture(scope="module")
def small(example: Example) -> gp.Graph:
    """In place of the classifier: ten times as many classes as are asked for, and few weights."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
    )
    model = nn.Sequential(layers, nn.Linear(128, 100)).eval()
    model[1].weight.data.mul_(20)  # answers that differ
    return gp.capture(model, (torch.zeros(2, 3, example.run.CANVAS, example.run.CANVAS),))


def test_the_page_answers_as_the_task_does_under_every_program(
    example: Example, small: gp.Graph, tmp_path: Path
) -> None:
    tasks = []
    for target in example.data.targets():
        task = gp.compile(small, example.run.program(target.labels))
        task.alignment.refresh((100 * torch.rand(100, 10) ** 8).round())
        with torch.no_grad():
            task.get_parameter("program.pattern.value").normal_()
        tasks.append((target, task, 0.0))
    example.run.write_page(tmp_path, tasks)
    found = _drawn(tmp_path, [SEVEN, PLUS])
    assert found["programs"] == ["digit", "across", "shape"]
    assert found["complaints"] == []
    assert found["missing"] == []
    answers = []
    for result in found["results"]:
        ink = np.array(result["ink"], np.float32).reshape(280, 280)
        cells = np.array(result["cells"], np.float32).reshape(8, 8)
        assert np.abs(cells - example.data.cells(ink)).max() < 1e-4
        assert 0.05 < cells.mean() < 0.6
        picture = torch.tensor(1 - cells)[None, None]
        for (target, task, _), shown in zip(tasks, result["answers"], strict=True):
            shares = task(picture).softmax(1)[0].tolist()
            assert shown["program"] == target.name
            assert shown["answer"] == target.labels[int(np.argmax(shares))]
            percents = [
                float(text.removeprefix(label).rstrip(" %"))
                for text, label in zip(shown["shares"], target.labels, strict=True)
            ]
            assert np.abs(np.array(percents) - 100 * np.array(shares)).max() < 0.51
            assert shown["status"].startswith("Answered in")
            answers.append(shown["shares"])
    assert len({str(shares) for shares in answers}) == len(answers)


@pytest.mark.slow
def test_drawings_are_read(example: Example, tmp_path: Path) -> None:
    accuracies = dict(example.run.main(epochs=3, outputs=tmp_path))
    assert min(accuracies.values()) > 0.8
    ring = [[[0.5 + 0.3 * np.sin(a), 0.5 - 0.3 * np.cos(a)] for a in np.linspace(0, 6.3, 40)]]
    seven, plus, circle = _drawn(tmp_path, [SEVEN, PLUS, ring])["results"]
    assert seven["answers"][0]["answer"] == "7"
    assert plus["answers"][2]["answer"] == "plus"
    assert circle["answers"][2]["answer"] == "circle"


def _drawn(folder: Path, drawings: list[Any]) -> dict[str, Any]:
    path = folder / "drawings.json"
    path.write_text(json.dumps(drawings))
    found: dict[str, Any] = run_script("page.mjs", folder, path)
    return found
