"""Many processes learn what one learns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from graphprog.train import evaluate, fit
from tests.support.training import digits, headed

TRAIN, VALIDATION = digits()["train"], digits()["validation"]

CHILD = """
import json, sys, torch, safetensors.torch
from accelerate import PartialState
from torch.utils.data import DataLoader, TensorDataset
from tests.support.cpu_torchvision import declare_missing_operators
library = declare_missing_operators()
from graphprog.train import evaluate, fit
from tests.support.training import digits, framed, headed
import graphprog as gp
torch.set_num_threads(1)
data = digits()
train, validation = data["train"], data["validation"]
out = sys.argv[1]
settings = dict(epochs=3, batch_size=33, accumulate=2, lr=0.05, optimizer="sgd")
task = headed()
history = fit(task, train, validation, checkpoint=out + "/run", **settings)
mapped = framed(gp.IterativeMap(10, collect="epoch"))
loader = DataLoader(TensorDataset(*train), batch_size=33)
counted = fit(mapped, loader, epochs=2, lr=0.0)
def spread(predictions, labels):
    return float(predictions.std() * labels.float().std())
names = ["balanced_accuracy", "macro_f1", "auroc"]
metrics = {**{name: name for name in names}, "spread": spread}
score = evaluate(task, validation, batch_size=7, metrics=metrics)
try:
    evaluate(task, tuple(part[:1] for part in validation), metrics="auroc")
except gp.errors.TrainingError as error:
    refusal = str(error)
state = PartialState()
if state.is_main_process:
    safetensors.torch.save_file(task.program_state(), out + "/head.safetensors")
    json.dump({
        "processes": state.num_processes,
        "history": history.to_json(),
        "reports": [record.mapping for record in counted.records],
        "mapping": mapped.program_state()["program.align.sources"].tolist(),
        "score": [score.accuracy, score.count, score.confusion.tolist()],
        "metrics": score.metrics,
        "refusal": refusal,
    }, open(out + "/found.json", "w"))
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    import graphprog as gp
    from tests.support.training import framed

    script = tmp_path / "child.py"
    script.write_text(CHILD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--master_port", str(port), str(script), str(tmp_path)]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    environment["ACCELERATE_USE_CPU"] = "true"
    subprocess.run(launch, cwd=root, env=environment, check=True, timeout=300)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["processes"] == 2

    task = headed()
    history = fit(
        task, TRAIN, VALIDATION, epochs=3, batch_size=33, accumulate=2, lr=0.05, optimizer="sgd"
    )
    for record, other in zip(history.records, found["history"]["records"], strict=True):
        assert other["train_loss"] == pytest.approx(record.train_loss, rel=1e-4)
        assert other["validation_loss"] == pytest.approx(record.validation_loss, rel=1e-4)
    learned = safetensors.torch.load_file(tmp_path / "head.safetensors")
    for name, value in task.program_state().items():
        torch.testing.assert_close(learned[name], value, rtol=1e-3, atol=1e-5)

    def spread(predictions: torch.Tensor, labels: torch.Tensor) -> float:
        return float(predictions.std() * labels.float().std())

    names = {name: name for name in ("balanced_accuracy", "macro_f1", "auroc")}
    score = evaluate(task, VALIDATION, metrics={**names, "spread": spread})
    assert found["score"] == [score.accuracy, 100, score.confusion.tolist()]
    assert found["metrics"] == pytest.approx(score.metrics, rel=1e-4)
    assert "1 of 2 processes have no row of this split" in found["refusal"]

    mapped = framed(gp.IterativeMap(10, collect="epoch"))
    counted = fit(mapped, TRAIN, epochs=2, lr=0.0)
    assert found["reports"] == [record.mapping for record in counted.records]
    assert found["mapping"] == mapped.program_state()["program.align.sources"].tolist()
