"""Base models for PEFT: small, random, one for each class and task that is tried."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor, nn

import graphprog as gp
from tests.models.prefix_models import SIZES, T5_SIZES, VOCABULARY

_SHAPE = {**SIZES, "pad_token_id": 0}


def gpt2(task: str) -> nn.Module:
    import transformers as t

    config = t.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4, pad_token_id=0
    )
    kinds = {
        "CAUSAL_LM": t.GPT2LMHeadModel,
        "SEQ_CLS": t.GPT2ForSequenceClassification,
        "TOKEN_CLS": t.GPT2ForTokenClassification,
    }
    return kinds[task](config)


def llama(task: str) -> nn.Module:
    import transformers as t

    config = t.LlamaConfig(**_SHAPE, num_key_value_heads=2)
    kinds = {"CAUSAL_LM": t.LlamaForCausalLM, "SEQ_CLS": t.LlamaForSequenceClassification}
    return kinds[task](config)


def gemma(task: str) -> nn.Module:
    """Scales its embeddings where it looks them up."""
    import transformers as t

    config = t.Gemma3TextConfig(
        **_SHAPE, num_key_value_heads=2, head_dim=8, layer_types=["full_attention"] * 2
    )
    return t.Gemma3ForCausalLM(config)


def bert(task: str) -> nn.Module:
    import transformers as t

    kinds = {
        "SEQ_CLS": t.BertForSequenceClassification,
        "TOKEN_CLS": t.BertForTokenClassification,
        "QUESTION_ANS": t.BertForQuestionAnswering,
        "FEATURE_EXTRACTION": t.BertModel,
    }
    labels = 2 if task == "QUESTION_ANS" else 3
    return kinds[task](t.BertConfig(**_SHAPE, num_labels=labels))


def roberta(task: str) -> nn.Module:
    """Its head has two layers."""
    import transformers as t

    return t.RobertaForSequenceClassification(t.RobertaConfig(**_SHAPE, num_labels=3))


def t5(task: str) -> nn.Module:
    import transformers as t

    return t.T5ForConditionalGeneration(t.T5Config(**T5_SIZES, decoder_start_token_id=0))


FAMILIES = {
    "gpt2": gpt2,
    "llama": llama,
    "gemma": gemma,
    "bert": bert,
    "roberta": roberta,
    "t5": t5,
}


@dataclasses.dataclass(frozen=True)
class Base:
    """A frozen model, and its graph for inputs of any batch and length."""

    family: str
    task: str
    model: nn.Module
    graph: gp.Graph

    def copy(self) -> nn.Module:
        """The model for PEFT to wrap, which changes it."""
        return copy.deepcopy(self.model)

    def call(
        self, batch: int, length: int, padding: str = "right", seed: int = 0
    ) -> dict[str, Tensor]:
        """Inputs in which rows are of different lengths, padded on one side or not at all."""
        return call(self.family, batch, length, padding, seed)


def call(family: str, batch: int, length: int, padding: str, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (batch, length), generator=generator)
    places, missing = torch.arange(length), torch.arange(batch)[:, None] % (length - 1)
    mask = torch.ones_like(ids)
    if padding == "right":
        mask = (places[None] < length - missing).long()
    elif padding == "left":
        mask = (places[None] >= missing).long()
    found = {"input_ids": ids * mask, "attention_mask": mask}
    if family == "bert":
        found["token_type_ids"] = (places >= length // 2).long().expand(batch, -1).clone()
    if family == "t5":
        decoder = torch.randint(3, VOCABULARY, (batch, length // 2 + 1), generator=generator)
        decoder[:, 0] = 0
        found["decoder_input_ids"] = decoder
    return found


@functools.cache
def base(family: str, task: str) -> Base:
    torch.manual_seed(0)
    model = FAMILIES[family](task).eval().requires_grad_(False)
    kwargs = call(family, 3, 7, "right", 9)
    axes = {
        name: {0: "batch", 1: "target" if name.startswith("decoder") else "length"}
        for name in kwargs
    }
    constants: dict[str, Any] = {} if family in ("bert", "roberta") else {"use_cache": False}
    graph = gp.capture(model, (), {**kwargs, **constants}, dynamic_axes=axes)
    return Base(family, task, model, graph)


def outputs(result: Any) -> list[Tensor]:
    """The tensors that a model of transformers computes."""
    values = result.to_tuple() if hasattr(result, "to_tuple") else result
    return [value for value in values if isinstance(value, Tensor)]
