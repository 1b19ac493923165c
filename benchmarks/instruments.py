"""Run time of the instruments, as ratios of one run.

    python -m benchmarks.instruments

1. Recording three blocks of twelve (a causal model of width 256, random weights), beside a
forward run that is stopped there by hand; the peak memory of both. 2. The weights of one attention,
which is written out, with the logits: beside a run without them, and beside all weights from
transformers. 3. Patching 12 x 16 cells, beside forward hooks in eager PyTorch in batches of the
same size, and beside compiling a program and running it for each cell (measured on some cells).
4. A map by attribution, beside one forward run. The machine decides the seconds; what counts are
the ratios.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

import graphprog as gp
from benchmarks.turns import machine, side_by_side  # first: it makes torchvision importable
from tests.support.peak_memory import PeakMemory

TOKENS, BATCH = 16, 48


def main() -> None:
    """Measure, and print a table."""
    print(machine())
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=256, n_head=4, vocab_size=8000, attn_implementation="sdpa"
    )
    model = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
    clean = torch.randint(config.vocab_size, (1, TOKENS))
    corrupt = clean.clone()
    corrupt[0, 0] = 42  # every position differs, so that every cell is run
    axes = {"input_ids": {0: "batch", 1: "sequence"}}
    graph = gp.capture(model, (), {"input_ids": clean, "use_cache": False}, axes)
    record(model, graph)
    look_inside(model, graph)
    patch(model, graph, clean, corrupt)


def record(model: Any, graph: gp.Graph) -> None:
    """Time the recording of the first three blocks."""
    ids = torch.randint(8000, (8, 64))
    names = ["hidden[0]", "hidden[1]", "hidden[2]"]

    def by_hand() -> list[torch.Tensor]:
        body = model.transformer
        x = body.wte(ids) + body.wpe(torch.arange(ids.shape[1]))
        found = []
        for block in body.h[:3]:
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
            found.append(x)
        return found

    with torch.no_grad():
        for one, other in zip(by_hand(), gp.record(graph, ids, names).values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        times = side_by_side({"by hand": by_hand, "record": lambda: gp.record(graph, ids, names)})
    print(f"record 3 of 12 blocks: {times['record'] / times['by hand']:.2f} of a run by hand")
    calls = {
        "by hand": by_hand,
        "record": lambda: gp.record(graph, ids, names),
        "the last": lambda: gp.record(graph, ids, "hidden[11]"),
        "all": lambda: gp.record(graph, ids, "hidden[*]"),
    }
    peaks = {name: peak(call) for name, call in calls.items()}
    print(f"  peak memory: {peaks['record'] / peaks['by hand']:.2f} of a run by hand")
    print(f"  of the last block alone: {peaks['the last'] / peaks['all']:.2f} of all twelve")


def peak(call: Callable[[], object]) -> int:
    """Return the largest number of bytes that the tensors of a call hold at a time."""
    with torch.no_grad(), PeakMemory() as memory:
        call()
    return memory.peak


def look_inside(model: Any, graph: gp.Graph) -> None:
    """Time the weights of one attention beside runs without, and beside transformers' own."""
    ids = torch.randint(8000, (8, 64))
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    names = ["logits", "attention[5].weights"]

    def theirs() -> Any:
        return eager(ids, use_cache=False, output_attentions=True)

    with torch.no_grad():
        found = gp.record(graph, ids, names)["attention[5].weights"]
        torch.testing.assert_close(found, theirs().attentions[5], rtol=1e-4, atol=1e-5)
        times = side_by_side(
            {
                "logits": lambda: gp.record(graph, ids, "logits"),
                "weights": lambda: gp.record(graph, ids, names),
                "theirs": theirs,
            }
        )
    print(
        f"weights of one attention of 12: {times['weights'] / times['logits']:.2f} of a run without"
    )
    print(f"  {times['weights'] / times['theirs']:.2f} of all weights from transformers")


def patch(model: Any, graph: gp.Graph, clean: torch.Tensor, corrupt: torch.Tensor) -> None:
    """Time a map of 12 x 16 cells."""
    metric = (7, 11)

    def hooks() -> torch.Tensor:
        with torch.no_grad():
            given = model(clean, output_hidden_states=True, use_cache=False).hidden_states[1:]
            cells = [(layer, position) for layer in range(12) for position in range(TOKENS)]
            found = []
            for start in range(0, len(cells), BATCH):
                batch = cells[start : start + BATCH]
                handles = [
                    model.transformer.h[layer].register_forward_hook(changing(given, batch, layer))
                    for layer in sorted({layer for layer, _ in batch})
                ]
                logits = model(corrupt.expand(len(batch), -1), use_cache=False).logits[:, -1]
                found.append(logits[:, metric[0]] - logits[:, metric[1]])
                for handle in handles:
                    handle.remove()
        return torch.cat(found)

    def here() -> gp.instruments.EffectMap:
        return gp.patch(graph, clean, corrupt, metric=metric, batch_size=BATCH, progress=False)

    def one_by_one() -> float:
        started, some = time.perf_counter(), 4
        value = graph.evaluate(["hidden[5]"], [clean])["hidden[5]"]
        for position in range(some):
            fixed = gp.Fixed(value[0, position])
            part = gp.Replacement(at="hidden[5]", offset=position, length=1, value=fixed)
            gp.compile(graph, gp.Program([part]))(corrupt)
        return (time.perf_counter() - started) / some * 12 * TOKENS

    def attribution() -> gp.instruments.EffectMap:
        return gp.attribute(graph, clean, corrupt, metric=metric)

    with torch.no_grad():
        forward = lambda: model(clean, use_cache=False)  # noqa: E731
        times = side_by_side({"hooks": hooks, "patch": here, "forward": forward})
    by_gradient = side_by_side({"attribute": attribution, "forward": forward})
    print(f"patch 12 x {TOKENS} cells: {times['patch'] / times['hooks']:.2f} of hooks in batches")
    print(f"  one compile and run a cell: {one_by_one() / times['patch']:.0f} times as long")
    ratio = by_gradient["attribute"] / by_gradient["forward"]
    print(f"a map by attribution: {ratio:.1f} forward runs")


def changing(given: Any, batch: list[tuple[int, int]], layer: int) -> Any:
    """Make a hook that replaces the values of a batch of cells in one block."""

    def hook(_module: Any, _args: Any, result: Any) -> Any:
        value = (result[0] if isinstance(result, tuple) else result).clone()
        for row, (at, position) in enumerate(batch):
            if at == layer:
                value[row, position] = given[layer][0, position]
        return (value, *result[1:]) if isinstance(result, tuple) else value

    return hook


if __name__ == "__main__":
    main()
