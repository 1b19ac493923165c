"""Folders of PEFT by name: the base model with the adapter merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import graphprog as gp
from graphprog.errors import CaptureError, FileError
from graphprog.sources.open_source import open_source


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    config = transformers.BertConfig(
        vocab_size=12, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def adapted(base: Path, folder: Path, config: Any) -> Any:
    """Save an adapter whose weights are not zero, over a base model with a new head."""
    model = transformers.BertForSequenceClassification.from_pretrained(base)
    tuned = peft.get_peft_model(model, config).eval()
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    tuned.save_pretrained(folder)
    return tuned


def test_lora_is_merged_and_its_head_is_kept(base: Path, tmp_path: Path) -> None:
    tuned = adapted(base, tmp_path, peft.LoraConfig(task_type="SEQ_CLS", r=2))
    source = open_source(f"peft:{tmp_path}")
    assert type(source.model) is transformers.BertForSequenceClassification
    with torch.no_grad():
        expected = tuned(**source.kwargs).logits
        assert torch.allclose(source.model(**source.kwargs).logits, expected, atol=1e-4)
        plain = tuned.unload()(**source.kwargs).logits
    assert not torch.allclose(plain, expected, atol=1e-2)


def test_a_prompt_is_a_program_and_no_model(base: Path, tmp_path: Path) -> None:
    adapted(base, tmp_path, peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3))
    with pytest.raises(CaptureError, match="holds a prompt, which changes no weights") as found:
        gp.capture(f"peft:{tmp_path}")
    assert found.value.remedies == (f'gp.peft.load("{tmp_path}", gp.capture("hf:{base}"))',)
    with pytest.raises(FileError, match="absent: no such folder"):
        gp.capture("peft:absent")
