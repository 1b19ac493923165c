"""The command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import graphprog
from graphprog.cli.main import main
from graphprog.utils.lazy import load
from tests.support.environments import ROOT, SETTINGS, run

GRAPHPROG: list[str | Path] = [sys.executable, "-m", "graphprog"]

FACTORY = """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Linear(4, 4)), torch.zeros(2, 4)
"""


def test_the_executable_is_the_function() -> None:
    assert load(SETTINGS["project"]["scripts"]["graphprog"]) is main


def test_help_and_mistakes_need_no_torch(tmp_path: Path) -> None:
    done = run([*GRAPHPROG, "--version"], tmp_path, ROOT)
    assert (done.returncode, done.stdout) == (0, f"graphprog {graphprog.__version__}\n")
    code = (
        "import sys\nfrom graphprog.cli.main import main\nmain([])\nprint('torch' in sys.modules)"
    )
    done = run([sys.executable, "-c", code], tmp_path, ROOT)
    assert "Commands:" in done.stdout
    assert done.stdout.endswith("False\n")
    done = run([*GRAPHPROG, "inspect"], tmp_path, ROOT)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """The factory is found in the working directory, whose name has a space and an umlaut."""
    folder = tmp_path / "ein Ördner"
    folder.mkdir()
    (folder / "own_zoo.py").write_text(FACTORY)
    command = [*map(str, GRAPHPROG), "inspect", "own_zoo:small"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_draw_writes_a_page(tmp_path: Path) -> None:
    (tmp_path / "own_zoo.py").write_text(FACTORY)
    done = run([*GRAPHPROG, "draw", "own_zoo:small", "-o", "page.html"], tmp_path, ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
