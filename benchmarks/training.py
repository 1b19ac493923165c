"""A training step in ONNX Runtime beside PyTorch, eager and compiled; ratios of one run.

    python benchmarks/training.py [efficientnet] [vit] [gpt2]

EfficientNet-Lite0 with a learnt border, ViT-B/16 with ten deep tokens, and a model of the size of
GPT-2 small with twenty tokens in front, each trained by Adam on random data. The machine decides
the seconds; what counts are the ratios. Compiling takes a C++ compiler; where there is none, or it
takes the step for something else, its row says so.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from turns import machine, side_by_side

import graphprog as gp

ROOT = Path(__file__).resolve().parent.parent

Job = tuple[gp.Reprogrammed, tuple[torch.Tensor, ...], Callable[[Any, torch.Tensor], torch.Tensor]]


def main() -> None:
    """Measure, and print a table."""
    sys.path.append(str(ROOT))
    from tests.cpu_torchvision import declare_missing_operators

    _kept = declare_missing_operators()  # libraries may find a torchvision built for CUDA
    jobs = {"efficientnet": efficientnet, "vit": vit, "gpt2": gpt2}
    chosen = sys.argv[1:] or list(jobs)
    print(machine())
    print("| | ms a step | eager / this | losses differ by |\n|---|---|---|---|")
    for name in chosen:
        compare(name, *jobs[name]())


def compare(
    name: str,
    task: gp.Reprogrammed,
    batch: tuple[torch.Tensor, ...],
    loss: Callable[[Any, torch.Tensor], torch.Tensor],
) -> None:
    """Take steps in turn, and print a row an engine."""
    optimizer = gp.Adam(1e-2)
    eager = stepper(task, task, batch, loss, optimizer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        *inputs, labels = batch
        gp.backends.onnxruntime.export_training(
            task, path, loss=loss, optimizer=optimizer, logits=False, inputs=inputs, labels=labels
        )
        trainer = gp.backends.onnxruntime.Trainer(path, providers="cpu")
    calls: dict[str, Callable[[], float]] = {
        "eager PyTorch": eager,
        "ONNX Runtime": lambda: trainer.step(*batch),
    }
    note = ""
    try:
        copied = gp.compile(task.base, task.spec)
        compiled = stepper(torch.compile(copied.train()), copied, batch, loss, optimizer)
        compiled()
        calls["torch.compile"] = compiled
    except Exception as error:
        note = f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
    first = {engine: call() for engine, call in calls.items() if engine != "torch.compile"}
    gap = abs(first["ONNX Runtime"] / first["eager PyTorch"] - 1)
    times = side_by_side(calls)
    for engine, seconds in times.items():
        ratio = times["eager PyTorch"] / seconds
        told = f"{gap:.1e}" if engine == "ONNX Runtime" else ""
        print(f"| {name}, {engine} | {seconds * 1e3:.0f} | {ratio:.2f} | {told} |", flush=True)
    if note:
        print(f"| {name}, torch.compile | {note} | | |")


def stepper(
    model: Any,
    task: gp.Reprogrammed,
    batch: tuple[torch.Tensor, ...],
    loss: Callable[[Any, torch.Tensor], torch.Tensor],
    optimizer: gp.Adam,
) -> Callable[[], float]:
    """A step of PyTorch."""
    *inputs, labels = batch
    parameters = [value for value in task.program.parameters() if value.requires_grad]
    made = optimizer(parameters)
    task.train()

    def step() -> float:
        value = loss(model(*inputs), labels)
        made.zero_grad()
        value.backward()
        made.step()
        return value.item()

    return step


def efficientnet() -> Job:
    """4.7 million weights; 16 images of 96 by 96."""
    import timm

    model = timm.create_model("efficientnet_lite0", pretrained=False).eval()
    graph = gp.optimise(gp.capture(model, (torch.rand(2, 3, 96, 96),)))
    frame = gp.Additive(at="input", value=gp.Learnable("normal"), mask=gp.masks.border(inner=48))
    task = gp.compile(graph, gp.Program([frame], align=gp.FixedMap(10)))
    return task, (torch.rand(16, 3, 96, 96), torch.arange(16) % 10), functional.cross_entropy


def vit() -> Job:
    """86 million weights; 4 images of 224 by 224."""
    import timm

    model = timm.create_model("vit_base_patch16_224", pretrained=False).eval()
    graph = gp.capture(model, (torch.rand(2, 3, 224, 224),))
    program = gp.Program(gp.methods.vpt_deep(10), align=gp.LinearHead(10, on="features"))
    task = gp.compile(graph, program)
    return task, (torch.rand(4, 3, 224, 224), torch.arange(4)), functional.cross_entropy


def gpt2() -> Job:
    """124 million weights; 4 texts of 64 tokens."""
    import transformers

    config = transformers.GPT2Config(attn_implementation="sdpa")
    model = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
    ids = torch.randint(config.vocab_size, (4, 64))
    axes = {"input_ids": {0: "batch", 1: "sequence"}}
    graph = gp.capture(model, (), {"input_ids": ids[:2, :9], "use_cache": False}, axes)
    prompt = gp.Concatenative(at="tokens", length=20, value=gp.Learnable("normal", 0.02))
    task = gp.compile(graph, gp.Program([prompt]))
    return task, (ids, ids), gp.losses.CausalLM(task)


if __name__ == "__main__":
    main()
