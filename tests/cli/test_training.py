"""Runs by a configuration: trained, interrupted, resumed and measured through the executable."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

import graphprog as gp
from graphprog.cli.main import main
from tests.models.corner_models import ResidualNet
from tests.support.environments import ROOT, run

GRAPHPROG: list[str | Path] = [sys.executable, "-m", "graphprog"]

CONFIG = """
model = "net.graph"

[method]
name = "ilm"

[data]
train = "sklearn:digits"
test = 0.2

[train]
epochs = 2
batch_size = 512
lr = 0.1
reuse = "off"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a configuration, and a run that the executable trained."""
    made = tmp_path_factory.mktemp("ein Ördner")
    torch.manual_seed(0)
    graph = gp.capture(ResidualNet().eval(), (torch.zeros(2, 3, 16, 16),))
    graph.save(made / "net.graph")
    (made / "digits.toml").write_text(CONFIG, encoding="utf-8")
    done = run([*GRAPHPROG, "train", "digits.toml"], made, ROOT)
    assert done.returncode == 0, done.stderr
    assert "runs/digits/program.safetensors: 336 parameters, best epoch" in done.stdout
    assert "epoch 2/2" in done.stderr  # a line for each epoch, without a terminal
    assert "gp.IterativeMap(classes=10)" in done.stderr
    return made


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])


def environment() -> dict[str, str]:
    """What subprocesses need to find the checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_the_run_is_what_fit_learns(folder: Path) -> None:
    """The test data are neither trained on nor chosen with: only 0.6 and 0.2 of each class are."""
    graph = gp.Graph.load(folder / "net.graph")
    task = gp.load(folder / "runs/digits/program.safetensors", graph)
    history = json.loads((folder / "runs/digits/history.json").read_text(encoding="utf-8"))
    assert history["examples"] == {"training": 1079, "validation": 359}
    assert task.spec.align == gp.IterativeMap(classes=10)
    assert task.spec.contract.labels == tuple("0123456789")


def test_evaluate_measures_the_test_data(folder: Path) -> None:
    done = run([*GRAPHPROG, "evaluate", "runs/digits", "--json"], folder, ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["count"] == 359
    assert found["labels"] == [*"0123456789"]
    assert sum(map(sum, found["confusion"])) == 359


def test_splits_are_measured_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    history = json.loads(Path("runs/digits/history.json").read_text(encoding="utf-8"))
    best = history["records"][history["best_epoch"] - 1]
    assert main(["evaluate", "digits.toml", "--split", "validation", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == pytest.approx(best["validation_accuracy"])
    assert main(["evaluate", "runs/digits", "--data", "sklearn:digits"]) == 0
    assert "examples 1797" in capsys.readouterr().out
    assert main(["evaluate", "runs/digits", "--split", "tset"]) == 2
    assert "there is no split 'tset'" in capsys.readouterr().err


def test_an_interrupted_run_resumes_to_the_same_program(folder: Path) -> None:
    change = ["--set", "train.epochs=30", "--set", "train.batch_size=32"]
    command = [*map(str, GRAPHPROG), "train", "digits.toml", *change, "-o", "runs/resumed"]
    state = folder / "runs/resumed/checkpoint/state.safetensors"
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        while not state.is_file():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.endswith(
        "go on with: graphprog train digits.toml --set train.epochs=30 "
        "--set train.batch_size=32 --output runs/resumed --resume\n"
    )
    assert "Traceback" not in said
    assert not (folder / "runs/resumed/program.safetensors").exists()
    assert main(["evaluate", "runs/resumed"]) == 2
    assert main(["train", "digits.toml", *change, "-o", "runs/resumed"]) == 2  # has begun
    for place, more in (("runs/resumed", ["--resume"]), ("runs/whole", [])):
        assert main(["train", "digits.toml", *change, "-o", place, "--quiet", *more]) == 0
    resumed, whole = (
        safetensors.torch.load_file(f"runs/{name}/program.safetensors")
        for name in ("resumed", "whole")
    )
    assert resumed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(resumed[name], whole[name])] == []


def test_quiet_prints_only_the_result(folder: Path) -> None:
    done = run([*GRAPHPROG, "train", "digits.toml", "-o", "runs/q", "--quiet"], folder, ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    found, other = (
        safetensors.torch.load_file(folder / f"runs/{name}/program.safetensors")
        for name in ("q", "digits")
    )
    assert all(torch.equal(found[name], other[name]) for name in other)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--master_port", str(port), "-m", "graphprog", "train", "digits.toml"]
    cpu = {**environment(), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*launch, "-o", "runs/two"],
        cwd=folder,
        env=cpu,
        check=True,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("program.safetensors: ") == 1  # one process prints
    assert main(["train", "digits.toml", "-o", "runs/one"]) == 0
    graph = gp.Graph.load(folder / "net.graph")
    one, two = (
        gp.load(f"runs/{name}/program.safetensors", graph).program_state()
        for name in ("one", "two")
    )
    assert torch.equal(one["program.align.sources"], two["program.align.sources"])
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
