"""Models that PEFT adapted: the base model with the adapter merged into its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from graphprog.errors import CaptureError, FileError
from graphprog.sources.library import library
from graphprog.sources.model_name import ModelName
from graphprog.sources.source import Source
from graphprog.sources.transformers_models import OPTIONS, source_of

_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}
_PREFIX = "base_model.model."


def load_peft(name: ModelName) -> Source:
    """Load ``peft:folder``: the base model that it names, with LoRA and the like merged.

    Options: those of ``hf:``, and ``#base=`` for another name or folder of the base model.

    Raises:
        CaptureError: peft is not installed, or the adapter is a prompt, which is a program.
        FileError: there is no such folder.
    """
    name.require_options(("base", *OPTIONS))
    folder = Path(name.rest)
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder")
    peft = library("peft", "a peft: name")
    config = peft.PeftConfig.from_pretrained(name.rest)
    base = name.options.get("base", config.base_model_name_or_path)
    if not base:
        raise CaptureError(f"{folder} does not name its base model", [f"{name.text}#base=folder"])
    if config.is_prompt_learning:
        raise CaptureError(
            f"{folder} holds a prompt, which changes no weights",
            [f'gp.peft.load("{folder}", gp.capture("hf:{base}"))'],
        )
    options = dict(name.options)
    options.setdefault("class", _CLASSES.get(config.task_type, ""))
    options = {option: value for option, value in options.items() if value or option == "random"}
    tensors = peft.utils.load_peft_weights(name.rest, device="cpu")
    trained = frozenset(one.removeprefix(_PREFIX) for one in tensors)

    def merged(model: Any) -> Any:
        return peft.PeftModel.from_pretrained(model, name.rest).merge_and_unload(safe_merge=True)

    with torch.no_grad():
        named = dataclasses.replace(name, options=options)
        return source_of(named, base, {}, trained=trained, change=merged)
