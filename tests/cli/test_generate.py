"""Text that continues prompts, from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import graphprog as gp
from graphprog.cli.main import main
from tests.models.text_models import save_small_gpt2
from tests.support.environments import ROOT, run

SOURCE = """
from tests.support.cpu_torchvision import declare_missing_operators

operators = declare_missing_operators()
import graphprog as gp

def small():
    return gp.sources.open_source("hf:small")
"""
PROMPTS = ["Review: a warm", "Q: 23 + 47 ="]


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, gp.Graph]:
    """A folder with a language model and a program, and the model in this process."""
    folder = tmp_path_factory.mktemp("writer")
    small = save_small_gpt2(folder / "small", blocks=1)
    (folder / "own_zoo.py").write_text(SOURCE)
    graph = gp.capture(f"hf:{small}")
    program = gp.Program([gp.Additive(at="tokens", value=gp.Learnable("normal"))])
    gp.save(gp.compile(graph, program, seed=3), folder / "kind.safetensors")
    return folder, graph


def test_a_text_is_continued(writer: tuple[Path, gp.Graph]) -> None:
    folder, graph = writer
    words = ["generate", "own_zoo:small", PROMPTS[0], "--max-new-tokens", "5"]
    done = run([sys.executable, "-m", "graphprog", *words], folder, ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    (expected,) = gp.generate(graph, PROMPTS[:1], max_new_tokens=5)
    assert done.stdout == expected.text + "\n"


def test_a_program_writes_for_several_prompts(
    writer: tuple[Path, gp.Graph],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, graph = writer
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("graphprog.cli.use.generate.open_model", lambda *args: graph)
    words = ["generate", "hf:small", *PROMPTS, "--program", "kind.safetensors", "--json"]
    words += ["--max-new-tokens", "4", "--samples", "2", "--temperature", "2.0", "--seed", "5"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    task = gp.load("kind.safetensors", graph)
    expected = gp.generate(
        task, PROMPTS, max_new_tokens=4, num_return_sequences=2, temperature=2.0, seed=5
    )
    assert [one["text"] for one in found] == [one.text for one in expected]
    assert [one["prompt"] for one in found] == [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2
    monkeypatch.setattr("sys.stdin", iter(["\n"]))
    assert main(["generate", "hf:small"]) == 2
    assert "error: there is no prompt" in capsys.readouterr().err
