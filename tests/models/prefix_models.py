"""Small models that attend, and what they compute with keys and values in front of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp

VOCABULARY, HEAD, LAYERS = 97, 8, 2
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
T5_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": HEAD,
    "d_ff": 48,
    "num_layers": LAYERS,
    "num_heads": 4,
}
_BART_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}


def _gpt2(t: Any) -> nn.Module:
    config = t.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=LAYERS, n_head=4
    )
    return t.GPT2LMHeadModel(config)


DECODERS: dict[str, Callable[[Any], nn.Module]] = {
    "gpt2": _gpt2,
    "llama": lambda t: t.LlamaForCausalLM(t.LlamaConfig(**SIZES, num_key_value_heads=2)),
    "qwen2": lambda t: t.Qwen2ForCausalLM(t.Qwen2Config(**SIZES, num_key_value_heads=2)),
    "windows": lambda t: t.MistralForCausalLM(
        t.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=7)
    ),
    "opt": lambda t: t.OPTForCausalLM(
        t.OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            max_position_embeddings=64,
            word_embed_proj_dim=32,
        )
    ),
    "neox": lambda t: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SIZES)),
    "falcon": lambda t: t.FalconForCausalLM(
        t.FalconConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
        )
    ),
}
"""Decoders with learned, rotary and windowed positions, with one key head or several."""


@functools.cache
def decoder(name: str, masked: bool = True) -> tuple[nn.Module, gp.Graph]:
    """A decoder and its graph, for any batch and length."""
    import transformers

    torch.manual_seed(0)
    model = DECODERS[name](transformers).eval().requires_grad_(False)
    call: dict[str, Any] = {"input_ids": some_ids(2, 9), "use_cache": False}
    if masked:
        call["attention_mask"] = presence(2, 9)
    axes = {key: {0: "batch", 1: "sequence"} for key in call if key != "use_cache"}
    return model, gp.capture(model, (), call, axes)


@functools.cache
def encoder() -> tuple[nn.Module, gp.Graph]:
    """An encoder that classifies, and its graph, for any batch and length."""
    import transformers as t

    torch.manual_seed(0)
    model = t.BertForSequenceClassification(t.BertConfig(**SIZES)).eval().requires_grad_(False)
    call = {"input_ids": some_ids(2, 9), "attention_mask": presence(2, 9)}
    axes = {name: {0: "batch", 1: "sequence"} for name in call}
    return model, gp.capture(model, (), call, axes)


@functools.cache
def two_towers(name: str) -> tuple[nn.Module, gp.Graph]:
    """An encoder and a decoder, and their graph for any batch and lengths."""
    import transformers as t

    torch.manual_seed(0)
    if name == "t5":
        model: Any = t.T5ForConditionalGeneration(t.T5Config(**T5_SIZES))
    else:
        model = t.BartForConditionalGeneration(t.BartConfig(**_BART_SIZES))
    model = model.eval().requires_grad_(False)
    call = towers_call(2, 9, 6)
    axes = {
        key: {0: "batch", 1: "target" if "decoder" in key else "source"}
        for key, value in call.items()
        if isinstance(value, Tensor)
    }
    return model, gp.capture(model, (), call, axes)


def towers_call(batch: int, source: int, target: int) -> dict[str, Any]:
    """Arguments of an encoder with a decoder."""
    return {
        "input_ids": some_ids(batch, source),
        "attention_mask": presence(batch, source),
        "decoder_input_ids": some_ids(batch, target),
        "use_cache": False,
    }


def some_ids(batch: int, length: int) -> Tensor:
    """Token ids."""
    generator = torch.Generator().manual_seed(batch * 100 + length)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


def presence(batch: int, length: int) -> Tensor:
    """A mask of which the second row begins with padding."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[1:2, :3] = 0
    return mask


def pairs_of(task: gp.ReprogrammedModel, layers: int = LAYERS) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [h, P, d] of every operation of a task of one memory."""
    (part,) = task.program.children()
    rows = part.rows(torch.zeros(1)).detach()
    heads = rows.reshape(len(rows), layers, 2, -1, HEAD).permute(1, 2, 3, 0, 4)
    return [(keys, values) for keys, values in heads]


class Watch:
    """Attention as PyTorch computes it eagerly, seen and changed from outside."""

    def __init__(self, pairs: dict[int, tuple[Tensor, Tensor]], masks: list[Any] | None) -> None:
        self.pairs = pairs
        self.longer = masks
        self.masks: list[Any] = []

    @contextmanager
    def looking(self) -> Iterator[Watch]:
        """Replace the function that models call."""
        original = functional.scaled_dot_product_attention

        def attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
            names = ("attn_mask", "dropout_p", "is_causal")
            kwargs |= dict(zip(names, args, strict=False))
            number = len(self.masks)
            self.masks.append(kwargs.get("attn_mask"))
            if number in self.pairs and self.longer is not None:
                repeats = key.shape[1] // self.pairs[number][0].shape[0]
                new = [one.repeat_interleave(repeats, 0) for one in self.pairs[number]]
                wide = [one[None].expand(len(key), -1, -1, -1) for one in new]
                key, value = torch.cat([wide[0], key], 2), torch.cat([wide[1], value], 2)
                mask = self.longer[number]
                if mask is not None:
                    kwargs["attn_mask"] = mask[..., -query.shape[2] :, :]
                elif kwargs.pop("is_causal", False):
                    later = torch.ones(query.shape[2], key.shape[2]).triu(1 + wide[0].shape[2])
                    kwargs["attn_mask"] = later == 0
            return original(query, key, value, **kwargs)

        functional.scaled_dot_product_attention = attend
        try:
            yield self
        finally:
            functional.scaled_dot_product_attention = original


def watched(
    model: nn.Module,
    pairs: dict[int, tuple[Tensor, Tensor]],
    call: dict[str, Any],
    longer: dict[str, Any],
) -> Any:
    """What a model returns with memory at some operations.

    Args:
        model: it calls ``scaled_dot_product_attention`` of ``torch.nn.functional``.
        pairs: keys and values by the number of the operation.
        call: arguments.
        longer: arguments with as many tokens more in front, from which come the masks.
    """
    with torch.no_grad():
        with Watch({}, None).looking() as first:
            model(**longer)
        with Watch(pairs, first.masks).looking():
            return model(**call)


LENGTH = 5


def filled(graph: gp.Graph, **options: Any) -> gp.ReprogrammedModel:
    """A task with a memory that matters."""
    part = gp.Prefix(length=LENGTH, value=gp.Learnable("normal", 0.5), **options)
    return gp.compile(graph, gp.Program([part]))


def cached(
    model: nn.Module, task: gp.ReprogrammedModel, ids: Tensor, mask: Tensor | None
) -> Tensor:
    """What the model computes when it finds the memory in its cache."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, pair in enumerate(pairs_of(task)):
        wide = [one[None].expand(len(ids), -1, -1, -1).clone() for one in pair]
        cache.update(*wide, layer)
    given = {"input_ids": ids, "past_key_values": cache, "use_cache": True}
    if mask is not None:
        ones = torch.ones(len(ids), LENGTH, dtype=mask.dtype)
        given["attention_mask"] = torch.cat([ones, mask], 1)
    with torch.no_grad():
        return model(**given).logits
