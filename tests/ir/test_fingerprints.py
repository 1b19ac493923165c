from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import graphprog as gp
from graphprog.ir.graph import Graph
from tests.models.corner_models import ResidualNet


def capture_seeded(change: Any = None) -> Graph:
    torch.manual_seed(0)
    model = ResidualNet().eval()
    if change is not None:
        with torch.no_grad():
            change(model)
    return gp.capture(model, (torch.randn(2, 3, 16, 16),))


def test_fingerprints_are_stable_and_tell_models_apart(tmp_path: Path) -> None:
    own = capture_seeded().fingerprint
    assert capture_seeded().fingerprint == own
    weight = capture_seeded(lambda m: m.blocks[2].conv.bias[3].add_(1e-6)).fingerprint
    assert (weight.text, weight.weights != own.weights) == (own.text, True)
    buffer = capture_seeded(lambda m: m.blocks[0].norm.running_var[0].add_(1e-6)).fingerprint
    assert (buffer.text, buffer.weights != own.weights) == (own.text, True)
    operation = capture_seeded(lambda m: setattr(m.blocks[1], "relu", nn.GELU())).fingerprint
    assert (operation.text != own.text, operation.weights) == (True, own.weights)


def test_fingerprints_agree_between_processes() -> None:
    code = (
        "import torch, graphprog as gp; from tests.models.corner_models import ResidualNet\n"
        "torch.manual_seed(0); model = ResidualNet().eval()\n"
        "print(gp.capture(model, (torch.randn(2, 3, 16, 16),)).fingerprint.text)\n"
    )
    root = str(Path(gp.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == [capture_seeded().fingerprint.text]


def test_a_file_has_the_fingerprint_of_its_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = ResidualNet().eval(), torch.randn(2, 3, 16, 16)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "under_another_name.pt2")
    own, file = gp.capture(model, (x,)), gp.capture(tmp_path / "under_another_name.pt2")
    assert file.fingerprint == own.fingerprint
