"""Models that write, small, from their configurations; and their graphs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp

VOCABULARY, END = 97, 2
_WIDE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.4,
}
_DEEP: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "initializer_range": 0.4,
}
_ENDS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": END, "pad_token_id": 0}
_GROUPED: dict[str, Any] = {**_WIDE, **_ENDS, "num_key_value_heads": 2}
_TWO: dict[str, Any] = {
    **_ENDS,
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "init_std": 0.4,
    "decoder_start_token_id": 1,
}


def _opt(t: Any) -> nn.Module:
    sizes = {**_ENDS, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2}
    return t.OPTForCausalLM(
        t.OPTConfig(
            vocab_size=VOCABULARY,
            num_attention_heads=4,
            max_position_embeddings=128,
            word_embed_proj_dim=32,
            init_std=0.4,
            **sizes,
        )
    )


def _neo(t: Any) -> nn.Module:
    return t.GPTNeoForCausalLM(
        t.GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            max_position_embeddings=128,
            window_size=4,
            initializer_range=0.4,
            **_ENDS,
        )
    )


DECODERS: dict[str, Callable[[Any], nn.Module]] = {
    "gpt2": lambda t: t.GPT2LMHeadModel(t.GPT2Config(**_DEEP, **_ENDS)),
    "llama": lambda t: t.LlamaForCausalLM(t.LlamaConfig(**_GROUPED)),
    "qwen2": lambda t: t.Qwen2ForCausalLM(t.Qwen2Config(**_GROUPED)),
    "opt": _opt,
    "bloom": lambda t: t.BloomForCausalLM(
        t.BloomConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            n_layer=2,
            n_head=4,
            initializer_range=0.4,
            **_ENDS,
        )
    ),
    "windows": lambda t: t.MistralForCausalLM(t.MistralConfig(**_GROUPED, sliding_window=7)),
    "written out": lambda t: t.LlamaForCausalLM(
        t.LlamaConfig(**_GROUPED, attn_implementation="eager")
    ),
    "gemma3": lambda t: t.Gemma3ForCausalLM(
        t.Gemma3TextConfig(
            **(_GROUPED | {"num_hidden_layers": 3}),
            head_dim=8,
            sliding_window=5,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            tie_word_embeddings=False,
        )
    ),
    "neox": lambda t: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**_WIDE, **_ENDS)),
    "falcon": lambda t: t.FalconForCausalLM(
        t.FalconConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            initializer_range=0.4,
            **_ENDS,
        )
    ),
    "gptj": lambda t: t.GPTJForCausalLM(t.GPTJConfig(**_DEEP, **_ENDS, rotary_dim=4)),
    "mpt": lambda t: t.MptForCausalLM(
        t.MptConfig(
            vocab_size=VOCABULARY,
            d_model=32,
            n_layers=2,
            n_heads=4,
            max_seq_len=128,
            initializer_range=0.4,
        )
    ),
    "codegen": lambda t: t.CodeGenForCausalLM(t.CodeGenConfig(**_DEEP, **_ENDS, rotary_dim=4)),
    "gptneo": _neo,
}
"""Decoders with learned, rotary, windowed and ALiBi positions, and attention written out."""

TWO_TOWERS: dict[str, Callable[[Any], nn.Module]] = {
    "t5": lambda t: t.T5ForConditionalGeneration(
        t.T5Config(
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
            initializer_factor=2.0,
        )
    ),
    "bart": lambda t: t.BartForConditionalGeneration(
        t.BartConfig(**_TWO, max_position_embeddings=128)
    ),
    "whisper": lambda t: t.WhisperForConditionalGeneration(
        t.WhisperConfig(
            **_TWO,
            num_mel_bins=8,
            max_source_positions=20,
            max_target_positions=128,
            suppress_tokens=[],
            begin_suppress_tokens=[],
        )
    ),
}
"""Encoders of text and sound with a decoder."""


def ids_of(batch: int, length: int, seed: int = 0) -> Tensor:
    """Token ids that end nothing."""
    generator = torch.Generator().manual_seed(seed + 100 * batch + length)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


@functools.cache
def decoder(name: str) -> tuple[Any, gp.Graph]:
    """A decoder and its graph, with a mask, for any batch and length."""
    import transformers

    torch.manual_seed(0)
    model = DECODERS[name](transformers).eval().requires_grad_(False)
    call = {"input_ids": ids_of(2, 9), "attention_mask": torch.ones(2, 9, dtype=torch.int64)}
    axes = {key: {0: "batch", 1: "sequence"} for key in call}
    return model, gp.capture(model, (), {**call, "use_cache": False}, axes)


def towers_call(name: str, batch: int, source: int, target: int) -> dict[str, Tensor]:
    """Inputs of an encoder with a decoder."""
    written = {"decoder_input_ids": ids_of(batch, target, 1)}
    if name == "whisper":
        generator = torch.Generator().manual_seed(batch)
        return {"input_features": torch.randn(batch, 8, 40, generator=generator), **written}
    mask = torch.ones(batch, source, dtype=torch.int64)
    mask[1:2, source - 2 :] = 0
    return {"input_ids": ids_of(batch, source), "attention_mask": mask, **written}


@functools.cache
def two_towers(name: str) -> tuple[Any, gp.Graph]:
    """An encoder with a decoder, and its graph."""
    import transformers

    torch.manual_seed(0)
    model = TWO_TOWERS[name](transformers).eval().requires_grad_(False)
    call = towers_call(name, 2, 7, 9)
    axes: dict[str, Any] = {key: {0: "batch", 1: "encoded"} for key in call}
    axes["decoder_input_ids"] = {0: "batch", 1: "sequence"}
    if name == "whisper":
        axes["input_features"] = {0: "batch"}
    return model, gp.capture(model, (), {**call, "use_cache": False}, axes)


TOKENS = 31


class Decoder(nn.Module):
    """A causal model with a longer table of positions than of tokens; returns what is wanted."""

    def __init__(self, wanted: str = "logits") -> None:
        super().__init__()
        self.wanted = wanted
        self.positions = nn.Embedding(64, 16)
        self.words = nn.Embedding(TOKENS, 16)
        self.head = nn.Linear(16, TOKENS)

    def forward(self, places: Tensor, ids: Tensor) -> object:
        """Logits, a hidden state, or both."""
        x = self.positions(places) + self.words(ids)
        q = x.unflatten(-1, (2, 8)).transpose(1, 2)
        y = functional.scaled_dot_product_attention(q, q, q, is_causal=True)
        hidden = x + y.transpose(1, 2).flatten(2)
        logits = self.head(hidden)
        results = {"logits": logits, "hidden": hidden, "both": (hidden, logits)}
        return (None, logits) if self.wanted == "none" else results[self.wanted]


def captured(model: nn.Module) -> gp.Graph:
    """Its graph for any batch and length."""
    call = {"places": torch.arange(7).expand(2, 7).contiguous(), "ids": torch.ones(2, 7).long()}
    axes = {name: {0: "batch", 1: "sequence"} for name in call}
    return gp.capture(model.eval(), (), call, axes)
