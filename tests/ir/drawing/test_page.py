"""The graph page in a headless Chromium, and its built file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import graphprog as gp
from tests.models.corner_models import ResidualNet
from tests.support.environments import ROOT
from tests.support.fuzzing.hostile_graph import HOSTILE, hostile
from tests.support.javascript_runtimes import needs_node, node, run_script

pytestmark = [needs_node, pytest.mark.xdist_group("javascript")]

TITLES = "[...document.querySelectorAll('.pane .box .name')].map((one) => one.textContent)"
NODES = "document.querySelectorAll('.pane .node').length"
PANEL = "document.querySelector('aside').innerText"
PANES = "[...document.querySelectorAll('.pane h2')].map((one) => one.textContent)"
TINTED = "[...document.querySelectorAll('.pane .tinted')].map((one) => one.dataset.id)"

SCENES: dict[str, list[list[Any]]] = {
    "fold": [
        ["open", "graph.html"],
        ["read", TITLES],
        ["read", NODES],
        ["click", '[data-fold="blocks.0–2"]'],
        ["read", TITLES],
        ["key", "w"],
        ["read", NODES],
        ["key", "Enter"],
        ["read", "location.hash"],
    ],
    "find": [
        ["open", "graph.html?find"],
        ["key", "/"],
        ["type", "blocks.1.norm"],
        ["read", "document.querySelector('output').textContent"],
        ["key", "Enter"],
        ["read", PANEL],
        ["read", "location.hash"],
        ["key", "Escape"],
        ["key", "ArrowDown"],
        ["read", "document.querySelector('aside h2').textContent"],
    ],
    "address": [
        ["open", "task.html#graph=3&at=mul_1&colors=depends&theme=dark"],
        ["read", PANEL],
        ["read", "document.querySelector('#colors').value"],
        ["read", "document.documentElement.dataset.theme"],
    ],
    "compare": [
        ["open", "task.html?compare"],
        ["key", "b"],
        ["read", PANES],
        ["read", TINTED],
        ["key", "b"],
        ["key", "["],
        ["read", PANES],
        ["key", "c"],
        ["read", "document.querySelector('#colors').value"],
    ],
    "hostile": [
        ["open", "hostile.html"],
        ["read", "document.title + document.querySelector('h1').textContent"],
        ["read", "String(window.hacked)"],
        ["read", "document.querySelectorAll('img').length"],
        ["read", PANEL],
    ],
    "notebook": [
        ["open", "notebook.html"],
        ["frame", "document.body.dataset.ready + document.querySelectorAll('.node').length"],
    ],
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What a browser reads in each scene; it complains about nothing, and asks for no file."""
    folder = tmp_path_factory.mktemp("pages")
    torch.manual_seed(0)
    graph = gp.capture(ResidualNet().eval(), (torch.zeros(2, 3, 8, 8),))
    parts = [gp.Additive(), gp.Scale(at="hidden[*]")]
    task = gp.compile(graph, gp.Program(parts, align=gp.LinearHead(2, at="features")))
    graph.draw(folder / "graph.html")
    values = gp.record(task, torch.randn(4, 3, 8, 8), at=["hidden[*]"])
    task.draw(folder / "task.html", values=values)
    hostile(graph).draw(folder / "hostile.html")
    (folder / "notebook.html").write_text(f"<body data-ready=1>{task._repr_html_()}")
    actions = [action for scene in SCENES.values() for action in scene]
    (folder / "actions.json").write_text(json.dumps(actions))
    result = run_script("graph_page.mjs", folder, folder / "actions.json")
    assert result["complaints"] == []
    assert [one for one in result["requests"] if not one.startswith("about:")] == []
    found = iter(result["found"])
    return {
        name: [next(found) for action in scene if action[0] in ("read", "frame")]
        for name, scene in SCENES.items()
    }


def test_repeats_are_folded_at_first_and_unfold(scenes: dict[str, list[Any]]) -> None:
    at_first, nodes, unfolded, folded, address = scenes["fold"]
    assert at_first == ["blocks.0–2 ×3"]
    assert sorted(unfolded) == ["0", "1", "2", "blocks.0–2 ×3"]
    assert (nodes, folded) == (5, 5)
    assert address.startswith("#graph=0")


def test_search_finds_and_shows_the_details(scenes: dict[str, list[Any]]) -> None:
    count, panel, address, next_below = scenes["find"]
    assert count == "– of 2"
    assert "tests/models/corner_models.py" in panel
    assert "interface blocks.1.norm:in" in panel
    assert "at=conv2d_2" in address
    assert next_below == "batch_norm"


def test_an_address_leads_to_a_node_with_its_recorded_value(scenes: dict[str, list[Any]]) -> None:
    panel, mode, theme = scenes["address"]
    assert panel.startswith("mul.Tensor")
    assert "scale_1 (scale)" in panel
    assert "recorded f32[4,8,4,4]: mean" in panel
    assert (mode, theme) == ("depends", "dark")


def test_graphs_before_and_after_a_pass_stand_side_by_side(scenes: dict[str, list[Any]]) -> None:
    panes, tinted, back, mode = scenes["compare"]
    assert [one.split("{")[0] for one in panes] == ["insert", "align"]
    assert set(tinted) == {"program_align_weight", "program_align_bias", "linear_1", "output"}
    assert [one.split("{")[0] for one in back] == ["insert"]
    assert mode == "depends"


def test_markup_in_names_is_shown_as_text(scenes: dict[str, list[Any]]) -> None:
    title, hacked, images, panel = scenes["hostile"]
    assert title == HOSTILE * 2
    assert (hacked, images) == ("undefined", 0)
    assert "@graphs@, @title@" in panel


def test_the_page_works_in_the_frame_of_a_notebook(scenes: dict[str, list[Any]]) -> None:
    (ready,) = scenes["notebook"]
    assert ready.startswith("true")
    assert int(ready.removeprefix("true")) > 5


def test_the_built_page_is_that_of_its_sources(tmp_path: Path) -> None:
    if not (ROOT / "web" / "node_modules" / "esbuild").is_dir():
        pytest.skip("the packages of web are not installed: make javascript")
    built = tmp_path / "page.html"
    subprocess.run([str(node()), str(ROOT / "web" / "build.mjs"), str(built)], check=True)
    shipped = ROOT / "graphprog" / "ir" / "drawing" / "page.html"
    assert built.read_bytes() == shipped.read_bytes(), "make page builds it anew"
