"""GGUF files by name, written by the library of llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

import graphprog as gp
from graphprog.errors import FileError
from graphprog.sources.open_source import open_source

WORDS = [
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{number:02X}>" for number in range(256)),
    "\u2581",
    "a",
    "b",
]
HEADS, WIDTH, INNER, CONTEXT = 2, 32, 32, 64


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=1,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def interleaved(weight: torch.Tensor) -> torch.Tensor:
    """The rows of a query or key projection in llama.cpp's order of rotary pairs."""
    halves = weight.reshape(HEADS, 2, WIDTH // HEADS // 2, WIDTH)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write(model: Any, path: Path) -> None:
    """Write a Llama model as llama.cpp's own conversion does."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(WORDS)
    writer.add_token_scores([0.0] * len(WORDS))
    writer.add_token_types([2, 3, 3, *[6] * 256, 1, 1, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for name, tensor in model.state_dict().items():
        kind = name.rsplit(".", 2)[-2]
        value = interleaved(tensor) if kind in ("q_proj", "k_proj") else tensor
        stem = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(stem, value.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_language_model_is_loaded_from_its_file(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "small model.gguf"
    write(model, path)
    source = open_source(str(path))
    assert type(source.model) is type(model)
    ids = torch.randint(3, len(WORDS), (2, 7))
    with torch.no_grad():
        assert torch.allclose(source.model(ids).logits, model(ids).logits, atol=1e-5)
    assert source.tokenizer.decode(source.tokenizer("a b")["input_ids"][-1:]) == "b"
    assert sorted(source.kwargs) == ["attention_mask", "input_ids", "use_cache"]


def test_an_absent_file_is_refused() -> None:
    with pytest.raises(FileError, match=r"absent\.gguf: no such file"):
        gp.capture("gguf:absent.gguf")
