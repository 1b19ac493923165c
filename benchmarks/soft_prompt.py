"""A step of training a soft prompt before GPT-2 small, beside PEFT.

    OMP_NUM_THREADS=1 python benchmarks/soft_prompt.py [repeats]

Random weights, 12 blocks of width 768, 50,257 tokens. Two label words at the last token, and the
language-model loss on answers, a quarter of the tokens. Forward and backward pass; processor time
of one thread, in turns in one process, medians. Gradients are compared first.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from turns import machine

import graphprog as gp
from graphprog.alignments.verbalizers.label_tokens import LabelTokens

WORDS = (11, 20)
SIZES = {"8 x 128 + 20": (8, 128, 20), "8 x 64 + 100": (8, 64, 100), "16 x 32 + 100": (16, 32, 100)}


def language_model() -> nn.Module:
    """GPT-2 small with random weights."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(use_cache=False)
    made: nn.Module = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
    return made


def processor_time(call: Callable[[], object]) -> float:
    """Seconds that the processor spent on one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def step(loss: Callable[[], torch.Tensor], prompt: nn.Parameter) -> torch.Tensor:
    """Return the gradient of a loss."""
    (found,) = torch.autograd.grad(loss(), prompt)
    return found


def contestants(
    graph: gp.Graph, sizes: tuple[int, int, int], answers: bool
) -> dict[str, Callable[[], torch.Tensor]]:
    """Return a training step of each."""
    import peft

    rows, length, count = sizes
    ids, mask = torch.randint(50257, (rows, length)), torch.ones(rows, length, dtype=torch.int64)
    classes = torch.arange(rows) % 2
    labels = ids.clone()
    labels[:, : length - length // 4] = -100
    entries = torch.randn(count, 768) * 0.02
    prompt = gp.Concatenative(at="tokens", length=count, value=gp.Learnable("normal"))
    words = {} if answers else {"align": LabelTokens(tuple(((word,),) for word in WORDS))}
    task = gp.compile(graph, gp.Program([prompt], **words)).train()
    own = next(task.program.parameters())
    own.data.copy_(entries)
    objective = gp.losses.CausalLM(task) if answers else None

    def loss() -> torch.Tensor:
        if objective is None:
            return functional.cross_entropy(task(input_ids=ids, attention_mask=mask), classes)
        places = objective.places(labels)
        assert places is not None
        return places.objective(task.at(places.output, places.positions, ids, mask), labels)

    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=count)
    tuned = peft.get_peft_model(language_model(), config)
    theirs = next(p for p in tuned.parameters() if p.requires_grad)
    theirs.data.copy_(entries)

    def peft_loss() -> torch.Tensor:
        if answers:
            return tuned(input_ids=ids, attention_mask=mask, labels=labels).loss
        logits = tuned(input_ids=ids, attention_mask=mask).logits[:, -1]
        return functional.cross_entropy(logits[:, list(WORDS)], classes)

    return {
        "graphprog": functools.partial(step, loss, own),
        "PEFT": functools.partial(step, peft_loss, theirs),
    }


def main() -> None:
    torch.set_num_threads(1)
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(machine())
    ids = torch.randint(50257, (2, 16))
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    graph = gp.capture(language_model(), (), example, axes)
    jobs = [("two label words", name, sizes, False) for name, sizes in SIZES.items()]
    jobs.append(("loss on answers", "8 x 128 + 20", SIZES["8 x 128 + 20"], True))
    for work, name, sizes, answers in jobs:
        calls = contestants(graph, sizes, answers)
        first, other = (call() for call in calls.values())
        error = float((first - other).abs().max() / other.abs().max())
        times: dict[str, list[float]] = {kind: [] for kind in calls}
        for _ in range(repeats):
            for kind, call in calls.items():
                times[kind].append(processor_time(call))
        seconds = {kind: statistics.median(found) for kind, found in times.items()}
        ratio = seconds["PEFT"] / seconds["graphprog"]
        shown = ", ".join(f"{kind} {found:.2f} s" for kind, found in seconds.items())
        print(f"{work}, {name}: {shown}; {ratio:.2f} times as fast, gradients within {error:.0e}")


if __name__ == "__main__":
    main()
