"""Run time of a text stored as a prefix, and of a decode step; ratios of one run.

    python -m benchmarks.memory [tokens remembered]

A model of the size of GPT-2 small with random weights. 1. Demonstrations of 512 tokens compiled
into keys and values, with a query of 16 tokens: beside running the whole text in eager PyTorch,
and beside the query alone. 2. A step of greedy writing behind 128 tokens: ONNX Runtime in float32
and int8, and the derived graphs in PyTorch, beside transformers' own cache in eager PyTorch. The
machine decides the seconds; what counts are the ratios.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import graphprog as gp
from benchmarks.turns import machine, side_by_side

QUERY, PROMPT, WRITTEN = 16, 128, 64


def main() -> None:
    """Measure, and print two tables."""
    remembered = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    print(machine())
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_positions=1024, attn_implementation="sdpa")
    model = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
    ids = torch.randint(config.vocab_size, (2, 9))
    axes = {"input_ids": {0: "batch", 1: "sequence"}}
    graph = gp.capture(model, (), {"input_ids": ids, "use_cache": False}, axes)
    with torch.no_grad():
        fold(model, graph, remembered)
        write(model, graph)


def fold(model: Any, graph: gp.Graph, remembered: int) -> None:
    """Time a query after a stored text, the whole text, and the query alone."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(50_000, (1, remembered), generator=generator)
    query = torch.randint(50_000, (1, QUERY), generator=generator)
    whole = torch.cat([text, query], 1)
    part = gp.Prefix(value=gp.TextPrefix(tuple(text[0].tolist())))
    task = gp.compile(graph, gp.Program([part]))
    wanted = model(whole).logits[:, remembered:]
    gap = float((task(query)["logits"] - wanted).abs().max() / wanted.abs().max())
    plain = gp.compile(graph, gp.Program())
    with tempfile.TemporaryDirectory() as folder:
        for name, one in (("folded", task), ("plain", plain)):
            gp.backends.onnx.export(one, Path(folder) / f"{name}.onnx")
        folded, alone = (
            gp.backends.onnxruntime.Session(Path(folder) / f"{name}.onnx", providers="cpu")
            for name in ("folded", "plain")
        )
        array = query.numpy()
        times = side_by_side(
            {
                "whole text, eager PyTorch": lambda: model(whole, use_cache=False),
                "query alone, eager PyTorch": lambda: model(query, use_cache=False),
                "query after the stored text, PyTorch": lambda: task(query),
                "query alone, ONNX Runtime": lambda: alone.run(array),
                "query after the stored text, ONNX Runtime": lambda: folded.run(array),
            }
        )
    full = times["whole text, eager PyTorch"]
    print(f"\n{remembered} tokens remembered, {QUERY} asked; off by {gap:.1e} of the largest logit")
    print("| | ms | whole text / this | this / query alone |\n|---|---|---|---|")
    for name, seconds in times.items():
        base = times[f"query alone, {'eager PyTorch' if 'PyTorch' in name else 'ONNX Runtime'}"]
        print(f"| {name} | {seconds * 1e3:.1f} | {full / seconds:.1f} | {seconds / base:.2f} |")


def write(model: Any, graph: gp.Graph) -> None:
    """A step of greedy writing."""
    prompt = torch.randint(50_000, (1, PROMPT), generator=torch.Generator().manual_seed(2))
    cached = gp.with_kv_cache(graph)
    with tempfile.TemporaryDirectory() as folder:
        writers: dict[str, Any] = {}
        for precision in ("float32", "int8"):
            path = Path(folder) / f"{precision}.onnx"
            report = gp.backends.onnx.export_decoder(graph, path, precision=precision)
            print(f"\n{report}")
            writers[precision] = gp.backends.onnxruntime.Decoder(path, providers="cpu")

        def steps(writer: Any) -> Callable[[], object]:
            return lambda: gp.generate(writer, prompt.tolist(), max_new_tokens=WRITTEN, ends=[])

        times = side_by_side(
            {
                "transformers' cache, eager PyTorch": lambda: library(model, prompt),
                "graphprog, PyTorch": steps(cached),
                "graphprog, ONNX Runtime, float32": steps(writers["float32"]),
                "graphprog, ONNX Runtime, int8": steps(writers["int8"]),
            }
        )
    ours = gp.generate(cached, prompt.tolist(), max_new_tokens=WRITTEN, ends=[])[0].ids
    same = list(ours) == library(model, prompt)
    base = times["transformers' cache, eager PyTorch"]
    print(f"\n{WRITTEN} tokens behind {PROMPT}, prompt included; the same tokens: {same}")
    print("| | ms a token | transformers / this |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {seconds * 1e3 / WRITTEN:.1f} | {base / seconds:.2f} |")


def library(model: Any, prompt: torch.Tensor) -> list[int]:
    """Greedy writing with transformers' own cache, without the bookkeeping of its generate."""
    found = model(prompt, use_cache=True)
    written = [int(found.logits[0, -1].argmax())]
    while len(written) < WRITTEN:
        token = torch.tensor([[written[-1]]])
        found = model(token, past_key_values=found.past_key_values, use_cache=True)
        written.append(int(found.logits[0, -1].argmax()))
    return written


if __name__ == "__main__":
    main()
