"""Time of capture, of each pass and of a whole compile, against the number of nodes.

    python -m benchmarks.rewrite [most nodes]

Stacks of equal transformer blocks with a varying batch and length give graphs of 100 to 20,000
nodes; the program inserts a prompt, replaces it before every block, and a head reads the
features. Then the same for GPT-2 small, with the memory that compiling takes. The machine
decides the seconds; what counts are the ratios, and how they grow.
"""

from __future__ import annotations

import math
import platform
import resource
import sys
import time

import torch
from torch import nn

import graphprog as gp

SIZES = (100, 300, 1_000, 3_000, 10_000, 20_000)
WIDTH, HEADS = 32, 2
AXES = {"x": {0: "batch", 1: "sequence"}}


class Block(nn.Module):
    """Attention and a perceptron, both residual: about 20 nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.behind = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, S, WIDTH] -> [B, S, WIDTH]."""
        batch, length, _ = x.shape
        heads = self.mix(self.before(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*heads.unbind(0), is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        result: torch.Tensor = x + self.net(self.behind(x))
        return result


class Stack(nn.Module):
    """A sequence of blocks, the mean, and a head."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, S, WIDTH] -> [B, 4]."""
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(x.mean(1))
        return logits


PROGRAM = gp.Program(
    gp.methods.vpt_deep(tokens=10, offset=0), align=gp.LinearHead(classes=3, at="features")
)


def stack_of(nodes: int) -> tuple[int, int, float, float, dict[str, float]]:
    """Blocks, nodes, and seconds of capture, of compile, and of each pass in it."""
    blocks = max(2, round(nodes / 23))
    model = Stack(blocks).eval()
    start = time.perf_counter()
    graph = gp.capture(model, (torch.randn(2, 8, WIDTH),), dynamic_axes=AXES)
    captured = time.perf_counter()
    task = gp.compile(graph, PROGRAM)
    compiled = time.perf_counter()
    passes: dict[str, float] = {}
    for step in task.graph.history:
        name = step.text.partition("{")[0]
        passes[name] = passes.get(name, 0.0) + step.milliseconds / 1e3
    return blocks, len(graph.nodes), captured - start, compiled - captured, passes


def show_growth(most: int) -> None:
    """The table of sizes, and how time grows with the number of nodes."""
    found = []
    for nodes in (size for size in SIZES if size <= most):
        blocks, count, capture, compile_, passes = stack_of(nodes)
        found.append((count, capture, compile_))
        shares = "  ".join(f"{name} {seconds:.2f}" for name, seconds in passes.items())
        print(
            f"{count:6d} nodes, {blocks:4d} blocks: capture {capture:7.2f} s, compile "
            f"{compile_:6.2f} s = {compile_ / capture:.2f} × capture; passes: {shares}",
            flush=True,
        )
    for name, column in (("capture", 1), ("compile", 2)):
        (small, *_), (large, *_) = found[1], found[-1]
        grown = math.log(found[-1][column] / found[1][column]) / math.log(large / small)
        print(f"{name}: time grows with nodes to the power {grown:.2f}")


def show_gpt2() -> None:
    """GPT-2 small: compile against capture, and the memory it takes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    import benchmarks.turns  # noqa: F401  # transformers may find a torchvision built for CUDA

    model = GPT2LMHeadModel(GPT2Config()).eval()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    ids = torch.randint(0, 50_000, (2, 16))
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    start = time.perf_counter()
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    graph = gp.capture(model, (), call, axes)
    captured = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    task = gp.compile(graph, gp.Program(gp.methods.prompt_tuning(20, init="normal")))
    compiled = time.perf_counter()
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(
        f"GPT-2 small, {len(graph.nodes)} nodes: capture {captured - start:.2f} s, compile "
        f"{compiled - captured:.2f} s = {(compiled - captured) / (captured - start):.2f} × capture"
    )
    print(
        f"memory while compiling: {1 + more / weights:.3f} × the weights of {weights / 1e6:.0f} "
        f"MB; trained numbers: {task.trained_parameters()}"
    )


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    processor = platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {processor}, one thread")
    show_gpt2()
    show_growth(int(sys.argv[1]) if len(sys.argv) > 1 else SIZES[-1])


if __name__ == "__main__":
    main()
