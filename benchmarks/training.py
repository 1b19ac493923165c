"""A training step in ONNX Runtime beside PyTorch, eager and compiled; ratios of one run.

    python -m benchmarks.training [efficientnet] [vit] [gpt2]

EfficientNet-Lite0 with a learned border, ViT-B/16 with ten deep tokens, and a model of the size of
GPT-2 small with twenty tokens in front, each trained by Adam on random data. Eager PyTorch runs the
model as its library has it, and once more after ``gp.optimize`` where that changes it. The machine
decides the seconds; what counts are the ratios. Compiling takes a C++ compiler; where there is
none, or it takes the step for something else, its row says so.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

import graphprog as gp
from benchmarks.turns import efficientnet_lite0, machine, side_by_side

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
Job = tuple[gp.Graph, gp.Program, tuple[torch.Tensor, ...], Loss | None]
"""A source, a program, inputs and labels, and a loss; that of language models where it is None."""


def main() -> None:
    """Measure, and print a table."""
    jobs = {"efficientnet": efficientnet, "vit": vit, "gpt2": gpt2}
    chosen = sys.argv[1:] or list(jobs)
    print(machine())
    torch.manual_seed(0)
    print("| | ms a step | eager / this | losses differ by |\n|---|---|---|---|")
    for name in chosen:
        compare(name, *jobs[name]())


def compare(
    name: str,
    graph: gp.Graph,
    program: gp.Program,
    batch: tuple[torch.Tensor, ...],
    loss: Loss | None,
) -> None:
    """Take steps in turn, and print one row per engine."""
    optimizer, best = gp.Adam(1e-2), gp.optimize(graph)
    task = gp.compile(best, program)
    function = gp.losses.CausalLM(task) if loss is None else loss

    def eager(source: gp.Graph, compiled: bool = False) -> Callable[[], float]:
        own = gp.compile(source, program)
        return stepper(torch.compile(own) if compiled else own, own, batch, function, optimizer)

    calls = {"eager PyTorch": eager(graph)}
    if best.fingerprint != graph.fingerprint:
        calls["eager PyTorch, gp.optimize"] = eager(best)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        *inputs, labels = batch
        gp.backends.onnxruntime.export_training(
            task,
            path,
            loss=function,
            optimizer=optimizer,
            logits=False,
            inputs=inputs,
            labels=labels,
        )
        trainer = gp.backends.onnxruntime.Trainer(path, providers="cpu")
    calls["ONNX Runtime"] = lambda: trainer.step(*batch)
    first = {engine: call() for engine, call in calls.items()}
    gap = abs(first["ONNX Runtime"] / first["eager PyTorch"] - 1)
    note = ""
    try:
        compiled = eager(best, compiled=True)
        compiled()
        calls["torch.compile"] = compiled
    except Exception as error:
        note = f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
    times = side_by_side(calls)
    for engine, seconds in times.items():
        ratio = times["eager PyTorch"] / seconds
        told = f"{gap:.1e}" if engine == "ONNX Runtime" else ""
        print(f"| {name}, {engine} | {seconds * 1e3:.0f} | {ratio:.2f} | {told} |", flush=True)
    if note:
        print(f"| {name}, torch.compile | {note} | | |")


def stepper(
    model: Any,
    task: gp.ReprogrammedModel,
    batch: tuple[torch.Tensor, ...],
    loss: Loss,
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
    graph = gp.capture(efficientnet_lite0(), (torch.rand(2, 3, 96, 96),))
    frame = gp.Additive(at="input", value=gp.Learnable("normal"), mask=gp.masks.border(inner=48))
    batch = (torch.rand(16, 3, 96, 96), torch.arange(16) % 10)
    return graph, gp.Program([frame], align=gp.FixedMap(10)), batch, functional.cross_entropy


def vit() -> Job:
    """86 million weights; 4 images of 224 by 224."""
    import timm

    model = timm.create_model("vit_base_patch16_224", pretrained=False).eval()
    graph = gp.capture(model, (torch.rand(2, 3, 224, 224),))
    program = gp.Program(gp.methods.vpt_deep(10), align=gp.LinearHead(10, at="features"))
    batch = (torch.rand(4, 3, 224, 224), torch.arange(4))
    return graph, program, batch, functional.cross_entropy


def gpt2() -> Job:
    """124 million weights; 4 texts of 64 tokens."""
    import transformers

    config = transformers.GPT2Config(attn_implementation="sdpa")
    model = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
    ids = torch.randint(config.vocab_size, (4, 64))
    axes = {"input_ids": {0: "batch", 1: "sequence"}}
    graph = gp.capture(model, (), {"input_ids": ids[:2, :9], "use_cache": False}, axes)
    prompt = gp.Concatenative(at="tokens", length=20, value=gp.Learnable("normal", 0.02))
    return graph, gp.Program([prompt]), (ids, ids), None


if __name__ == "__main__":
    main()
