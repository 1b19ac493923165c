"""Causal language models for the examples: real ones by name, small ones that are trained here."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

import graphprog as gp

PIECES = r" ?[\w']+:?|\s| ?[^\w\s]"
"""What small models read as one token: a word or a number, with the space in front of it."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""Token ids and what is to be predicted, int64 [B, S] each; -100 where nothing is."""


def captured(name: str | Path) -> gp.Graph:
    """A frozen causal language model with its tokenizer, as a graph of any batch and length.

    Args:
        name: ``hf:owner/name`` of the Hugging Face Hub, or a folder as ``save_pretrained`` has it.
    """
    without_broken_torchvision()
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    place = str(name).removeprefix("hf:")
    if place == str(name) and not Path(name).is_dir():
        raise FileNotFoundError(f"{name} is no folder; a model of the Hub is hf:owner/name")
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    ids = torch.zeros(2, 7, dtype=torch.long)
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    return gp.capture(model, (), call, axes, tokenizer=tokenizer)


def word_tokenizer(texts: Iterable[str]) -> Any:
    """A tokenizer of transformers that knows the words of these texts, and marks a beginning."""
    without_broken_torchvision()
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    pieces = [piece for text in texts for piece, _ in split.pre_tokenize_str(text)]
    names = dict.fromkeys(["<s>", "<unk>", *pieces])
    numbers = {name: number for number, name in enumerate(names)}
    words = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    words.pre_tokenizer = split
    words.decoder = decoders.Fuse()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", unk_token="<unk>", pad_token="<s>"
    )


def small_llama(vocabulary: int, layers: int, width: int, seed: int) -> nn.Module:
    """An untrained Llama; the width is small, so its weights begin larger than usual."""
    without_broken_torchvision()
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=width**-0.5,
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=0,
        )
    )


def train(
    model: nn.Module, batches: Iterator[Batch], steps: int, lr: float = 3e-3, warm_up: int = 100
) -> dict[str, float]:
    """Train all weights, with a progress bar; the rate goes down in the last third.

    Returns:
        Seconds of the clock and of the processor, and the mean loss of the last 100 steps.
    """
    torch.set_num_threads(1)  # matrices this small are no work for two
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.98), weight_decay=0.01)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / warm_up, 3 * (1 - step / steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    started, used = time.perf_counter(), time.process_time()
    losses = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task("training", total=steps)
        for _ in range(steps):
            ids, targets = next(batches)
            loss = model(input_ids=ids, labels=targets).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses = [*losses[-99:], loss.item()]
            progress.update(bar, advance=1, description=f"loss {sum(losses) / len(losses):.3f}")
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - used,
        "loss": sum(losses) / len(losses),
    }


def keep(folder: Path, model: Any, tokenizer: Any, record: Mapping[str, float]) -> None:
    """Write model and tokenizer as the Hub has them; the folder is there whole or not at all."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "training.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def trained(folder: Path, tokenizer: Any, batches: Iterator[Batch], steps: int, seed: int) -> Path:
    """Train a small Llama and keep it with its tokenizer in a folder, which is returned."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    model = small_llama(len(tokenizer), layers=2, width=64, seed=seed)
    record = train(model, batches, steps)
    keep(folder, model, tokenizer, record | {"steps": steps, "seed": seed})
    return folder


def without_broken_torchvision() -> None:
    """Let transformers do without a torchvision that was built for another torch.

    It imports torchvision wherever that is installed, and text needs none of it.
    """
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        pass
    except (ImportError, RuntimeError):
        sys.modules["torchvision"] = None  # type: ignore[assignment]
