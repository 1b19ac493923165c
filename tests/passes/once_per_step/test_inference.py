"""In inference, the keys and values of a prompt are constants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import graphprog as gp
from graphprog.ir.graph import Graph

WORDS, WIDTH = 60, 16


@pytest.fixture(scope="module")
def gpt2() -> tuple[Any, Graph]:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_positions=32, n_embd=WIDTH, n_layer=2, n_head=2, vocab_size=WORDS, bos_token_id=1
    )
    model = transformers.GPT2LMHeadModel(config).double().eval().requires_grad_(False)
    ids = torch.randint(WORDS, (2, 7))
    kwargs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    return model, gp.capture(model, (), kwargs, axes)


def work(graph: Graph, ids: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        graph.run([ids, torch.ones_like(ids)])
    return int(counter.get_total_flops())


@pytest.mark.parametrize("generated", [False, True])
def test_a_frozen_prompt_costs_attention_alone(gpt2: tuple[Any, Graph], generated: bool) -> None:
    _, graph = gpt2
    value = gp.reparameterized.MLP(8) if generated else gp.Learnable("normal")
    prompt = gp.Concatenative(at="tokens", length=6, value=value)
    task = gp.compile(graph, gp.Program([prompt], align=gp.LastToken()))
    frozen = gp.freeze(task, exact=False)
    ids, mask = torch.randint(WORDS, (4, 3)), torch.ones(4, 3, dtype=torch.int64)
    mask[1, :1], mask[2, 2:] = 0, 0
    want = task.graph.run([ids, mask])[0]
    torch.testing.assert_close(frozen.run([ids, mask])[0], want, rtol=1e-6, atol=1e-9)
    short, long = work(frozen, ids), work(task.graph, ids)
    assert short < 0.5 * long  # 3 positions of 9
    assert work(frozen, ids[:1]) == pytest.approx(short / 4)  # nothing is computed of the prompt
    assert gp.freeze(task).run([ids, mask])[0].equal(want)


def scaling_with_the_batch(task: gp.ReprogrammedModel) -> list[str]:
    """Operations that cost FLOPs, depend on no sample, and have the rows of a batch."""
    found = task.graph.explain()
    batch = task.graph.placeholders[0].meta["val"].shape[0].node.expr
    return [
        str(node)
        for node, kind in found.classes.items()
        if "samples" not in kind
        and found.flops.get(node.name)
        and any(
            not isinstance(size, int) and batch in size.node.expr.free_symbols
            for size in node.meta["val"].shape
        )
    ]


GENERATED = {
    "mlp": gp.Concatenative(at="tokens", length=3, value=gp.reparameterized.MLP(8)),
    "embedding": gp.Concatenative(at="embedding", length=3, value=gp.reparameterized.MLP(8)),
    "prefix": gp.Prefix(at="attention[*]", length=3, value=gp.reparameterized.MLP(8)),
}


@pytest.mark.parametrize("kind", GENERATED)
def test_generated_values_are_computed_with_one_row(gpt2: tuple[Any, Graph], kind: str) -> None:
    task = gp.compile(gpt2[1], gp.Program([GENERATED[kind]], align=gp.LastToken()))
    assert scaling_with_the_batch(task) == []
    counts = []
    for rows in (1, 2, 5):
        counts.append(work(task.graph, torch.ones(rows, 4, dtype=torch.int64)))
    row = counts[1] - counts[0]
    assert counts[2] - counts[0] == 4 * row
    assert counts[0] > row  # the generator is not of a row
