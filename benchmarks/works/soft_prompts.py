"""A step of training a soft prompt before GPT-2 small, as it is here and in PEFT.

Random weights, 12 blocks of width 768, 50,257 tokens. The loss is that of two label words at the
last token, or of a language model on answers, a quarter of the tokens. A step is a forward and a
backward pass; gradients are compared first.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.nn import functional

import benchmarks.turns  # noqa: F401  # makes torchvision importable, which transformers may find
import graphprog as gp
from benchmarks.table.records import OURS, Setting
from benchmarks.works.steps import Loss, Steps, steps
from graphprog.alignments.verbalizers.label_tokens import LabelTokens

WORDS = (11, 20)


@dataclasses.dataclass(frozen=True)
class Size:
    """Rows, tokens of each, and tokens of the prompt."""

    rows: int
    tokens: int
    prompt: int


class Source:
    """The frozen model, and its graph.

    Attributes:
        model: of transformers.
        graph: captured from it and optimized; it shares the weights.
        device: where the model is, and programs and texts are made.
    """

    def __init__(self, setting: Setting) -> None:
        import transformers

        torch.manual_seed(0)
        small = {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 120} if setting.tiny else {}
        config = transformers.GPT2Config(use_cache=False, **small)
        self.model: Any = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
        self.device = setting.device
        self.graph = gp.optimize(capture(self.model.to(self.device)))

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        width: int = self.model.config.n_embd
        return width

    def weights(self) -> list[torch.Tensor]:
        """Return what is frozen."""
        return list(self.model.parameters())

    def task(self, prompt: int, words: bool, graph: gp.Graph | None = None) -> gp.ReprogrammedModel:
        """Compile a prompt into the graph, or into another one of the model.

        Args:
            prompt: number of its tokens.
            words: whether two label words are read, or the logits.
            graph: the graph; None for that in float32.
        """
        part = gp.Concatenative(at="tokens", length=prompt, value=gp.Learnable("normal"))
        align = {"align": LabelTokens(tuple(((word,),) for word in WORDS))} if words else {}
        program = gp.Program([part], **align)
        return gp.compile(self.graph if graph is None else graph, program).to(self.device).train()


def capture(model: Any) -> gp.Graph:
    """Capture a causal model with ids and mask of any size."""
    ids = torch.randint(model.config.vocab_size, (2, 16), device=model.device)
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    return gp.capture(
        model, (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, dynamic_axes=axes
    )


def words_loss(source: Source, size: Size, task: gp.ReprogrammedModel) -> Loss:
    """Return the loss of two label words at the last token."""
    ids, mask = texts(source, size)
    classes = torch.arange(size.rows, device=source.device) % 2
    return lambda: functional.cross_entropy(task(input_ids=ids, attention_mask=mask), classes)


def texts(source: Source, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same random ids and mask at every call."""
    generator = torch.Generator().manual_seed(1)
    shape = (size.rows, size.tokens)
    ids = torch.randint(source.model.config.vocab_size, shape, generator=generator)
    ids = ids.to(source.device)
    return ids, torch.ones_like(ids)


def contestants(source: Source, size: Size, answers: bool = False) -> Steps:
    """Return the step of each, from the same prompt.

    PEFT wraps the model that was captured, so that the weights are there once.

    Args:
        source: the model.
        size: of batch and prompt.
        answers: whether the loss is that of answers, not of label words.
    """
    import peft

    ids, mask = texts(source, size)
    labels = ids.clone()
    labels[:, : size.tokens - size.tokens // 4] = -100
    task = source.task(size.prompt, not answers)
    (own,) = (one for one in task.program.parameters() if one.requires_grad)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=size.prompt)
    tuned: Any = peft.get_peft_model(source.model, config).to(source.device)
    (theirs,) = (one for one in tuned.parameters() if one.requires_grad)
    theirs.data.copy_(own.data)
    objective = gp.losses.CausalLM(task) if answers else None
    classes = torch.arange(size.rows, device=source.device) % 2

    def answers_loss() -> torch.Tensor:
        assert objective is not None
        places = objective.places(labels)
        assert places is not None
        return places.objective(task.at(places.output, places.positions, ids, mask), labels)

    def peft_answers() -> torch.Tensor:
        loss: torch.Tensor = tuned(input_ids=ids, attention_mask=mask, labels=labels).loss
        return loss

    def peft_words() -> torch.Tensor:
        logits = tuned(input_ids=ids, attention_mask=mask).logits[:, -1]
        return functional.cross_entropy(logits[:, list(WORDS)], classes)

    own_loss = answers_loss if answers else words_loss(source, size, task)
    return steps(
        {"PEFT": (peft_answers if answers else peft_words, [theirs]), OURS: (own_loss, [own])}
    )
